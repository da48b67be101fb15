#!/usr/bin/env bash
# A comparison prints the same bytes however it was run: with one worker or two, killed and started
# again at any moment, with workers killed under it, twice at once on one store.
# usage: resume.sh PROGRAM [SEED]
set -u
ballast=$1
seed=${2:-$(($(date +%s) % 32768))}
echo "moments by seed $seed"
RANDOM=$seed
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# start STORE NAME [FLAG]..: starts the study as process $pid; what it prints goes to NAME.out
start() {
    local store=$work/$1.db name=$2
    shift 2
    "$ballast" compare digits --epochs 12 --seeds 4 --trials 0 --arm elr --arm mixup+ema --arm null \
        --store "$store" --workers 2 "$@" >"$work/$name.out" 2>"$work/$name.error" &
    pid=$!
}

# The exit status of process $1, without the shell's word on how it ended.
ended() {
    { wait "$1"; } 2>/dev/null
}

finished() {
    ended $pid && cmp -s "$work/expected.out" "$work/$1.out" && return
    failed=$((failed + 1))
    echo "FAILED $2:"
    diff "$work/expected.out" "$work/$1.out"
    cat "$work/$1.error"
}

# Within half a second of the start, so that a study is met at any stage.
moment() {
    sleep "$(printf '0.%03d' $((20 + RANDOM % 480)))"
}

start one expected --workers 1
ended $pid && grep -q '^null ' "$work/expected.out" || { cat "$work/expected.error"; exit 1; }
start two two
finished two "two workers"
start two stored
finished stored "read from the store alone"
start two fresh --fresh
finished fresh "run afresh"

# --- the command is killed ---
kills=0
while [ $kills -lt 10 ]; do
    start killed killed
    moment
    if kill -9 $pid 2>/dev/null && ! ended $pid; then
        kills=$((kills + 1))
    else # it was done first: once more from nothing
        finished killed "after $kills kills"
        rm -f "$work"/killed.db*
    fi
done
start killed killed
finished killed "after ten kills"

# --- its workers are killed: each is replaced and its job done again ---
kills=0
start workers workers
while [ $kills -lt 10 ]; do
    moment
    children=($(cat /proc/$pid/task/$pid/children 2>/dev/null))
    if [ ${#children[@]} -gt 0 ]; then
        kill -9 "${children[RANDOM % ${#children[@]}]}" 2>/dev/null && kills=$((kills + 1))
    elif ! kill -0 $pid 2>/dev/null; then
        # A job that cost three workers has failed, and the next command tries it again.
        ended $pid && finished workers "after $kills dead workers" && rm -f "$work"/workers.db*
        start workers workers
    fi
done
ended $pid || start workers workers
finished workers "after ten dead workers"

# --- two commands at once on one store ---
start shared left
left=$pid
start shared right
finished right "two at once, the second"
pid=$left
finished left "two at once, the first"

[ $failed -eq 0 ] && echo "the same bytes every time"
[ $failed -eq 0 ]
