#!/usr/bin/env bash
# deny.sh - what dependencies may be (deny.toml): licences, bans and sources always, advisories where their database
# can be reached. Without cargo-deny nothing is checked, and that is said: compiling it takes longer than everything here, so
# neither `make tools` nor a build from a clean clone does.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

if ! cargo deny --version >/dev/null 2>&1; then
    echo "skipped: licences, bans and sources of dependencies, because cargo-deny is not installed" \
        "(cargo install --locked cargo-deny)"
    exit 0
fi
cargo deny --log-level error check licenses bans sources || exit 1
if timeout 60 cargo deny --log-level error fetch db >/dev/null 2>&1; then
    cargo deny --log-level error check --disable-fetch advisories
else
    echo "skipped: advisories about dependencies, because their database can't be reached"
fi
