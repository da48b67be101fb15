#!/usr/bin/env bash
# ballast calibrate: the table, its exit status, and the same bytes twice.
# usage: calibrate.sh PROGRAM
set -u
ballast=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

fail() {
    failed=$((failed + 1))
    echo "FAILED $*"
}

small=(--studies 25 --seeds 5 --trials 2 --train 60 --epochs 2 --width 8)
"$ballast" calibrate "${small[@]}" >table 2>error || fail "status $?: $(cat table error)"
for design in 'fixed test set, untuned' 'fixed test set, 2 trials' 're-splits, untuned' \
    're-splits, 2 trials'; do
    grep -qE "^$design +[0-9]+ of 25 +[0-9.]+ % +[0-9]+ to [0-9]+" table || fail "no row: $design"
    grep -qE "^$design: [0-9]+ runs in [0-9.]+ s, [0-9]+ a second$" error || fail "no speed: $design"
done
[ "$(grep -c 'found of a planted difference' table)" -eq 4 ] || fail "no power: $(cat table)"
awk 'length > n { n = length } END { exit n > 80 }' table || fail "the table is too wide"
"$ballast" calibrate digits "${small[@]}" 2>error | cmp -s table - || fail "another table"

awk 'BEGIN { srand(1); print "a,y"; for (i = 0; i < 90; i++) { a = rand(); print a "," (a + rand() > 1 ? "p" : "n") } }' >data.csv
"$ballast" calibrate data.csv --target y --test data.csv "${small[@]}" >table 2>error || fail "status $?"
grep -q '^re-splits' table && fail "re-splits of data with a test set of their own"
[ "$(grep -c '^fixed' table)" -eq 2 ] || fail "$(cat table)"
"$ballast" calibrate nowhere.csv --target y >table 2>error
[ $? -eq 2 ] && [ ! -s table ] && grep -q nowhere error || fail "a missing file: $(cat error)"

[ $failed -eq 0 ]
