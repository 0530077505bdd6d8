#!/usr/bin/env bash
# licences.sh TUPLE PACKAGE… - the licences of the crates that are compiled into these packages for that target, on stdout: name, version,
# licence, and the texts that their authors ship. The crates have to be fetched.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tuple=$1
shift
metadata=$(mktemp)
trap 'rm -f "$metadata"' EXIT
cargo metadata --format-version 1 --offline --locked >"$metadata"

# of NAME VERSION FIELD: what cargo knows of that crate.
of() {
    jq -r --arg n "$1" --arg v "$2" ".packages[] | select(.name == \$n and .version == \$v) | $3" "$metadata"
}

echo "trestle is made with the following crates. Each is followed by the texts that it ships."
for package in "$@"; do
    cargo tree --offline --package "$package" --edges normal --target "$tuple" --prefix none --format '{p}'
done | awk '!/\(\// { print $1, substr($2, 2) }' | sort -u | while read -r name version; do
    printf '\n=== %s %s (%s)\n' "$name" "$version" "$(of "$name" "$version" .license)"
    root=$(of "$name" "$version" '.manifest_path | rtrimstr("/Cargo.toml")')
    for file in "$root"/LICEN[SC]E* "$root"/COPYING*; do
        [ ! -f "$file" ] || { printf '\n--- %s\n' "${file##*/}"; cat "$file"; }
    done
done
