#!/usr/bin/env bash
# test-aarch64.sh - the unit tests of all crates, built for aarch64 and run by qemu's user mode: layouts, byte orders and widths
# that only another processor shows. What needs a kernel of that architecture is not here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tuple=aarch64-unknown-linux-gnu
tools=$(realpath -m "${TRESTLE_TOOLS:-target/conformance-tools}")
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static
[ -e "$(rustc --print sysroot)/lib/rustlib/$tuple/lib" ] || export RUSTC=$tools/cross/rustc
cargo test --locked --target "$tuple" --target-dir target/release-build \
    --package cni-conf --package ipam --package plugins --lib --bins --quiet
