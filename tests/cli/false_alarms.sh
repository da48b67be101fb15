#!/usr/bin/env bash
# The baseline against itself with other seeds, in many studies: how often does the program find a
# difference that is not there? On a fixed test set p must be uniform: the counts below lie inside
# the central 99.8 % of their binomial distributions. The correction for the overlap of re-splits is
# on the safe side here, so there only too many alarms are an error.
#
# The studies are those of seeds 1, 2, ..: the same at every call, so this fails by a change of the
# program and not by chance.
# usage: false_alarms.sh PROGRAM [STUDIES]
set -u
ballast=$1
studies=${2:-80}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# Two classes that no rule tells apart exactly.
table() {
    awk -v seed="$1" -v rows="$2" 'BEGIN {
        srand(seed)
        print "a,b,c,kind"
        for (i = 0; i < rows; i++) {
            a = rand() - 0.5; b = rand() - 0.5; c = rand() - 0.5
            print a "," b "," c "," (4 * a * b + c + (rand() - 0.5) / 2 > 0 ? "odd" : "even")
        }
    }'
}

# alarms FLAG..: the p of every study, a line each, to $work/p
alarms() {
    : >"$work/p"
    for ((seed = 1; seed <= studies; seed++)); do
        "$ballast" compare "$work/train.csv" --target kind --epochs 2 --seeds 6 --trials 0 --arm null \
            --study-seed $seed --store "$work/store.db" --json "$@" 2>"$work/error" |
            sed -n 's/^ *"p": \([-0-9.e]*\),*$/\1/p' >>"$work/p" || cat "$work/error"
    done
    [ "$(wc -l <"$work/p")" -eq "$studies" ] || {
        echo "FAILED: $(wc -l <"$work/p") of $studies studies gave a p"
        failed=1
    }
}

# expect LEVEL [upper]: as many p at or below LEVEL as chance allows, or not more
expect() {
    awk -v level="$1" -v only="${2:-both}" '
        $1 <= level { count++ }
        END {
            # The binomial distribution of count, summed up to it.
            term = (1 - level) ^ NR; below = 0
            for (k = 0; k < count; k++) { below += term; term *= (NR - k) / (k + 1) * level / (1 - level) }
            upto = below + term
            bad = 1 - below < 0.001 || (only == "both" && upto < 0.001)
            printf "%s%d of %d at %g\n", bad ? "FAILED: " : "", count, NR, level
            exit bad
        }' "$work/p" || failed=1
}

table 1 400 >"$work/train.csv"
table 2 300 >"$work/test.csv"
echo "fixed test set:"
alarms --test "$work/test.csv"
for level in 0.05 0.2 0.5; do expect $level; done
echo "re-splits:"
alarms
for level in 0.05 0.2; do expect $level upper; done
exit $failed
