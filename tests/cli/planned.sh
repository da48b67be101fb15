#!/usr/bin/env bash
# A study with every stage: seven arms are screened to five, pilots plan the replicates, a dear arm
# meets a baseline of its cost. The same bytes with any number of workers and after kills.
# usage: planned.sh PROGRAM
set -u
ballast=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LC_ALL=C
failed=0

fail() {
    failed=$((failed + 1))
    echo "FAILED $*"
}

study=(digits --trials 0 --epochs 3 --train 200 --seeds auto --min-effect 8 --arm elr --arm mixup --arm null
    --arm label_smoothing --arm dropout --arm sam --arm 'ema(decay=0.9)')

# compare STORE NAME FLAG..: standard output goes to NAME
compare() {
    local store=$work/$1.db name=$work/$2
    shift 2
    "$ballast" compare "${study[@]}" --store "$store" "$@" >"$name" 2>"$name.error" ||
        fail "$*: status $?, $(cat "$name.error")"
}

same() {
    cmp -s "$work/$1" "$work/$2" || fail "$3: $(diff "$work/$1" "$work/$2")"
}

# shows NAME PATTERN: NAME, its lines joined, matches the extended regular expression
shows() {
    tr '\n' ' ' <"$work/$1" | tr -s ' ' | grep -qE -- "$2" || fail "$1 lacks /$2/: $(cat "$work/$1")"
}

compare one expected --workers 1
[ "$(grep -c 'screened out in round 1 of 1' "$work/expected")" -eq 2 ] || fail "not two arms are screened out"
[ "$(grep -c '^  = ' "$work/expected")" -ge 5 ] || fail "fewer than five verdicts"
shows expected '5 pilots of each arm, since dropped'
shows expected 'Holm over 7 arms at 0.05, the screened ones among them'
awk 'length > n { n = length } END { exit n > 90 }' "$work/expected" || fail "the table is too wide"
compare two two --workers 2
same expected two "two workers"

# --- killed at any stage ---
kills=0
for ((i = 0; i < 10; i++)); do
    "$ballast" compare "${study[@]}" --store "$work/killed.db" --workers 2 >"$work/killed" 2>"$work/killed.error" &
    pid=$!
    sleep "0.$((RANDOM % 3))$((RANDOM % 10))"
    kill -9 $pid 2>/dev/null && kills=$((kills + 1))
    { wait $pid; } 2>/dev/null
done
[ $kills -gt 0 ] || fail "nothing was killed"
compare killed killed
same expected killed "after $kills kills"
compare killed again
grep -qE 'runs?, .* a second' "$work/again.error" && fail "stored runs are run again: $(cat "$work/again.error")"

# --- one split: its test part is new to the five, so the others do not count ---
compare fixed fixed --fixed-split --no-equal-cost
shows fixed 'Holm over 5 arms at 0.05;'
grep -q 'at equal cost' "$work/fixed" && fail "--no-equal-cost has rows at equal cost"

# --- as JSON ---
compare one json --json
for key in planned needed most capped family deviation detectable round difference epochs; do
    grep -q "\"$key\": " "$work/json" || fail "JSON lacks $key"
done

[ "$failed" -eq 0 ]
