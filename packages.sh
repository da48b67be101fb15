#!/usr/bin/env bash
# Installs the packages of packages.txt that are missing, through apt-get (with sudo if not root).
set -euo pipefail
cd "$(dirname "$0")"
missing=()
while read -r package; do
    [ -z "$package" ] && continue
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done < packages.txt
[ ${#missing[@]} -eq 0 ] && exit 0

root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "missing packages: ${missing[*]}; install them as root" >&2; exit 1; }
    root=(sudo)
fi
echo "Installing with apt-get${root:+ (through sudo)}: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${root[@]}" apt-get update -qq
"${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "${missing[@]}" >/dev/null
