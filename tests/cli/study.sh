#!/usr/bin/env bash
# ballast study: what was compared can be listed, shown byte for byte, exported and forgotten; a
# name stands for one configuration. And compare's CSV and LaTeX.
set -u
ballast=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_STATE_HOME="$work/state" LC_ALL=C
failed=0

fail() {
    failed=$((failed + 1))
    echo "FAILED $*"
}

# expect DESCRIPTION PATTERN COMMAND..: status 0 and a line that matches
expect() {
    local what=$1 pattern=$2
    shift 2
    "$@" >"$work/out" 2>"$work/error" || fail "$what: status $?, $(cat "$work/error")"
    grep -qE -- "$pattern" "$work/out" || fail "$what: no /$pattern/ in $(cat "$work/out")"
}

# refuse DESCRIPTION PATTERN COMMAND..: status 2 and a sentence that matches
refuse() {
    local what=$1 pattern=$2
    shift 2
    "$@" >"$work/out" 2>"$work/error" </dev/null
    [ $? -eq 2 ] || fail "$what: not refused"
    grep -qE -- "$pattern" "$work/error" || fail "$what: no /$pattern/ in $(cat "$work/error")"
}

study="$ballast study"
compare="$ballast compare digits --trials 2 --epochs 2 --seeds 3 --arm elr(beta=0.7) --arm sam"

expect "an empty store" 'no studies yet' $study list
$compare --name digits >"$work/table" 2>/dev/null || fail "compare"
expect "list" '^ +1  20.*digits: digits: [0-9]+ runs; ballast [0-9.]+$' $study list
expect "list of verdicts" '^ +elr(\(beta=0.7\))?: [a-z]+, sam: [a-z]+$' $study list
expect "list as JSON" '"this_build": true' $study list --json
expect "the beginning of a name" '^baseline ' $study show dig
expect "list of commands" 'ballast compare digits' $study list
$study show digits >"$work/shown" || fail "show"
cmp -s "$work/table" "$work/shown" || fail "show differs from what compare printed"
expect "show as JSON" '"verdict_text"' $study show 1 --json
$compare --name digits --json >"$work/json" 2>/dev/null || fail "compare --json"
$study show digits --json | cmp -s - "$work/json" || fail "show --json differs from compare --json"
$study show digits -o "$work/shown" && cmp -s "$work/table" "$work/shown" || fail "show -o"
expect "export as CSV" '^baseline,0,done,' $study export digits
expect "export of trials" '^tuning ' $study export digits
expect "export as JSON" '"state": "done"' $study export digits --json
$study export digits -o "$work/runs.csv" || fail "export to a file"
runs=$($study list --json | sed -n 's/.*"done": \([0-9]*\).*/\1/p')
[ "$(tail -n +2 "$work/runs.csv" | wc -l)" = "$runs" ] || fail "$runs runs, but not as many lines"

# --- what tuning chose ---
expect "the preset of a study" '"setting": "elr' $study preset digits
expect "trials of a preset" '"trials": 2' $study preset 1
$study preset digits -o "$work/preset.json" || fail "preset to a file"
$ballast compare digits --trials 0 --epochs 1 --seeds 2 --arm null --store "$work/untuned.db" >/dev/null 2>&1
refuse "a study without choices" 'nothing was tuned' $study preset 1 --store "$work/untuned.db"
${compare/--trials 2/} --preset "$work/preset.json" --store "$work/preset.db" >"$work/by-preset" 2>/dev/null || fail "by preset"
for arm in baseline elr sam; do
    [ "$(grep "^$arm " "$work/table" | head -1)" = "$(grep "^$arm " "$work/by-preset" | head -1)" ] ||
        fail "another row of $arm by the stored preset: $(cat "$work/by-preset")"
done

# --- one name, one configuration ---
refuse "another plan under the name" 'learning_rate was not given, now 0\.3\.' $compare --name digits --learning-rate 0.3
refuse "another arm under the name" 'arms: newly "mixup"\. Take another' $compare --name digits --arm mixup
refuse "fewer arms under the name" 'arms: no longer "sam"' ${compare% --arm sam} --name digits
refuse "other replicates under the name" 'seeds was "3", now "4"' $compare --name digits --seeds 4
refuse "other trials under the name" 'trials was 2, now 3' $compare --name digits --trials 3
refuse "another flag under the name" 'label_noise was not given, now "0\.2"' $compare --name digits --label-noise 0.2
cp "$(realpath "$ballast")" "$work/other" && printf x >>"$work/other" # the same program, another build
refuse "another build under the name" "the program's hash was" "$work/other" ${compare#* } --name digits
expect "a study of another build" '; ballast [0-9.]+, another build$' "$work/other" study list
"$work/other" study show digits | cmp -s - "$work/table" || fail "another build shows something else"
refuse "a number as a name" 'cannot name a study' $compare --name 12
$compare --name digits >"$work/again" 2>/dev/null || fail "the same under its name"
cmp -s "$work/table" "$work/again" || fail "the same command printed other bytes"
$compare --name digits --learning-rate 0.3 --fresh >/dev/null 2>&1 || fail "--fresh takes the name"
refuse "the study that lost its name" 'no study "wine"' $study show wine

{ echo x,y; for i in $(seq 40); do echo "$i,$((i * i % 7)).5"; done; } >"$work/table_1.csv"
small="$ballast compare $work/table_1.csv --target y --trials 0 --epochs 2 --seeds 2 --arm null"
$small --name small >/dev/null 2>"$work/error" || fail "a small table: $(cat "$work/error")"
echo 41,3.5 >>"$work/table_1.csv"
refuse "other data under the name" 'the hash of the data was "[0-9a-f]{16}", now "[0-9a-f]{16}"\. Take' $small --name small
refuse "a beginning of two names" '"" may be|no study ""' $study show ""

# --- CSV and LaTeX ---
$compare --csv >"$work/table.csv" 2>/dev/null || fail "compare --csv"
[ "$(head -1 "$work/table.csv" | tr -cd , | wc -c)" = 22 ] || fail "the head of the CSV"
sed 's/"[^"]*"//g' "$work/table.csv" | awk -F, 'NF != 23 { exit 1 }' || fail "cells: $(cat "$work/table.csv")"
grep -q '^sam,equal cost,' "$work/table.csv" || fail "no row at equal cost"
$compare --latex >"$work/table.tex" 2>/dev/null || fail "compare --latex"
grep -q 'toprule' "$work/table.tex" && grep -q 'end{table}' "$work/table.tex" || fail "LaTeX"
grep -v multicolumn "$work/table.tex" | awk -F'&' '/\\\\$/ && NF != 8 { exit 1 }' || fail "LaTeX cells"
refuse "two forms" 'exclude each other' $compare --csv --latex

# --- forgetting ---
refuse "rm without a terminal" 'say --yes' $study rm 1
refuse "rm of nothing" 'there is no study' $study rm 99 --yes
$study rm 1 --yes 2>/dev/null || fail "rm"
refuse "what was forgotten" 'there is no study' $study show 1
refuse "no verb" 'but list, show, export, preset and rm' $study frobnicate
refuse "show without a study" 'needs the number or name' $study show
refuse "a store that is not there" 'no such file' $study list --store "$work/nowhere.db"

[ "$failed" -eq 0 ]
