#!/usr/bin/env bash
# What ballast compare prints: the table, its width, JSON, help and exit statuses.
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

# compare NAME ARGUMENT..: standard output goes to NAME, standard error to NAME.error
compare() {
    local name=$work/$1
    shift
    "$ballast" compare --trials 0 "$@" >"$name" 2>"$name.error" || fail "$*: status $?, $(cat "$name.error")"
}

# Characters, not bytes: those that begin a UTF-8 sequence.
narrow() {
    local widest
    widest=$(tr -d '\200-\277' <"$work/$1" | awk 'length > n { n = length } END { print n + 0 }')
    [ "$widest" -le 80 ] || fail "$1 is $widest columns wide"
}

# shows NAME PATTERN: a line of NAME matches the extended regular expression
shows() {
    grep -qE -- "$2" "$work/$1" || fail "$1 lacks /$2/: $(cat "$work/$1")"
}

number='[-+]?[0-9]+(\.[0-9]+)?'
interval="$number \\[$number,$number\\]"

# --- the table ---
compare table digits --epochs 2 --seeds 4 --arm null --arm 'dropout(p=0.25)' --arm "elr(beta=0.5)+ema"
narrow table
shows table '^arm +accuracy ±95 % +difference +p +better +cost$'
shows table "^baseline +$number ±$number\$"
shows table "^null +$number ±$number +$interval +[01]\\.[0-9]{3} +[0-9]+ % +1\\.00\$"
shows table '^  = (helps|hurts|equivalent|undecided \(.*\))(; .*)?$'
shows table 'the baseline with other seeds'
shows table '^Of new splits of this data \(1438 train, 359 test\)'
shows table '4 paired replicates, seed 1'
shows table.error '^digits: 1797 images'
shows table.error '^measured seconds: baseline'
[ "$(grep -c '^  = ' "$work/table")" -eq 3 ] || fail "not one verdict for each of three arms"
grep -q "$(printf '\033')" "$work/table" && fail "colours in a file"
compare again digits --epochs 2 --seeds 4 --arm null --arm 'dropout(p=0.25)' --arm "elr(beta=0.5)+ema"
cmp -s "$work/table" "$work/again" || fail "a second call prints something else"

compare defaults digits --epochs 1 --seeds 2
narrow defaults
[ "$(grep -c '^  = ' "$work/defaults")" -ge 4 ] || fail "few default arms: $(cat "$work/defaults")"

# --- suspect labels ---
compare doubts digits --epochs 6 --seeds 2 --label-noise 0.3 --arm elr --suspects "$work/suspects.csv" \
    --html "$work/report.html"
head -1 "$work/suspects.csv" | grep -qx 'arm,row,source,given,believed,doubt,runs,true' ||
    fail "suspects: $(head -1 "$work/suspects.csv")"
grep -qE '^elr,[0-9]+,[^,]*,[0-9],[0-9],[01]\.[0-9]{4},[12],[0-9]$' "$work/suspects.csv" ||
    fail "no suspects: $(head -3 "$work/suspects.csv")"
grep -q '<h2>Suspect labels</h2>' "$work/report.html" || fail "the report has no suspects"
"$ballast" compare digits --trials 0 --arm dropout --suspects "$work/none.csv" 2>"$work/none.error" &&
    fail "suspects of dropout"
grep -q 'none of the arms keeps beliefs about labels' "$work/none.error" || fail "$(cat "$work/none.error")"

# --- arms with long names, without effect, with too high a rate ---
compare odd digits --epochs 1 --seeds 2 \
    --arm 'mixup(alpha=0.2)+ema(decay=0.99,warmup=true)+dropout(p=0.25)+stochastic_depth(p=0.25)' \
    --model resnet20 --width 2 --train 64
narrow odd
# Arms that do nothing are errors in every form, and of the command; the others have their verdict.
idle=(digits --trials 0 --epochs 2 --seeds 3 --arm 'dropout(p=0)' --arm 'label_smoothing(eps=0)' --arm mixup)
"$ballast" compare "${idle[@]}" >"$work/idle" 2>"$work/error"
[ $? -eq 1 ] || fail "arms that did nothing do not give status 1"
narrow idle
[ "$(grep -c 'ERROR: this arm did nothing in any of its 3 runs' "$work/idle")" -eq 2 ] ||
    fail "not two errors: $(cat "$work/idle")"
[ "$(grep -c '^  = no verdict' "$work/idle")" -eq 2 ] || fail "verdicts on nothing: $(cat "$work/idle")"
shows idle 'Holm over 1 arm '
shows error '^ballast compare: dropout\(p=0\) did nothing in any of its runs$'
"$ballast" compare "${idle[@]}" --json --html "$work/idle.html" >"$work/idle.json" 2>"$work/error"
[ $? -eq 1 ] || fail "arms that did nothing do not give status 1 with --json"
[ "$(grep -c '"error": "this arm did nothing' "$work/idle.json")" -eq 2 ] || fail "no errors in JSON"
[ "$(grep -c '"inert": true' "$work/idle.json")" -eq 8 ] || fail "inert in JSON"
shows idle.html 'dropout\(p=0\)</code> did nothing'
compare diverged digits --epochs 2 --seeds 3 --learning-rate 10000 --arm elr
narrow diverged
shows diverged '^baseline +diverged$'
shows diverged '3 of 3 runs diverged'
grep -qi 'nan' "$work/diverged" && fail "a number that is none: $(cat "$work/diverged")"

# --- numbers of any size, an effect that matters ---
for size in 1e-12 1 1e12; do
    awk -v size=$size 'BEGIN { srand(3); print "a,b,y"
        for (i = 0; i < 120; i++) { a = rand(); b = rand(); print a "," b "," size * (a + b * b + rand() / 9) } }' \
        >"$work/size$size.csv"
    compare "size$size" "$work/size$size.csv" --target y --epochs 5 --seeds 3 --arm conr --arm null
    narrow "size$size"
    shows "size$size" "^null +$number ±$number +$interval"
done
shows size1e12 '^arm +mae/1e9|^arm +mae/1e12'
compare effect "$work/size1.csv" --target y --epochs 5 --seeds 3 --arm null --min-effect 5
shows effect 'equivalent means within 5'
shows effect '^  = equivalent'

# --- JSON ---
# Planned replicates, screening of six arms, a dear arm at equal cost; the same bytes again.
compare planned digits --epochs 4 --seeds auto --min-effect 8 --arm sam --arm mixup --arm dropout
shows planned '5 pilots of each arm, since dropped'
shows planned 'at equal cost'
compare screened digits --epochs 1 --seeds 3 --arm null --arm mixup --arm dropout --arm elr \
    --arm label_smoothing --arm 'ema(decay=0.9)' --no-equal-cost
shows screened 'screened out in round 1 of 1'
compare unscreened digits --epochs 1 --seeds 3 --arm null --arm mixup --arm dropout --arm elr \
    --arm label_smoothing --arm 'ema(decay=0.9)' --no-equal-cost --no-screen
grep -q 'screened out' "$work/unscreened" && fail 'screened in spite of --no-screen'

compare json digits --epochs 2 --seeds 3 --arm null --json
for key in schema arms replicates data_hash comparison p_adjusted verdict better_interval; do
    shows json "\"$key\": "
done
[ "$(head -c 1 "$work/json")" = "{" ] || fail "JSON begins with $(head -n 1 "$work/json")"
if command -v jq >"$work/jq"; then
    [ "$(jq -r '.schema, (.arms | length), (.arms[1].runs | length), .arms[1].comparison.verdict' \
        "$work/json" | tr '\n' ' ')" = "1 2 3 undecided " ] || fail "JSON: $(head -c 300 "$work/json")"
fi
compare nulls digits --epochs 2 --seeds 3 --learning-rate 10000 --arm elr --json
grep -qiE '(: |\[|,)-?(nan|inf)' "$work/nulls" && fail "JSON with a number that is none"
shows nulls '"mean": null'

# --- help ---
"$ballast" compare --help >"$work/help" || fail "help: status $?"
narrow help
for flag in $(sed -n 's/.*{\.name = "\([a-z-]\+\)".*/\1/p' cli/compare.c cli/plan_options.c); do
    shows help "--$flag\\b"
done
[ "$(grep -c -- '^  .*--' "$work/help")" -ge 20 ] || fail "few flags in help"
for command in train predict list show check doctor; do
    "$ballast" $command --help >"$work/help" || fail "$command --help: status $?"
    shows help "^Usage: ballast $command"
    narrow help
done

# --- exit statuses and streams ---
"$ballast" compare digits --arm nothing >"$work/out" 2>"$work/error"
[ $? -eq 2 ] && [ ! -s "$work/out" ] || fail "an unknown arm does not give status 2 and no output"
"$ballast" compare digits --trials 0 --epochs 1 --seeds 2 --arm null >/dev/full 2>"$work/error"
[ $? -eq 2 ] && shows error 'standard output' || fail "a full output is not an error"
"$ballast" compare digits --trials 0 --epochs 3000 --seeds 2 --arm null --workers 1 >"$work/out" 2>"$work/error" &
pid=$!
until grep -q train "$work/error"; do sleep 0.02; done
sleep 0.2
kill -INT $pid
wait $pid
status=$?
[ $status -eq 130 ] && [ ! -s "$work/out" ] || fail "Ctrl-C: status $status"
shows error '^ballast compare: interrupted; .*same command goes on$'

[ $failed -eq 0 ]
