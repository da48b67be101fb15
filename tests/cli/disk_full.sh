#!/usr/bin/env bash
# A disk that fills up while a study runs: a sentence, nothing half written, and with room again the
# same command goes on to the same bytes. Needs a small file system of its own; where none can be
# mounted the test says so and passes.
# usage: disk_full.sh PROGRAM
set -u
ballast=$(realpath "$1")
if [ -z "${2:-}" ]; then
    unshare -m true 2>/dev/null && exec unshare -m bash "$0" "$ballast" mounted
    unshare -rm true 2>/dev/null && exec unshare -rm bash "$0" "$ballast" mounted
    echo "skipped: no mount namespace"
    exit 0
fi
work=$(mktemp -d)
disk="$work/disk"
mkdir "$disk"
mount -t tmpfs -o size=2m none "$disk" || { echo "skipped: no tmpfs"; exit 0; }
trap 'umount "$disk"; rm -rf "$work"' EXIT
export LC_ALL=C
failed=0

fail() {
    failed=$((failed + 1))
    echo "FAILED $*"
}

study=(compare digits --epochs 3 --train 300 --seeds 6 --trials 3 --arm elr --arm mixup)
"$ballast" "${study[@]}" --store "$work/whole.db" >"$work/expected" 2>"$work/error" || fail "$(cat "$work/error")"

# fill KILOBYTES: leaves so much room
fill() {
    rm -f "$disk/filler"
    local room
    room=$(df --output=avail -k "$disk" | tail -1)
    head -c $(((room - $1) * 1024)) /dev/zero >"$disk/filler" || fail "cannot fill the disk"
}

stops=0
for room in 0 40 90 130 180 240 400; do
    fill $room
    "$ballast" "${study[@]}" --store "$disk/store.db" >"$work/out" 2>"$work/error"
    status=$?
    if [ $status -eq 0 ]; then
        cmp -s "$work/out" "$work/expected" || fail "other bytes with $room KB"
        continue
    fi
    stops=$((stops + 1))
    [ $status -eq 2 ] || fail "status $status with $room KB"
    grep -qE 'disk is full|No space left' "$work/error" || fail "with $room KB: $(cat "$work/error")"
    [ ! -s "$work/out" ] || cmp -s "$work/out" "$work/expected" || fail "half a table with $room KB"
    echo "$room KB: $(tail -1 "$work/error")"
done
[ $stops -ge 3 ] || fail "the disk was full $stops times"
rm "$disk/filler"
"$ballast" "${study[@]}" --store "$disk/store.db" >"$work/out" 2>"$work/error" || fail "with room again: $(cat "$work/error")"
cmp -s "$work/out" "$work/expected" || fail "other bytes with room again"
"$ballast" study show 1 --store "$disk/store.db" | cmp -s - "$work/expected" || fail "study show with room again"

# --- files that are written at the end: the old one stays ---
echo old >"$disk/runs.csv"
fill 0
"$ballast" study export 1 --store "$work/whole.db" -o "$disk/runs.csv" 2>"$work/error"
[ $? -eq 2 ] && [ "$(cat "$disk/runs.csv")" = old ] || fail "export to a full disk"
[ "$(ls "$disk" | grep -c runs)" -eq 1 ] || fail "export left something behind: $(ls "$disk")"
"$ballast" "${study[@]}" --csv --store "$work/whole.db" >/dev/full 2>"$work/error"
[ $? -eq 2 ] || fail "a full standard output goes unnoticed"

[ $failed -eq 0 ]
