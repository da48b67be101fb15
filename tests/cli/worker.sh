#!/usr/bin/env bash
# What a worker answers to a line of text, whatever it is: one line of JSON, and it goes on.
# usage: worker.sh PROGRAM
set -u
ballast=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=0

# expect PATTERN NAME: the last answers match the extended regular expression
expect() {
    grep -qE -- "$1" "$work/out" && return
    failed=$((failed + 1))
    echo "FAILED $2: no /$1/ in"
    cat "$work/out" "$work/error"
}

# ask LINE..: gives a worker these lines
ask() {
    printf '%s\n' "$@" | "$ballast" worker >"$work/out" 2>"$work/error"
    local status=$?
    [ $status -eq 0 ] || { failed=$((failed + 1)); echo "FAILED: status $status after $*"; }
}

plan='"plan":{"data":"digits","epochs":1}'
job="{$plan,\"arm\":\"baseline\",\"replicate\":0}"

ask "$job" "$job"
expect '^\{"result":\{"curve":\[.*"metrics":\{"accuracy":[0-9.]+,' "a job"
[ "$(grep -o '"metrics":{[^}]*}' "$work/out" | sort -u | wc -l)" -eq 1 ] ||
    { failed=$((failed + 1)); echo "FAILED: one job, two results"; }

ask 'hello' '{"plan":1}' '[]' "$job"
[ "$(grep -c '^{"error":"a job line is not ' "$work/out")" -eq 3 ] || expect 'three errors' "no jobs"
expect '^\{"result"' "a job after lines that are none"

ask "{$plan,\"arm\":\"elr\",\"replicate\":0,\"data_hash\":\"0000000000000000\"}"
expect '^\{"unfit":"digits changed while the study ran' "other data"
ask "{$plan,\"arm\":\"elrr\",\"replicate\":0}"
expect '^\{"error":".*elrr' "an unknown arm"
ask '{"plan":{"data":"/no/such/file.csv"},"arm":"baseline","replicate":0}'
expect '^\{"unfit":".*/no/such/file.csv' "a missing file"

# A column called "größe" in Latin-1: the message that quotes it is no UTF-8.
printf 'gr\366\337e,y\n1,a\n1,b\n2,a\n' >"$work/latin.csv"
ask "{\"plan\":{\"data\":\"$work/latin.csv\",\"target\":\"x\"},\"arm\":\"baseline\",\"replicate\":0}"
expect '^\{"unfit":"' "an error that is not UTF-8"

# What a library prints on standard output does not get between the answers.
DNNL_VERBOSE=1 ask "$job"
[ "$(grep -vc '^{"' "$work/out")" -eq 0 ] || { failed=$((failed + 1)); echo "FAILED: other lines"; }
exit $((failed > 0))
