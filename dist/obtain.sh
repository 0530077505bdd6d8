#!/usr/bin/env bash
# obtain.sh - fetch what a release is made with beyond Rust: a compiler with libraries for other architectures, and the
# tool that writes the list of what is inside.
#
# Uses the functions of ../conformance/tools/obtain.sh: Debian's packages, verified by apt and only unpacked, into the
# tools directory:
#
#   cross/root/           of sid: rustc, its libraries for this machine and for aarch64, cargo-cyclonedx
#   cross/rustc           runs that rustc by its own loader and libc, on any machine
#   cross/cargo-cyclonedx the same
#
# rustup's way (`rustup target add`) is simpler where its servers can be reached; Debian's archive always can.
set -euo pipefail
# shellcheck source=../conformance/tools/obtain.sh
source "$(dirname "${BASH_SOURCE[0]}")/../conformance/tools/obtain.sh"

parts=(cross)
scaffold=(apt)
# Read by apt_state.
# shellcheck disable=SC2034
architectures='"amd64"; "arm64";'
# What rustc and cargo-cyclonedx are linked with comes by apt's own reckoning, save for compilers, which the machine has.
packages=(rustc:amd64 libstd-rust-dev:amd64 libstd-rust-dev:arm64 cargo-cyclonedx:amd64)

obtain() {
    local root closure version
    root=$(mktemp -d "$work/cross.XXXXXX")
    ensure_suite sid || return 1
    # Against an empty system, so that apt names everything that the library is linked with.
    : >"$work/status"
    closure=$(apt sid -s -o Dir::State::status="$work/status" --no-install-recommends install libstd-rust-dev:amd64 |
        sed -n 's/^Inst \([^ ]*\) .*/\1/p' | sed 's/:.*//;s/$/:amd64/')
    [ -n "$closure" ] || { say "apt does not say what rustc needs"; return 1; }
    # shellcheck disable=SC2086 # the names are words
    fetch_binary sid "$root/root" "${packages[@]}" $closure || return 1
    version=$(version_of "$debs" rustc)
    for program in rustc cargo-cyclonedx; do
        wrapper "$program" >"$root/$program"
        chmod 0755 "$root/$program"
    done
    publish "$root" cross "$version"
}

# A program of the unpacked root, run by the root's own loader: the machine's libc may be older.
wrapper() {
    local program=$1 arguments=
    [ "$program" != rustc ] || arguments="--sysroot \"\$root/usr\""
    cat <<SCRIPT
#!/bin/sh
root=\$(dirname "\$0")/root
exec "\$root/usr/lib64/ld-linux-x86-64.so.2" --library-path "\$root/usr/lib/x86_64-linux-gnu" "\$root/usr/bin/$program" $arguments "\$@"
SCRIPT
}

main "$@"
