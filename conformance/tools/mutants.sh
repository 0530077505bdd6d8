#!/usr/bin/env bash
# mutants.sh [ARGUMENTS of cargo-mutants] - changes the code a little in every place where that compiles, and runs the crate's own tests: what
# nobody notices is listed. .cargo/mutants.toml says which files, and which changes may live and why.
#
# Without arguments everything, which takes hours; `--file ipam/src/store/dir.rs` is one file, `--in-diff FILE` what a patch touches.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cargo mutants --version >/dev/null 2>&1 || {
    echo "mutants.sh: cargo-mutants is not installed (cargo install --locked cargo-mutants)" >&2
    exit 1
}
mkdir -p target/mutants
# Copies are built beside each other; a target directory that the environment names would be one for all.
unset CARGO_TARGET_DIR
status=0
# The status is 2 where some survived, and all three are wanted.
cargo mutants --no-shuffle --output target/mutants/contract --package cni-conf --package ipam "$@" || status=$?
# Of the plugins the unit tests alone: those with a kernel take minutes.
cargo mutants --no-shuffle --output target/mutants/plugins --package plugins "$@" -- --lib || status=$?
echo "mutants: survivors are in target/mutants/*/mutants.out/missed.txt"
cat target/mutants/*/mutants.out/missed.txt
exit "$status"
