#!/usr/bin/env bash
# Kills a study over and over - the command and its workers with SIGKILL, at random moments, part of
# the time with two commands on one store - and compares what it prints at last with what an
# undisturbed run prints; then counts what the store holds.
#
#     tests/cli/kills.sh build/ballast [KILLS] [SEED]
set -u
ballast=$1
kills=${2:-${BALLAST_KILLS:-6}}
seed=${3:-$RANDOM}
work=$(mktemp -d)
trap 'pkill -KILL -f "$work" 2>/dev/null; rm -rf "$work"' EXIT
export LC_ALL=C
RANDOM=$seed
echo "seed $seed, $kills kills"

# A study of some seconds: tuned, screened, planned by pilots, with a row at equal cost.
study=(compare digits --label-noise 0.4 --epochs 12 --train 600 --trials 3 --seeds auto --min-effect 9
    --arm elr --arm sam --arm mixup --arm dropout --arm label_smoothing --arm early_stopping --workers 2)

"$ballast" "${study[@]}" --store "$work/whole.db" >"$work/expected" 2>/dev/null || exit 1
whole=$("$ballast" study list --json --store "$work/whole.db" | sed -n 's/.*"done": \([0-9]*\).*/\1/p')

command_killed=0 workers_killed=0 twice=0 finished=0 round=0
store="$work/killed-$round.db"
for ((kill = 1; kill <= kills; kill++)); do
    "$ballast" "${study[@]}" --store "$store" >"$work/out" 2>/dev/null &
    first=$!
    second=
    if ((RANDOM % 3 == 0)); then
        "$ballast" "${study[@]}" --store "$store" >"$work/out2" 2>/dev/null &
        second=$!
        twice=$((twice + 1))
    fi
    sleep "0.$((RANDOM % 900 + 100))"
    victim=$first
    if ((RANDOM % 2)); then
        victim=$(pgrep -P "$first" | sort -R --random-source=<(yes $RANDOM) | head -1)
        [ -n "$victim" ] && workers_killed=$((workers_killed + 1))
    fi
    [ -n "$victim" ] || victim=$first
    [ "$victim" = "$first" ] && command_killed=$((command_killed + 1))
    kill -KILL "$victim" 2>/dev/null
    [ "$victim" = "$first" ] || { sleep "0.$((RANDOM % 300))"; kill -KILL "$first" 2>/dev/null; }
    [ -n "$second" ] && kill -KILL "$second" 2>/dev/null
    wait 2>/dev/null
    # A study that got through in spite of all starts again in a new store, once compared.
    if [ -s "$work/out" ] && cmp -s "$work/out" "$work/expected"; then
        finished=$((finished + 1)) round=$((round + 1))
        store="$work/killed-$round.db"
    elif [ -s "$work/out" ]; then
        echo "FAILED kill $kill: other bytes"
        exit 1
    fi
done 2>/dev/null

"$ballast" "${study[@]}" --store "$store" >"$work/last" 2>"$work/error" || { cat "$work/error"; exit 1; }
cmp "$work/last" "$work/expected" || { echo "FAILED: other bytes at the end"; exit 1; }
held=$("$ballast" study list --json --store "$store" | sed -n 's/.*"done": \([0-9]*\).*/\1/p')
[ "$held" = "$whole" ] || { echo "FAILED: $held results, undisturbed $whole"; exit 1; }
lost=$("$ballast" study export 1 --store "$store" | tail -n +2 | grep -vc ',done,')
[ "$lost" = 0 ] || { echo "FAILED: $lost jobs are not done"; exit 1; }
repeated=$("$ballast" study export 1 --json --store "$store" | grep -E '^  "(arm|replicate)":' | paste - - |
    sort | uniq -d | wc -l)
[ "$repeated" = 0 ] || { echo "FAILED: $repeated jobs are there twice"; exit 1; }
echo "$kills kills: $command_killed of commands, $workers_killed of workers, $twice with two commands;" \
    "$finished studies got through between kills, the last was finished: $held results, none lost," \
    "none twice, the table byte for byte that of an undisturbed run"
