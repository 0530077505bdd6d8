#!/usr/bin/env bash
# mutants.sh [ARGUMENTS of cargo-mutants] - changes the code a little in every place where that compiles, and runs the crate's own tests: what
# nobody notices is listed. Survivors that can live, and why, stand in .cargo/mutants.toml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cargo mutants --version >/dev/null 2>&1 || {
    echo "mutants.sh: cargo-mutants is not installed (cargo install --locked cargo-mutants)" >&2
    exit 1
}
cargo mutants --package cni-conf --package ipam "$@"
