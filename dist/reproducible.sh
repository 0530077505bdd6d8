#!/usr/bin/env bash
# reproducible.sh - two builds of the release, in directories of different names and lengths, are byte-identical.
#
# Builds the commit that is checked out, for $ARCHS (this machine's architecture unless set). Status: 0 if all files of
# both are the same.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export ARCHS=${ARCHS:-$(uname -m)} TRESTLE_TOOLS=${TRESTLE_TOOLS:-$PWD/target/conformance-tools}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for name in one another-of-a-longer-name; do
    git clone --quiet . "$work/$name/trestle"
    "$work/$name/trestle/dist/release.sh" "$work/$name/out"
    rm -rf "$work/$name/trestle/target"
done
if diff -r "$work/one/out" "$work/another-of-a-longer-name/out"; then
    echo "reproducible: both builds gave the same $(find "$work/one/out" -type f | wc -l) files"
else
    echo "reproducible: the builds differ" >&2
    exit 1
fi
