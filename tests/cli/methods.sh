# ballast list, show and check: what they print and how they exit.
set -u
ballast=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

# expect STATUS WORDS COMMAND..: the exit status, and a line of the output that contains WORDS.
expect() {
    local status=$1 words=$2
    shift 2
    "$@" >"$work/out" 2>&1
    local got=$?
    if [ $got -ne "$status" ] || ! grep -qF -- "$words" "$work/out"; then
        echo "$*: status $got, expected $status and \"$words\":"
        cat "$work/out"
        failures=$((failures + 1))
    fi
}

cases=tests/cases/00-baselines
expect 0 "  mixup               trains on blends of pairs" "$ballast" list
expect 0 '"name": "elr"' "$ballast" list --json
if "$ballast" list | awk 'length > 80' | grep .; then
    echo "lines of list are longer than 80 columns"
    failures=$((failures + 1))
fi
expect 0 "option  alpha  0.2  (0,inf)" "$ballast" show mixup
expect 0 '--arm "mixup(alpha=0.2)"' "$ballast" show mixup
expect 0 "adaptive   false      true|false" "$ballast" show base_sam_perturb
expect 2 'nothing is called "mxiup"; did you mean mixup?' "$ballast" show mxiup
expect 2 "show" "$ballast" show

expect 0 "2 passed, 0 failed" "$ballast" check $cases/base_mixup-1.safetensors \
    $cases/base_mixup-2.safetensors --device both
expect 0 "ok    $cases/base_cutout-1.safetensors" "$ballast" check --device reference \
    $cases/base_cutout-1.safetensors
sed 's/"function":"base_mixup"/"function":"base_mixip"/; s/"function": "base_mixup"/"function": "base_mixip"/' \
    $cases/base_mixup-1.safetensors >"$work/unknown.safetensors"
expect 1 "no function is called base_mixip; did you mean base_mixup?" "$ballast" check \
    "$work/unknown.safetensors"
expect 1 "1 passed, 2 failed" "$ballast" check "$work/unknown.safetensors" "$work/absent" \
    $cases/base_mixup-1.safetensors
expect 1 '"failed": 1' "$ballast" check --json "$work/absent"
expect 2 "must be cpu, reference or both" "$ballast" check --device gpu "$work/absent"
expect 2 "check" "$ballast" check
[ "$("$ballast" check $cases/base_mixup-1.safetensors | tail -1)" = "1 passed, 0 failed" ] || {
    echo "the last line of check is not the tally alone"
    failures=$((failures + 1))
}
exit $((failures > 0))
