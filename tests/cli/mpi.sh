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
study=(compare digits --epochs 15 --seeds 3 --trials 1 --arm elr --arm mixup+ema)
: >"$work/failures"

# What went wrong in a scenario, with the files that tell: they run side by side, so it is said at
# the end.
fail() {
    echo "FAILED $1:"
    shift
    cat "$@"
} >>"$work/failures"

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
    for ((i = 0; i < 300; i++)); do
        rank=($(pgrep -P $pid))
        with=0
        for r in "${rank[@]}"; do pgrep -P "$r" >/dev/null && with=$((with + 1)); done
        [ $with -eq "$1" ] && echo "${rank[@]}" && return
        sleep 0.02
    done
}

# ended PID..: within two seconds all have ended; what no one waits for may stay a zombie
ended() {
    local process i alive
    for ((i = 0; i < 100; i++)); do
        alive=0
        for process in "$@"; do grep -q '^State:[[:space:]]*[^Z[:space:]]' "/proc/$process/status" && alive=1; done
        [ $alive -eq 0 ] && return
        sleep 0.02
    done 2>/dev/null
    return 1
}

# told NAME SENTENCE: the error of a command has it once
told() {
    [ "$(grep -c -- "$2" "$work/$1.error")" -eq 1 ] || fail "not once: $2" "$work/$1.error"
}

# --- scenarios ---
undisturbed() {
    start 2 two && same two "two ranks"
    start 4 four && [ -n "$(ranks 4)" ] || fail "four ranks do not all have a worker" /dev/null
    same four "four ranks"
}

# A worker dies: its rank starts another, and its job is done again.
worker_dies() {
    start 2 worker
    for kill in 1 2; do
        for rank in $(ranks 2); do pkill -KILL -P "$rank"; done
    done
    same worker "with workers killed"
}

# A rank dies, the first or another: mpirun ends all, and the same command goes on.
rank_dies() {
    start 2 "rank$1"
    local rank=($(ranks 2))
    kill -KILL "${rank[$1]}"
    { wait $pid; } 2>/dev/null && fail "rank $1 was killed in vain" "$work/rank$1.error"
    ended "${rank[@]}" || fail "rank $1 was killed, another lives" "$work/rank$1.error"
    start 2 "rank$1" && same "rank$1" "after rank $1 was killed"
}

interrupted() {
    start 2 interrupted
    local rank=($(ranks 2))
    kill -INT $pid
    { wait $pid; } 2>/dev/null && fail "interrupted in vain" "$work/interrupted.error"
    start 3 interrupted && same interrupted "after an interruption"
}

wrong_option() {
    mpirun -n 3 "$ballast" compare --nonsense >/dev/null 2>"$work/option.error"
    told option "there is no option --nonsense"
}

data_on_one_machine_only() {
    mkdir "$work/here" "$work/there"
    for ((i = 0; i < 60; i++)); do [ $i = 0 ] && echo x,y,z; echo "$i,$((i * i % 7)),$((i * i % 7 < 3))"; done >"$work/here/d.csv"
    mpirun -n 1 --wdir "$work/here" "$ballast" compare d.csv --target z --trials 0 --arm dropout --store "$work/d.db" \
        : -n 1 --wdir "$work/there" "$ballast" compare d.csv >/dev/null 2>"$work/data.error"
    told data "ballast compare: rank 1 (.*): .*d.csv"
}

no_module() {
    mkdir "$work/lonely"
    cp "$ballast" "$work/lonely/ballast"
    mpirun -n 2 "$work/lonely/ballast" "${study[@]}" >/dev/null 2>"$work/lonely.error"
    told lonely "ballast compare: started by mpirun as one of 2 ranks, but this ballast has no MPI"
}

two_builds() {
    cp "$ballast" "$work/other" && echo >>"$work/other"
    LD_LIBRARY_PATH=$(dirname "$module") mpirun -n 1 "$ballast" "${study[@]}" --store "$work/b.db" \
        : -n 1 "$work/other" "${study[@]}" >/dev/null 2>"$work/builds.error"
    told builds "ballast compare: rank 1 (.*) runs another build of ballast than rank 0"
}

"$ballast" "${study[@]}" --store "$work/one.db" --workers 2 >"$work/expected" 2>"$work/error" ||
    { cat "$work/error"; exit 1; }
undisturbed # alone: that all ranks get work depends on their all being there in time
wrong_option &
data_on_one_machine_only &
no_module &
two_builds & # most of their time is mpirun's patience
worker_dies &
rank_dies 0 &
rank_dies 1 &
interrupted &
wait

[ ! -s "$work/failures" ] && echo "the same bytes on every number of ranks" && exit
cat "$work/failures"
exit 1
