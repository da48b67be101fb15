#!/usr/bin/env bash
# Under mpirun a comparison prints the same bytes as on one machine: with two ranks and with four,
# with workers killed under it, with a rank killed or all interrupted and then started again. What
# cannot work ends with one sentence.
# usage: mpi.sh PROGRAM
set -u
ballast=$(realpath "$1")
command -v mpirun >/dev/null || { echo "skipped: mpirun is not installed (openmpi-bin)"; exit 77; }
module=$(dirname "$ballast")/lib/libballast-mpi.so
[ -f "$module" ] || { echo "skipped: built without MPI (libopenmpi-dev)"; exit 77; }
grep -q __tsan_init "$ballast" && { echo "skipped: the thread sanitizer does not know MPI"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# More ranks than processors, as root in a container: Open MPI asks for a word on each.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1
export PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe
export ASAN_OPTIONS=detect_leaks=0 # MPI leaves some at its end
failed=0
study=(compare digits --epochs 15 --seeds 3 --trials 1 --arm elr --arm mixup+ema)

fail() {
    failed=$((failed + 1))
    echo "FAILED $1:"
    shift
    cat "$@"
}

# start RANKS NAME: the study under mpirun as process $pid; what it prints goes to NAME.out
start() {
    mpirun -n "$1" "$ballast" "${study[@]}" --store "$work/$2.db" >"$work/$2.out" 2>"$work/$2.error" &
    pid=$!
}

# same NAME WHAT: waits for the study, and it has printed what one machine prints
same() {
    { wait $pid; } 2>/dev/null
    cmp -s "$work/expected" "$work/$1.out" || fail "$2" "$work/$1.out" "$work/$1.error"
}

# The numbers of the ranks of process $pid, in their order, once there are $1 of them, each with a
# worker: the study is under way.
ranks() {
    local rank i with
    for ((i = 0; i < 100; i++)); do
        rank=($(pgrep -P $pid))
        with=0
        for r in "${rank[@]}"; do pgrep -P "$r" >/dev/null && with=$((with + 1)); done
        [ $with -eq "$1" ] && echo "${rank[@]}" && return
        sleep 0.02
    done
}

"$ballast" "${study[@]}" --store "$work/one.db" --workers 2 >"$work/expected" 2>"$work/error" ||
    { cat "$work/error"; exit 1; }

start 2 two && same two "two ranks"
start 4 four && [ -n "$(ranks 4)" ] || fail "four ranks do not all have a worker" /dev/null
same four "four ranks"

# --- a worker dies: its rank starts another, and its job is done again ---
start 2 worker
for kill in 1 2; do
    for rank in $(ranks 2); do pkill -KILL -P "$rank"; done
done
same worker "with workers killed"

# ended PID..: within two seconds all have ended; what no one waits for may stay a zombie
ended() {
    local process i alive
    for ((i = 0; i < 100; i++)); do
        alive=0
        for process in "$@"; do grep -q '^State:[[:space:]]*[^Z]' "/proc/$process/status" && alive=1; done
        [ $alive -eq 0 ] && return
        sleep 0.02
    done 2>/dev/null
    return 1
}

# --- a rank dies, the first or another: mpirun ends all, and the same command goes on ---
for number in 0 1; do
    start 2 "rank$number"
    rank=($(ranks 2))
    kill -KILL "${rank[number]}"
    { wait $pid; } 2>/dev/null && fail "rank $number was killed in vain" "$work/rank$number.error"
    ended "${rank[@]}" || fail "rank $number was killed, another lives" "$work/rank$number.error"
    start 2 "rank$number" && same "rank$number" "after rank $number was killed"
done

# --- Ctrl-C ---
start 2 interrupted
rank=($(ranks 2))
kill -INT $pid
{ wait $pid; } 2>/dev/null && fail "interrupted in vain" "$work/interrupted.error"
start 3 interrupted && same interrupted "after an interruption"

# --- what cannot work ---
# told SENTENCE: the last error has it once
told() {
    [ "$(grep -c -- "$1" "$work/error")" -eq 1 ] || fail "not once: $1" "$work/error"
}
mpirun -n 3 "$ballast" compare --nonsense >/dev/null 2>"$work/error"
told "there is no option --nonsense"

mkdir "$work/here" "$work/there"
for ((i = 0; i < 60; i++)); do [ $i = 0 ] && echo x,y,z; echo "$i,$((i * i % 7)),$((i * i % 7 < 3))"; done >"$work/here/d.csv"
mpirun -n 1 --wdir "$work/here" "$ballast" compare d.csv --target z --trials 0 --arm dropout --store "$work/d.db" \
    : -n 1 --wdir "$work/there" "$ballast" compare d.csv >/dev/null 2>"$work/error"
told "ballast compare: rank 1 (.*): .*d.csv"

cp "$ballast" "$work/ballast"
mpirun -n 2 "$work/ballast" "${study[@]}" >/dev/null 2>"$work/error"
told "ballast compare: started by mpirun as one of 2 ranks, but this ballast has no MPI"
echo >>"$work/ballast"
LD_LIBRARY_PATH=$(dirname "$module") mpirun -n 1 "$ballast" "${study[@]}" --store "$work/b.db" \
    : -n 1 "$work/ballast" "${study[@]}" >/dev/null 2>"$work/error"
told "ballast compare: rank 1 (.*) runs another build of ballast than rank 0"

[ $failed -eq 0 ] && echo "the same bytes on every number of ranks"
[ $failed -eq 0 ]
