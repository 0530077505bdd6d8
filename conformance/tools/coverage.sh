#!/usr/bin/env bash
# coverage.sh [ARGUMENTS of cargo test] - which lines the tests reach, by crate and by file. Without arguments all tests count, the
# conformance suite's calls of the binary among them; `--package cni-conf --package ipam` is a quick look at two crates.
#
# The compiler counts (-C instrument-coverage), and the llvm-tools of its own toolchain sum up; rustup fetches them if they are missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
host=$(rustc -vV | sed -n 's/^host: //p')
tools=$(rustc --print sysroot)/lib/rustlib/$host/bin
[ -x "$tools/llvm-cov" ] || rustup component add llvm-tools
out=$PWD/target/coverage
rm -rf "$out/profiles"
mkdir -p "$out/profiles"
# Flags of the environment replace those of .cargo/config.toml, hence the static one again. %m: one file for each program, merged on exit.
export RUSTFLAGS="-C instrument-coverage -C target-feature=+crt-static"
export LLVM_PROFILE_FILE=$out/profiles/%m.profraw CARGO_TARGET_DIR=$out TRESTLE_TOOLS=${TRESTLE_TOOLS:-$PWD/target/conformance-tools}
# Tests run the binary that lies beside them unless TRESTLE_BIN names another.
unset TRESTLE_BIN
selection=("$@")
[ $# -gt 0 ] || { selection=(--workspace); cargo build --package plugins --bin trestle --target "$host"; }
objects() {
    cargo test "${selection[@]}" --target "$host" --no-run --message-format=json |
        jq -r 'select(.reason == "compiler-artifact") | .executable // empty'
}
mapfile -t programs < <(objects)
status=0
cargo test "${selection[@]}" --target "$host" --no-fail-fast >"$out/log" 2>&1 || status=$?
grep '^test result:' "$out/log" | awk '{ passed += $4; failed += $6 } END { print passed, "passed,", failed, "failed" }'
[ "$status" -eq 0 ] || echo "coverage: cargo test ended with status $status: see $out/log" >&2
# A program that was started with an empty environment wrote where it stood.
find . -path ./target -prune -o -name 'default_*.profraw' -exec mv -t "$out/profiles" {} +
"$tools/llvm-profdata" merge -sparse "$out"/profiles/*.profraw -o "$out/all.profdata"
trestle=$out/$host/debug/trestle
[ ! -x "$trestle" ] || programs+=("$trestle")
"$tools/llvm-cov" report --instr-profile "$out/all.profdata" "${programs[0]}" "${programs[@]/#/--object=}" --sources "$PWD"/{cni-conf,cni-conformance,ipam,plugins}/src \
    >"$out/report"
# Where tests stand in files of their own, those are no lines to reach.
cat "$out/report" | sed "s,$PWD/,," | grep -v -e '_tests\.rs' -e '/tests/' -e '/tests\.rs' -e '^TOTAL'
# By crate: of the columns, lines and missed lines.
sed "s,$PWD/,," "$out/report" | grep -v -e '_tests\.rs' -e '/tests/' -e '/tests\.rs' |
    awk '$8 ~ /^[0-9]+$/ && $1 != "TOTAL" { split($1, path, "/"); crate = NF ? path[1] : ""; lines[crate] += $8; missed[crate] += $9 }
         END { for (crate in lines) if (lines[crate]) printf "coverage: %s: %.1f %% of %d lines\n", crate, 100 * (1 - missed[crate] / lines[crate]), lines[crate] }' | sort
exit "$status"
