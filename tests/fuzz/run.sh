#!/usr/bin/env bash
# Builds the fuzzers with clang and both sanitizers and runs each for SECONDS (default 60).
# usage: tests/fuzz/run.sh [SECONDS]
set -euo pipefail
cd "$(dirname "$0")/../.."
command -v clang >/dev/null || { echo "clang is missing: apt-get install clang libclang-rt-14-dev libomp-dev" >&2; exit 2; }
CC=clang cmake -B build-fuzz -G Ninja -DCMAKE_BUILD_TYPE=Debug -DBALLAST_FUZZ=ON -DBALLAST_TESTS=OFF \
    -DBALLAST_SANITIZE=address,undefined > /dev/null
for source in tests/fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    cmake --build build-fuzz --target "$name" > /dev/null
    mkdir -p "build-fuzz/corpus/$name"
    seeds=tests/fuzz/seeds/${name#fuzz_}
    [ -d "$seeds" ] || seeds=
    echo "== $name"
    "build-fuzz/$name" -max_total_time="${1:-60}" -rss_limit_mb=4096 -verbosity=0 -print_final_stats=1 \
        "build-fuzz/corpus/$name" $seeds 2>&1 | grep -E "stat::number_of_executed|ERROR|SUMMARY" || true
    ls build-fuzz/crash-* crash-* 2>/dev/null && exit 1 || true
done
