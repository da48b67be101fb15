#!/usr/bin/env bash
# Kills commands and their workers with SIGKILL at random moments, part of the time with two commands
# on one store, and compares what is there at last with an undisturbed run: nothing lost, nothing
# counted twice, the same bytes. Every kill is a line of the log: when, whom, and how far it was.
# usage: kills.sh PROGRAM [KILLS] [SEED]
set -u
ballast=$1
kills=${2:-${BALLAST_KILLS:-5}}
seed=${3:-$(($(date +%s) % 32768))}
work=$(mktemp -d)
export LC_ALL=C XDG_STATE_HOME="$work/state"
RANDOM=$seed
echo "seed $seed, $kills kills"

# A study of a second or two: tuned, screened, planned by pilots, with rows at equal cost.
study=(compare digits --label-noise 0.4 --epochs 12 --train 600 --trials 3 --seeds auto --min-effect 9
    --arm elr --arm sam --arm mixup --arm dropout --arm label_smoothing --arm early_stopping --workers 2)

commands=() # running ones: the process of each
declare -A output
trap 'for c in "${commands[@]}"; do kill -KILL "$c"; done; rm -rf "$work"' EXIT

exec 2>/dev/null # the shell's word on every process that was killed

fail() {
    echo "FAILED: $*"
    exit 1
}

# What a store holds, without what is measured: the same for the same work, whoever did it.
held() {
    "$ballast" study export 1 --json --store "$1" | sed '/"timing"/,/}/d; /"seconds/d'
}
done_jobs() {
    "$ballast" study list --json --store "$1" 2>/dev/null | sed -n 's/.*"done": \([0-9]*\).*/\1/p'
}
start() {
    started=$((started + 1))
    "$ballast" "${study[@]}" --store "$store" >"$work/out-$started" 2>"$work/error-$started" &
    commands+=($!)
    output[$!]=$started
}
# No worker outlives its command for long: its next line finds no reader, or the kernel ends it.
expect_gone() {
    local w tries
    for w in "$@"; do
        for ((tries = 0; tries < 100; tries++)); do
            grep -q '^State:.[^Z]' "/proc/$w/status" || continue 2
            sleep 0.02
        done
        fail "worker $w outlived its command"
    done
}
workers_of() {
    cat "/proc/$1/task/$1/children"
}

"$ballast" "${study[@]}" --store "$work/whole.db" >"$work/expected" 2>"$work/error" || fail "$(cat "$work/error")"
held "$work/whole.db" >"$work/expected.jobs"
whole=$(done_jobs "$work/whole.db")
[ -n "$whole" ] && [ "$whole" -gt 50 ] || fail "$whole jobs in an undisturbed run"
echo "undisturbed: $whole jobs"

# Forgets the commands that have ended. One that got through must have printed the bytes; then the
# store is compared and a new one begun.
started=0 finished=0 round=0
store="$work/store-0.db"
reap() {
    local left=() over=0 c
    for c in "${commands[@]}"; do
        if kill -0 "$c"; then
            left+=("$c")
            continue
        fi
        wait "$c"
        case $? in
        0)
            cmp -s "$work/out-${output[$c]}" "$work/expected" || fail "other bytes: $work/out-${output[$c]}"
            over=1 finished=$((finished + 1))
            ;;
        1 | 137) ;; # runs failed that had cost three workers; it was killed
        *) fail "a command ended by itself: $(cat "$work/error-${output[$c]}")" ;;
        esac
    done
    commands=("${left[@]}")
    [ $over = 1 ] || return
    for c in "${commands[@]}"; do # the other of two finishes too
        wait "$c"
        cmp -s "$work/out-${output[$c]}" "$work/expected" || fail "other bytes of the second command"
        finished=$((finished + 1))
    done
    commands=()
    held "$store" | cmp -s - "$work/expected.jobs" || fail "the store holds something else"
    round=$((round + 1))
    store="$work/store-$round.db"
}

command_kills=0 worker_kills=0 with_two=0
for ((kill = 1; kill <= kills;)); do
    reap
    if [ ${#commands[@]} = 0 ]; then
        start
        ((RANDOM % 3 == 0)) && start
    fi
    sleep "$(printf '0.%03d' $((20 + RANDOM % 400)))"
    victims=("${commands[@]}") kinds=()
    for c in "${commands[@]}"; do
        kinds+=(command)
        for w in $(workers_of "$c"); do
            victims+=("$w")
        done
    done
    i=$((RANDOM % ${#victims[@]}))
    kind=worker
    [ $i -lt ${#commands[@]} ] && kind=command
    theirs=$(workers_of "${victims[i]}")
    kill -KILL "${victims[i]}" || continue # it was done first
    expect_gone $theirs
    echo "kill $kill: a $kind of ${#commands[@]} running, round $round, $(done_jobs "$store") jobs done"
    kill=$((kill + 1))
    [ $kind = command ] && command_kills=$((command_kills + 1)) || worker_kills=$((worker_kills + 1))
    [ ${#commands[@]} = 2 ] && with_two=$((with_two + 1))
done

for c in "${commands[@]}"; do
    kill -KILL "$c"
    wait "$c"
done
commands=()
for try in 1 2; do # jobs that had cost three workers are tried again
    "$ballast" "${study[@]}" --store "$store" >"$work/last" 2>"$work/error" && break
    [ $? = 1 ] && [ $try = 1 ] || fail "$(cat "$work/error")"
done
cmp "$work/last" "$work/expected" || fail "other bytes at the end"
held "$store" | cmp - "$work/expected.jobs" || fail "the store holds something else at the end"
"$ballast" study show 1 --store "$store" | cmp - "$work/expected" || fail "study show"
echo "$kills kills: $command_kills of commands, $worker_kills of workers, $with_two while two commands ran;" \
    "$finished commands got through in between, $((round + 1)) studies were finished, each with $whole" \
    "jobs: none lost, none counted twice, tables and stored results byte for byte those of an undisturbed run"
