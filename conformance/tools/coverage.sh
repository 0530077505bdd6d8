#!/usr/bin/env bash
# coverage.sh - which lines the tests reach, as a table by file and in all. The conformance suite's calls of the binary count, too: it is built
# with the same instruments. Needs cargo-llvm-cov and the compiler's llvm-tools (rustup component add llvm-tools).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
cargo llvm-cov --version >/dev/null 2>&1 || {
    echo "coverage.sh: cargo-llvm-cov is not installed (cargo install --locked cargo-llvm-cov)" >&2
    exit 1
}
# Tests run the binary that lies beside them unless TRESTLE_BIN names another.
unset TRESTLE_BIN
cargo llvm-cov --no-fail-fast --workspace --ignore-filename-regex '(conformance|tests)/' "$@"
