#!/usr/bin/env bash
# msrv.sh - every crate and its tests compile with the oldest compiler that its Cargo.toml promises (rust-version). Fetches those
# compilers by rustup, if they aren't there.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
command -v rustup >/dev/null || { echo "msrv.sh: rustup is not installed, and nothing else has old compilers" >&2; exit 1; }
# A version and the packages that promise it, in one line.
promises=$(cargo metadata --format-version 1 --no-deps --offline |
    jq -r '.packages | group_by(.rust_version)[] | "\(.[0].rust_version) \(map("--package \(.name)") | join(" "))"')
while read -r version packages; do
    rustc "+$version" --version >/dev/null 2>&1 || rustup toolchain install "$version" --profile minimal
    # See the Makefile.
    CARGO_BUILD_TARGET=$(rustc "+$version" -vV | sed -n 's/^host: //p')
    export CARGO_BUILD_TARGET
    # A directory of its own: two compilers in one make each other start from the beginning.
    # shellcheck disable=SC2086 # the packages are words
    cargo "+$version" check --locked $packages --all-targets --target-dir target/msrv </dev/null
    echo "msrv: $packages: compile with $(rustc "+$version" --version)"
done <<<"$promises"
