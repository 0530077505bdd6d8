#!/usr/bin/env bash
# run-tests.sh - cargo test with these arguments, and one line at the end that sums up.
#
# A test that could not run here is counted as skipped, and the reasons are listed. Status: cargo's.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

mkdir -p target
log=target/test.log
export RUST_BACKTRACE=${RUST_BACKTRACE:-0}
cargo test --no-fail-fast "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}

echo
reasons=$(sed -n 's/^test \[skipped: \(.*\)\] .*ignored$/\1/p' "$log" | sort | uniq -c)
[ -z "$reasons" ] || printf 'Skipped because of:\n%s\n' "$reasons"
failures=$(sed -n 's/^test *\(.*[^ ]\) *\.\.\. FAILED$/  \1/p' "$log" | sort)
[ -z "$failures" ] || printf 'Failed:\n%s\n' "$failures"
awk '/^test result:/ { passed += $4; failed += $6; skipped += $8 }
     END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }' "$log" >target/test.summary
if [ "$status" -ne 0 ] && grep -q ' 0 failed,' target/test.summary; then
    echo "cargo test ended with status $status though no test failed: see what it wrote above"
fi
cat target/test.summary
exit "$status"
