#!/usr/bin/env bash
# Tuning from the command line: shown and saved, the same bytes with any number of workers and after
# kills, a preset that gives the same table, and "untuned" beside every arm without it.
# usage: tune.sh PROGRAM
set -u
ballast=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

fail() {
    failed=$((failed + 1))
    echo "FAILED $*"
}

study=(digits --label-noise 0.4 --epochs 4 --seeds 3 --arm elr --arm "mixup(alpha=0.2)+ema" --arm null)

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

compare one expected --workers 1 --trials 5 --save-preset "$work/preset.json" --html "$work/page.html"
[ "$(grep -c '^    tuned, trial [1-5] of 5 is best' "$work/expected")" -eq 4 ] ||
    fail "not every arm is tuned: $(cat "$work/expected")"
grep -q untuned "$work/expected" && fail "a tuned arm is called untuned"
grep -q 'learning_rate=[0-9.e-]*,weight_decay=[0-9.e-]*' "$work/expected" || fail "no setting shown"
[ "$(grep -c '"setting": ' "$work/preset.json")" -eq 4 ] || fail "preset: $(cat "$work/preset.json")"
# What the user gave stays; alpha=1 would be left out as the default.
grep -q '"setting": "mixup(alpha=[0-9.]*)+ema(\|"setting": "mixup+ema' "$work/preset.json" ||
    fail "preset: $(cat "$work/preset.json")"
grep -q 'best of 4' "$work/page.html" && grep -q 'best of 5' "$work/page.html" ||
    fail "no best-of-k in the report"
awk 'length > n { n = length } END { exit n > 90 }' "$work/expected" || fail "the table is too wide"

compare two two --workers 2 --trials 5
same expected two "two workers"
compare two again --trials 5
same expected again "from the store"
grep -q 'trial runs' "$work/again.error" && fail "stored trials are run again"

# --- killed in the trials and after ---
kills=0
for ((i = 0; i < 12; i++)); do
    "$ballast" compare "${study[@]}" --store "$work/killed.db" --workers 2 --trials 5 \
        >"$work/killed" 2>"$work/killed.error" &
    pid=$!
    sleep "0.$((RANDOM % 4))$((RANDOM % 10))"
    kill -9 $pid 2>/dev/null && kills=$((kills + 1))
    { wait $pid; } 2>/dev/null
done
[ $kills -gt 0 ] || fail "nothing was killed"
compare killed killed --trials 5
same expected killed "after $kills kills"

# --- presets ---
compare three preset --preset "$work/preset.json"
grep -E '^(baseline|elr|null|mixup)' "$work/expected" >"$work/numbers"
grep -E '^(baseline|elr|null|mixup)' "$work/preset" >"$work/preset-numbers"
same numbers preset-numbers "a preset gives other numbers"
[ "$(grep -c '^    by preset: ' "$work/preset")" -eq 4 ] || fail "preset: $(cat "$work/preset")"

# --- untuned ---
compare three untuned --trials 0
[ "$(grep -c '^    untuned\|^  = .*; untuned' "$work/untuned")" -eq 4 ] ||
    fail "untuned arms do not say so: $(cat "$work/untuned")"

# --- JSON ---
compare two json --trials 5 --json
grep -q '"tuned": true' "$work/json" && [ "$(grep -c '"tuning": ' "$work/json")" -eq 4 ] ||
    fail "JSON without tuning"

# --- wrong use ---
refused() {
    local words=$1
    shift
    "$ballast" compare "${study[@]}" --store "$work/bad.db" "$@" >"$work/out" 2>"$work/error"
    [ $? -eq 2 ] && [ ! -s "$work/out" ] && grep -q -- "$words" "$work/error" ||
        fail "$*: $(cat "$work/error")"
}
refused 'exclude each other' --trials 3 --preset "$work/preset.json"
refused 'nothing to save' --trials 0 --save-preset "$work/x.json"
refused 'no setting for the arm dropout' --arm dropout --preset "$work/preset.json"
refused 'preset' --preset "$work/page.html"
refused 'nowhere' --preset "$work/nowhere.json"
refused 'trials' --trials -1

[ $failed -eq 0 ]
