#!/usr/bin/env bash
# Several data sets in one command: a table each, one over them, and a refusal where they are few.
# usage: several.sh PROGRAM
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

# Even tables hold classes, odd ones numbers.
for ((i = 0; i < 7; i++)); do
    awk -v seed=$i 'BEGIN { srand(seed + 1); print "a,b,y"
        for (i = 0; i < 150; i++) { a = rand() - 0.5; b = rand() - 0.5; y = 3 * a + b + rand() - 0.5
            print a "," b "," (seed % 2 ? y : y > 0 ? "yes" : "no") } }' >set$i.csv
done
flags=(--target y --epochs 20 --seeds 4 --trials 2 --store store.db)

# Under that much noise there is nothing left to learn.
"$ballast" compare set?.csv "${flags[@]}" --arm 'input_noise(std=30)' --arm null >table 2>error ||
    fail "status $?: $(cat error)"
[ "$(grep -c '^set[0-6].csv$' table)" -eq 7 ] && [ "$(grep -c '^baseline ' table)" -eq 7 ] ||
    fail "not a table for each: $(cat table)"
grep -q '^over 7 data sets$' table || fail "no table over them: $(cat table)"
sed -n '/^over 7/,$p' table >over
grep -A 1 '^input_noise(std=30) .* 0 of 7 .*-.*0\.031$' over | grep -q '= hurts' ||
    fail "noise does not hurt: $(cat over)"
grep -A 1 '^null ' over | grep -q '= undecided' || fail "null: $(cat over)"
awk 'length > n { n = length } END { exit n > 90 }' over || fail "the table is too wide"
"$ballast" compare set?.csv "${flags[@]}" --arm 'input_noise(std=30)' --arm null --workers 1 \
    --store other.db >again 2>error
cmp -s table again || fail "one worker prints something else"

"$ballast" compare set[0-4].csv "${flags[@]}" --arm null >few 2>error || fail "status $?"
grep -q 'signed-rank over 5 data sets cannot give a p below 0.0625' few || fail "few: $(cat few)"
tr '\n' ' ' <few | grep -q 'compare at least 6' || fail "few: $(cat few)"

"$ballast" compare set[0-6].csv "${flags[@]}" --arm null --json >json 2>error || fail "status $?"
for key in studies across gain gain_interval p_adjusted; do
    grep -q "\"$key\": " json || fail "JSON lacks $key"
done
[ "$(grep -c '"data_hash": ' json)" -eq 7 ] || fail "JSON: not seven studies"

# --- other forms, all from one command's results ---
both=(compare set0.csv set1.csv "${flags[@]}" --arm null)
"$ballast" "${both[@]}" --html page.html --save-preset chosen --name both >out 2>error || fail "--html: $(cat error)"
grep -q '<article id=.data-2.>' page.html && grep -q 'over 2 data sets</h1>' page.html || fail "the page"
[ -z "$(grep -oE " id=['\"][^'\"]*" page.html | sort | uniq -d)" ] || fail "ids are there twice"
"$ballast" study show both --store store.db | cmp -s - out || fail "study show of several"
"$ballast" study show 2 --store store.db | cmp -s - out || fail "study show of one of several"
"$ballast" study export both --store store.db >export 2>error
[ $? -eq 2 ] && grep -q 'of 2 data sets' error || fail "export of several: $(cat error)"
"$ballast" "${both[@]}" --name both --seeds 5 >out 2>error
[ $? -eq 2 ] && grep -q 'seeds was "4", now "5"' error || fail "another configuration: $(cat error)"
"$ballast" compare set1.csv "${flags[@]}" --arm null --name both >out 2>error
[ $? -eq 2 ] && grep -q 'data_sets was 2, now 1' error || fail "one of both under the name: $(cat error)"

"$ballast" "${both[@]}" --csv >table.csv 2>error || fail "--csv: $(cat error)"
sed 's/"[^"]*"//g' table.csv | awk -F, 'NF != 25 { exit 1 }' || fail "cells: $(cat table.csv)"
grep -q '^set1.csv,mae,null,arm,' table.csv && grep -q '^,gain in percent,null,over data sets,' table.csv ||
    fail "lines: $(cat table.csv)"
"$ballast" "${both[@]}" --latex >table.tex 2>error || fail "--latex: $(cat error)"
[ "$(grep -c 'end{table}' table.tex)" -eq 3 ] || fail "LaTeX: not three tables"

# --- a preset of several serves each of its data sets, and no other ---
preset=(--target y --epochs 20 --seeds 4 --preset chosen --store store.db)
"$ballast" compare set0.csv set1.csv "${preset[@]}" --arm null >again 2>error || fail "--preset: $(cat error)"
[ "$(grep -c '^baseline ' again)" -eq 2 ] || fail "--preset: $(cat again)"
"$ballast" compare set2.csv "${preset[@]}" --arm null >out 2>error
[ $? -eq 2 ] && grep -q 'none has the hash of these data' error || fail "--preset of others: $(cat error)"
"$ballast" compare set0.csv nowhere.csv "${flags[@]}" --arm null >out 2>error
[ $? -eq 2 ] && [ ! -s out ] && grep -q nowhere error || fail "a missing file: $(cat error)"

[ $failed -eq 0 ]
