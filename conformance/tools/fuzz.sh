#!/usr/bin/env bash
# fuzz.sh SECONDS [TARGET...] - run the fuzz targets, each for that long. What they find goes to fuzz/artifacts, and
# `fuzz.sh` ends with status 1. New inputs stay in target/fuzz-corpus; the seeds in fuzz/corpus are left as they are.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

seconds=${1:-60}
shift || true
missing() {
    echo "make fuzz needs $1" >&2
    exit 2
}
cargo +nightly --version >/dev/null 2>&1 || missing "a nightly toolchain: rustup toolchain install nightly"
cargo fuzz --version >/dev/null 2>&1 || missing "cargo-fuzz: cargo install --locked cargo-fuzz"

# The workspace's own target and its static linking are for the plugins; the sanitizer wants neither.
host=$(rustc -vV | sed -n 's/^host: //p')
targets=("$@")
[ ${#targets[@]} -gt 0 ] || mapfile -t targets < <(ls fuzz/corpus)
status=0
for target in "${targets[@]}"; do
    grown=target/fuzz-corpus/$target
    mkdir -p "$grown"
    echo "== $target: $seconds s"
    CARGO_TARGET_DIR=target/fuzz cargo +nightly fuzz run --target "$host" "$target" "$PWD/$grown" "$PWD/fuzz/corpus/$target" \
        -- -max_total_time="$seconds" -max_len=65536 -print_final_stats=0 -verbosity=0 || status=1
done
exit $status
