#!/usr/bin/env bash
# ballast train and predict on a table with numbers, categories and missing cells: what is written,
# in which units, what a wrong table is told, and that Ctrl-C loses nothing.
set -u
ballast=$1
case $ballast in /*) ;; *) ballast=$PWD/$ballast ;; esac
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
failed=0

fail() {
    failed=$((failed + 1))
    echo "FAILED $*"
}

# table ROWS SEED: 3000 a square metre, 50000 a step from Rome to Oslo to Bonn, 500 less a floor
table() {
    awk -v rows="$1" -v seed="$2" 'BEGIN { srand(seed); split("Rome Oslo Bonn", city, " ")
        print "area,city,floor,price"
        for (i = 0; i < rows; i++) {
            a = 20 + 100 * rand(); c = int(3 * rand()); f = int(10 * rand())
            price = 3000 * a + 50000 * c - 500 * f + 2000 * rand()
            printf "%s,%s,%d,%.0f\n", rand() < 0.05 ? "" : sprintf("%.2f", a),
                rand() < 0.05 ? "" : city[c + 1], f, price } }'
}

table 400 1 >prices.csv
table 60 2 >truth.csv
cut -d, -f1-3 truth.csv >new.csv
"$ballast" train prices.csv --target price -o price.safetensors >trained 2>error || fail "train: $(cat error)"
grep -q '^Wrote price.safetensors' trained || fail "train does not say what it wrote"
grep -qE 'mae [0-9]' trained || fail "train does not say how good the model is"
[ ! -e price.safetensors.checkpoint ] || fail "a checkpoint is left after training"

# --- new rows, to standard output and beside the user's own columns ---
"$ballast" predict price.safetensors new.csv >lines 2>error || fail "predict: $(cat error)"
[ "$(head -n 1 lines)" = "example,prediction" ] || fail "header: $(head -n 1 lines)"
[ "$(wc -l <lines)" -eq 61 ] || fail "$(wc -l <lines) lines for 60 rows and a header"
[ "$(sed -n 2p lines | cut -d, -f1)" = "new.csv:2" ] || fail "line: $(sed -n 2p lines)"
"$ballast" predict price.safetensors new.csv -o with.csv >out 2>error || fail "predict -o: $(cat error)"
[ ! -s out ] || fail "predict -o prints to standard output"
cut -d, -f1-3 with.csv | cmp -s - new.csv || fail "predict -o changes the columns of the file"
[ "$(head -n 1 with.csv)" = "area,city,floor,prediction" ] || fail "header: $(head -n 1 with.csv)"
cut -d, -f4 with.csv | tail -n +2 >a
cut -d, -f2 lines | tail -n +2 | cmp -s - a || fail "predictions differ between the two forms"

# In units of the target: rows without missing cells are off by 5 % of the spread at most.
paste -d, truth.csv with.csv | awk -F, 'NR > 1 && $1 != "" && $2 != "" {
        off = $8 - $4; sum += off < 0 ? -off : off; n++ }
    END { exit !(n > 30 && sum / n < 20000) }' || fail "predictions are not in the target's units"
"$ballast" predict price.safetensors truth.csv >again 2>error || fail "with the target: $(cat error)"
cut -d, -f2 again | cmp -s - <(cut -d, -f2 lines) || fail "the target changes predictions"
awk -F, '{ print $3 "," $1 ",x," $2 }' new.csv >shuffled.csv
"$ballast" predict price.safetensors shuffled.csv >again 2>error || fail "other order: $(cat error)"
cut -d, -f2 again | cmp -s - <(cut -d, -f2 lines) || fail "the order of columns changes predictions"

# --- classes come with their probability ---
"$ballast" train prices.csv --target city --epochs 5 -o city.safetensors >out 2>error
status=$?
[ $status -eq 2 ] && grep -q 'prices.csv:[0-9]*.*city' error || fail "missing class: $status, $(cat error)"
awk -F, '$2 != ""' prices.csv >known.csv
"$ballast" train known.csv --target city --epochs 5 -o city.safetensors >out 2>error || fail "$(cat error)"
"$ballast" predict city.safetensors truth.csv >classes 2>error || fail "classes: $(cat error)"
[ "$(head -n 1 classes)" = "example,prediction,probability" ] || fail "header: $(head -n 1 classes)"
awk -F, 'NR > 1 && !($2 ~ /^(Rome|Oslo|Bonn)$/ && $3 >= 0.3333 && $3 <= 1) { exit 1 }' classes ||
    fail "classes or probabilities: $(sed -n 2,5p classes)"

# --- wrong tables: a sentence, status 2, no file ---
# refused WORDS DATA: the message must contain WORDS
refused() {
    "$ballast" predict price.safetensors "$2" -o refused.csv >out 2>error
    local status=$?
    [ $status -eq 2 ] && grep -qE -- "$1" error && [ "$(wc -l <error)" -eq 1 ] && [ ! -e refused.csv ] ||
        fail "$2: status $status, $(cat error)"
}
cut -d, -f1,3 new.csv >less.csv
refused 'less\.csv: no column "city".*area, floor' less.csv
printf 'area,city,floor\n50,Rome,2\nlarge,Rome,3\n' >word.csv
refused 'word\.csv:3: column "area" is "large", not a number' word.csv
refused 'images|table' digits
printf 'area,city,floor\n50,Paris,2\n' >unseen.csv
"$ballast" predict price.safetensors unseen.csv >out 2>error || fail "an unseen category: $(cat error)"
grep -q '^column "city": 1 cell with a text .* "Paris", counts as missing$' error || fail "unseen: $(cat error)"
cp unseen.csv UNSEEN.CSV
"$ballast" predict price.safetensors UNSEEN.CSV 2>error | tail -n 1 | cut -d, -f2 | cmp -s - <(tail -n 1 out | cut -d, -f2) ||
    fail "the case of a file's name matters"

# --- a model whose description is not true of its arrays ---
# lying NAME FROM TO WORDS: of the same length, so that the file stays whole
lying() {
    sed "s/\\\\\"$1\\\\\":$2/\\\\\"$1\\\\\":$3/" price.safetensors >lying.safetensors
    cmp -s price.safetensors lying.safetensors && fail "no $1 to change"
    "$ballast" predict lying.safetensors new.csv >out 2>error
    local status=$?
    [ $status -eq 2 ] && [ ! -s out ] && grep -qE -- "$4" error || fail "$1 $3: status $status, $(cat error)"
}
lying outputs 1 7 'lying\.safetensors: it has 7 outputs, but its target needs 1'
lying depth 2 9 'no array param/dense3/weight'
lying width 64 65 'param/dense1/weight .* expected'

# --- Ctrl-C, three times, and the same command goes on to the same bytes ---
long="train prices.csv --target price --arm ema --epochs 3000"
"$ballast" $long -o whole.safetensors >out 2>error || fail "whole: $(cat error)"
interrupted=0
for attempt in 1 2 3; do
    "$ballast" $long -o parts.safetensors >out 2>error &
    pid=$!
    until grep -q train error; do sleep 0.02; done
    sleep 0.25
    kill -INT $pid 2>/dev/null
    { wait $pid; } 2>/dev/null
    status=$?
    [ $status -eq 0 ] && break
    [ $status -eq 130 ] && [ ! -e parts.safetensors ] && [ -s parts.safetensors.checkpoint ] &&
        grep -q 'parts.safetensors.checkpoint.*goes on' error || fail "Ctrl-C: $status, $(cat error)"
    interrupted=$((interrupted + 1))
    "$ballast" train prices.csv --target price --epochs 7 -o parts.safetensors >out 2>error &&
        fail "the checkpoint of another run was taken"
    grep -q 'another run' error || fail "checkpoint of another run: $(cat error)"
done
[ $interrupted -ge 1 ] || fail "training was done before it could be interrupted"
[ -e parts.safetensors ] || "$ballast" $long -o parts.safetensors >out 2>error || fail "$(cat error)"
cmp whole.safetensors parts.safetensors || fail "interrupted $interrupted times: another model"
[ ! -e parts.safetensors.checkpoint ] || fail "a checkpoint is left after a resumed run"

[ $failed -eq 0 ] && echo "train and predict: interrupted $interrupted times"
[ $failed -eq 0 ]
