#!/usr/bin/env bash
# A worker that is stopped in the middle of a run is ended once --patience is over, another does the
# run, and what is printed is the same. Runs that silence their workers three times have failed.
# usage: hung.sh PROGRAM
set -u
ballast=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# start NAME [FLAG]..: the study as process $pid; what it prints goes to NAME.out
start() {
    local name=$1
    shift
    "$ballast" compare digits --epochs 60 --seeds 2 --trials 0 --arm elr --store "$work/$name.db" "$@" \
        >"$work/$name.out" 2>"$work/$name.error" &
    pid=$!
}

fail() {
    failed=$((failed + 1))
    echo "FAILED $1:"
    cat "$work/$2.out" "$work/$2.error"
}

# A worker of process $pid, once one has begun to train: it has computed for 50 ms.
worker() {
    local child i ticks
    for ((i = 0; i < 500; i++)); do
        for child in $(cat "/proc/$pid/task/$pid/children"); do
            ticks=$(cut -d ' ' -f 14 <"/proc/$child/stat")
            [ "${ticks:-0}" -gt 5 ] && echo "$child" && return
        done
        kill -0 "$pid" || return
        sleep 0.02
    done 2>/dev/null
}

start expected
wait $pid || fail "undisturbed" expected

start stopped --patience 2
hung=$(worker)
kill -STOP "${hung:-none}" || fail "no worker to stop" stopped
SECONDS=0
wait $pid
cmp -s "$work/expected.out" "$work/stopped.out" || fail "with a stopped worker" stopped
[ $SECONDS -ge 2 ] || fail "the stopped worker was not waited for" stopped
kill -0 "${hung:-none}" 2>/dev/null && fail "the stopped worker lives" stopped

# --- every worker is stopped, whenever it comes ---
start failing --patience 0.3
for ((i = 0; i < 1500; i++)); do # not before it is a worker: its parent waits until then
    kill -0 $pid || break
    for child in $(cat "/proc/$pid/task/$pid/children"); do
        tr '\0' ' ' <"/proc/$child/cmdline" | grep -q ' worker $' && kill -STOP "$child"
    done
    sleep 0.02
done 2>/dev/null
kill -KILL $pid 2>/dev/null
wait $pid
status=$?
[ $status -eq 2 ] && grep -q 'baseline failed: the worker gave no sign of life for 0.3 s' "$work/failing.error" ||
    fail "runs that hang three times: status $status" failing

[ $failed -eq 0 ] && echo "a stopped worker is replaced"
[ $failed -eq 0 ]
