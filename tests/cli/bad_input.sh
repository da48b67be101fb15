#!/usr/bin/env bash
# Bad input: one sentence on standard error that names the value, the place and what was expected,
# exit status 2, and nothing half written. To add one, write a line `bad NAME PATTERN COMMAND..`; an
# error that only shows once the work has begun is a `late`: the summary stands before its sentence.
set -u
ballast=$1
case $ballast in /*) ;; *) ballast=$PWD/$ballast ;; esac
work=$(mktemp -d)
full=
trap '[ -z "$full" ] || umount "$full" 2>/dev/null; rm -rf "$work"' EXIT
export XDG_STATE_HOME="$work/state" HOME="$work" OMP_NUM_THREADS=1
mkdir "$work/files" && cd "$work/files" || exit 1
cases=0 failed=0

files() { find . -type f -print | sort; }

# Runs COMMAND; $why becomes what is wrong with its status, its last line, what it left behind.
judge() {
    local pattern=$1 status
    shift
    why=
    cases=$((cases + 1))
    files >"$work/before"
    timeout 60 "$@" >"$work/out" 2>"$work/error" </dev/null
    status=$?
    files >"$work/after"
    [ $status -eq 2 ] || why="exit status $status, not 2"
    [ ! -s "$work/out" ] || why="$why; printed to standard output"
    grep -v '^Usage: ' "$work/error" | tail -n 1 | grep -qE -- "^ballast[a-z ]*: .*($pattern)" ||
        why="$why; the message lacks /$pattern/"
    cmp -s "$work/before" "$work/after" ||
        why="$why; files changed: $(diff "$work/before" "$work/after" | tr '\n' ' ')"
}

report() {
    [ -n "$why" ] || return
    failed=$((failed + 1))
    echo "FAILED $1: ${why#; }"
    sed 's/^/    /' "$work/error"
}

# bad NAME 'what the sentence must contain (extended regex)' COMMAND..: a sentence and nothing else
bad() {
    local name=$1
    shift
    judge "$@"
    [ "$(grep -vc '^Usage: ' "$work/error")" -eq 1 ] || why="$why; not one sentence"
    report "$name"
}

late() {
    local name=$1
    shift
    judge "$@"
    [ "$(grep -c '^ballast' "$work/error")" -eq 1 ] || why="$why; not one sentence"
    report "$name"
}

# --- files ---
awk 'BEGIN { print "size,colour,price"
    for (i = 1; i <= 12; i++) print i "," (i % 2 ? "red" : "blue") "," 10 * i + (i % 5 == 4) }' >good.csv
: >empty.csv
echo 'size,colour,price' >header.csv
{ cat good.csv; echo '13,red'; } >ragged.csv
{ cat good.csv; echo '13,"red,130'; } >quote.csv
{ cat good.csv; echo '13,red,'; } >hole.csv
{ cat good.csv; echo '13,red,NaN'; } >nan.csv
{ cat good.csv; echo '13,red,dear'; } >word.csv
sed 's/colour/size/' good.csv >twice.csv
awk -F, 'NR == 1 { print } NR > 1 { print $1 "," $2 ",same" }' good.csv >oneclass.csv
awk -F, 'NR == 1 { print } NR > 1 { print $1 "," $2 ",3.5" }' good.csv >constant.csv
sed 's/$/x/' good.csv >ownclass.csv
sed '1d' good.csv | sed 's/^1,red,10/10,red,10/' >headless.csv
sed 's/same/\x1b[31msame\n/' oneclass.csv | sed 's/\x1b.*/"&/; 2,$s/^$/"/' >escape.csv
iconv -t utf-16 good.csv >wide.csv
mkdir folder.csv
head -c 3000 /dev/urandom >noise.csv
printf '\x00\x00\x08\x03\x00\x00\x00\x0a\x00\x00\x00\x04\x00\x00\x00\x04' >short-images-idx3-ubyte
head -c 50 /dev/zero >>short-images-idx3-ubyte
printf '\x00\x00\x08\x01\x00\x00\x00\x0a0123456789' >short-labels-idx1-ubyte
printf '\x07\x07\x08\x03\x00\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00\x01a' >magic-images-idx3-ubyte
cp short-labels-idx1-ubyte magic-labels-idx1-ubyte
printf '\x00\x00\x08\x03\x00\x00\x00\x02\x00\x00\x00\x02\x00\x00\x00\x02abcdefgh' >count-images-idx3-ubyte
cp short-labels-idx1-ubyte count-labels-idx1-ubyte
{
    printf '\x00\x00\x08\x03\x00\x00\x00\x0a\x00\x00\x00\x02\x00\x00\x00\x02'
    head -c 40 /dev/zero
} | gzip | head -c 25 >torn-images-idx3-ubyte.gz
cp short-labels-idx1-ubyte torn-labels-idx1-ubyte
mkdir npy nofiles pictures pictures/cat pictures/dog
printf '\x93NUMPY\x01\x00\x10\x00{"nonsense": 1  \n' >npy/x.npy
cp npy/x.npy npy/y.npy
head -c 200 /dev/urandom >pictures/cat/1.png
head -c 200 /dev/urandom >pictures/dog/2.png
head -c 100 /dev/urandom >model.safetensors
echo 'not a database, just text that is long enough to look like a file with something in it' >store.db

compare="$ballast compare --trials 0"
train="$ballast train"
quick="--seeds 6 --epochs 1"

# --- commands and flags ---
bad "no data" 'argument is missing' $compare
bad "unknown command" '"comapre".*compare' "$ballast" comapre good.csv
bad "unknown option" '--tarket.*--target' $compare good.csv --tarket price
bad "option without value" '--target.*COLUMN' $compare good.csv --target
bad "flag with a value" '--json takes no value' $compare digits --json=1
bad "one argument too many" '"extra"' $compare digits extra
bad "no seeds" '--seeds is "0".*from 2 to 1000' $compare digits --seeds 0
bad "planned seeds without an effect" '--seeds auto needs --min-effect' $compare digits --seeds auto
bad "seeds not a number" '--seeds is "many".*whole number' $compare digits --seeds many
bad "seeds beyond a machine's numbers" '--seeds is "99999999999999999999"' \
    $compare digits --seeds 99999999999999999999
bad "half an epoch" '--epochs is "1\.5".*from 1 to 1000000' $compare digits --epochs 1.5
bad "no workers" '--workers is "0"' $compare digits --workers 0
bad "alpha of one" '--alpha is "1".*0\.5' $compare digits --alpha 1
bad "negative effect" '--min-effect is "-1"' $compare digits --min-effect -1
bad "negative rate" '--learning-rate is "-1".*from' $compare digits --learning-rate -1
bad "test share of one" '--test-share is "1"' $compare digits --test-share 1
bad "too many to train on" '5000.*1438' $compare digits --train 5000
bad "noise above one" 'label noise is "1\.5".*from 0 to 1' $compare digits --label-noise 1.5
bad "noise not a number" 'label noise is "nan".*from 0 to 1' $compare digits --label-noise nan
bad "noise of no pair" '"3-8" is not a pair.*->' $compare digits --label-noise pairs:0.4:3-8
bad "noise of an unknown class" 'no class "12"' $compare digits --label-noise 'pairs:0.4:1->12'
bad "noise on numbers" '0\.4.*numbers' $compare good.csv --target price --label-noise 0.4
bad "imbalance of numbers" '3.*numbers' $compare good.csv --target price --imbalance 3
bad "unknown task" '"clasification".*classification' $compare digits --task clasification
bad "task of other data" 'classes.*regression' $compare digits --task regression
bad "unknown model" '"mpl".*mlp' $compare digits --model mpl
bad "model of images on a table" 'cnn.*images.*table' $compare good.csv --target price --model cnn
bad "unknown optimizer" '"sdg".*sgd' $compare digits --optimizer sdg
bad "unknown schedule" '"cosin".*cosine' $compare digits --schedule cosin
bad "loss of another task" 'squared.*classification.*cross_entropy' $compare digits --loss squared

# --- data ---
bad "missing file" '"missing\.csv": no file or folder of this name' $compare missing.csv --target price
bad "missing test file" 'missing\.csv: cannot open: No such file' $compare good.csv --target price --test missing.csv
bad "missing file of labels" '"x\.npy": no file' $compare x.npy --labels y.npy
bad "no name" '"": no file.*digits' $compare ''
bad "unknown data set" '"digit".*digits' $compare digit
bad "empty csv" 'empty\.csv' $compare empty.csv --target price
bad "only a header" 'header\.csv' $compare header.csv --target price
bad "ragged csv" 'ragged\.csv:14' $compare ragged.csv --target price
bad "open quote" 'quote\.csv:14' $compare quote.csv --target price
bad "unknown target" '"prise".*price' $compare good.csv --target prise
bad "no target" '--target' $compare good.csv
bad "missing target cell" 'hole\.csv:14' $compare hole.csv --target price
bad "NaN target" 'nan\.csv:14' $compare nan.csv --target price
bad "text in a numeric target" '"dear"' $compare word.csv --target price --task regression
bad "column named twice" '"?size"?' $compare twice.csv --target price
bad "one class" '"same".*two' $compare oneclass.csv --target price
bad "one value" 'constant\.csv: the target is 3\.5' $compare constant.csv --target price
bad "a class an example" 'ownclass\.csv.*12 .*own' $compare ownclass.csv --target pricex
bad "no header" 'headless\.csv:1: .*"10".*first line' $compare headless.csv --target price
bad "control characters" '" \[31msame "' $compare escape.csv --target price
bad "UTF-16" 'wide\.csv:1: not UTF-8.*utf-16' $compare wide.csv --target price
bad "folder called csv" 'folder\.csv: a target.*a folder of images' $compare folder.csv --target price
bad "not a csv" 'noise\.csv' $compare noise.csv --target price
bad "kind of an unknown column" '"color".*colour' \
    $compare good.csv --target price --type color=categorical
bad "unknown kind" '"size=number".*numeric' $compare good.csv --target price --type size=number
bad "no kind" '"size".*NAME=numeric' $compare good.csv --target price --type size
bad "every column dropped" 'good\.csv.*no column' \
    $compare good.csv --target price --type size=drop --type colour=drop
bad "labels of a table" 'labels.*CSV' $compare good.csv --target price --labels good.csv
bad "target of images" 'target.*digits|digits.*target' $compare digits --target price
bad "truncated idx" 'short-images' $compare short-images-idx3-ubyte
bad "idx magic" 'magic-images' $compare magic-images-idx3-ubyte
bad "idx counts differ" '2.*10|10.*2' $compare count-images-idx3-ubyte
bad "torn gzip" 'torn-images' $compare torn-images-idx3-ubyte.gz
bad "bad npy" 'x\.npy' $compare npy
bad "empty folder" 'nofiles' $compare nofiles
bad "bad png" '1\.png' $compare pictures

# --- arms ---
bad "unknown arm" '"elt".*elr' $compare digits --arm elt
bad "no arm" '"".*expected' $compare digits --arm ''
bad "unknown arm option" 'lamda.*lambda' $compare digits --arm "elr(lamda=3)"
bad "arm option out of range" 'beta is 1\.5.*\[0,1\]' $compare digits --arm "elr(beta=1.5)"
bad "arm option not a number" 'beta is "much".*number' $compare digits --arm "elr(beta=much)"
bad "arm option without value" 'beta.*VALUE' $compare digits --arm "elr(beta)"
bad "arm option twice" 'beta.*twice' $compare digits --arm "elr(beta=0.5,beta=0.6)"
bad "arm syntax" '"elr\(beta=0\.5".*bracket' $compare digits --arm "elr(beta=0.5"
bad "arms that exclude each other" 'elr needs hard labels.*mixup' $compare digits --arm "mixup+elr"
bad "arm with itself" 'elr appears twice' $compare digits --arm "elr+elr"
bad "null with another" 'null.*alone' $compare digits --arm "null+elr"
bad "arm given twice" 'null.*twice' $compare digits --arm null --arm null
bad "arm of another task" 'conr.*regression.*classification' $compare digits --arm conr
bad "arm of images on a table" 'cutmix.*images.*table' \
    $compare good.csv --target colour --arm cutmix
bad "arm of another model" 'stochastic_depth.*resnet20.*mlp' $compare digits --arm stochastic_depth
bad "only the baseline" '--arm' $compare digits --arm baseline

# --- outputs and models ---
bad "report in no folder" '--html nowhere/report\.html.*folder' \
    $compare digits $quick --html nowhere/report.html
bad "report is a folder" '--html nofiles is a folder' $compare digits $quick --html nofiles
bad "report on standard output" '--html is "-".*file name' $compare digits $quick --html -
bad "two arms to train" 'one --arm.*conr\+mixup' $train digits --arm conr --arm mixup
bad "store is not a database" 'store\.db.*store' $compare digits $quick --store store.db
bad "store is a folder" 'nofiles is a folder' $compare digits $quick --store nofiles
bad "store in no folder" '/proc/none' $compare digits $quick --store /proc/none/studies.db
bad "model in no folder" '--output nowhere/m\.safetensors.*folder' \
    $train digits --epochs 1 -o nowhere/m.safetensors
bad "not a model" 'model\.safetensors' "$ballast" predict model.safetensors good.csv
bad "no model" 'none\.safetensors' "$ballast" predict none.safetensors good.csv
bad "method to show" '"erl".*elr' "$ballast" show erl

# --- a full disk ---
full=$work/files/full
mkdir "$full"
if mount -t tmpfs -o size=64k tmpfs "$full" 2>/dev/null; then
    late "model on a full disk" 'full/m\.safetensors.*space' \
        $train digits --epochs 1 -o "$full/m.safetensors"
    head -c 60k /dev/zero >"$full/filler"
    late "report on a full disk" 'full/report\.html.*space' \
        $compare digits $quick --html "$full/report.html"
    bad "store on a full disk" 'full/studies\.db.*full' \
        $compare digits $quick --store "$full/studies.db"
    umount "$full" && mount -t tmpfs -o size=64k tmpfs "$full"
    # What was finished before the disk was full is worth keeping; with more room it goes on.
    $compare digits $quick --store "$full/studies.db" >"$work/out" 2>"$work/error"
    status=$?
    if [ $status -ne 2 ] || ! tail -n 1 "$work/error" | grep -q '^ballast compare: .*studies\.db: the disk is full'; then
        echo "FAILED store on a disk that fills up: status $status"
        cat "$work/error"
        failed=$((failed + 1))
    fi
    mount -o remount,size=4m "$full"
    if ! $compare digits $quick --store "$full/studies.db" >"$work/out" 2>"$work/error" ||
        ! $compare digits $quick >"$work/elsewhere" 2>"$work/error" || ! cmp "$work/out" "$work/elsewhere"; then
        echo "FAILED going on after a full disk"
        cat "$work/error"
        failed=$((failed + 1))
    fi
    cases=$((cases + 2))
    umount "$full" && full=
else
    full=
    echo "skipped: a full disk (mounting a tmpfs needs root)"
fi

echo "$((cases - failed)) passed, $failed failed"
[ $failed -eq 0 ]
