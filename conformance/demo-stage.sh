#!/usr/bin/env bash
# demo-stage.sh - what the demos share: a throw-away host, and commands that are shown as they run. To be sourced.
#
# The host is a network and a mount namespace that vanish with the script. The binary is in TRESTLE_BIN; PLUGINS=DIR takes the plugins
# of that directory instead.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${TRESTLE_TOOLS:-$root/target/conformance-tools}
stage=/run/demo
PATH=$PATH:/usr/sbin:/sbin

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' off=$'\e[0m'; else bold='' dim='' off=''; fi
step=0
title() { step=$((step + 1)); printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$off"; }
# Indented, and with a line end after the last line.
text() { sed -e 's/^/   /' -e '$a\'; }
show() { printf '   %s# %s%s\n' "$dim" "$*" "$off"; }
servers=()
stop_servers() { [ ${#servers[@]} -eq 0 ] || kill "${servers[@]}"; servers=(); }
fail() { printf '\nThe demo failed in step %d: %s\n' "$step" "$*" >&2; trap - EXIT; stop_servers; exit 1; }

# Show a command, run it, indent what it says, and stop the demo if it fails.
try() {
    show "$@"
    "$@" 2>&1 | text || fail "$*"
}

# enter SCRIPT [inside]: find what is needed, and go on with the script on a host of its own.
enter() {
    if [ "${2:-}" != inside ]; then
        [ "$(id -u)" -eq 0 ] || { echo "The demo makes network namespaces, so it must run as root." >&2; exit 1; }
        [ -n "${PLUGINS:-}" ] || [ -x "${TRESTLE_BIN:-}" ] || { echo "No binary: run make demo." >&2; exit 1; }
        for cnitool in "$tools/cnitool-new/cnitool" "$tools/cnitool-old/cnitool"; do
            [ -x "$cnitool" ] && export CNITOOL="$cnitool" && break
        done
        [ -n "${CNITOOL:-}" ] || { echo "No cnitool: run conformance/tools/obtain.sh, which says why it can't be had." >&2; exit 1; }
        exec unshare --net --uts --mount --propagation private -- bash "$1" inside
    fi
    trap '[ $? -eq 0 ] || fail "see the last lines above"' EXIT
    echo node1 >/proc/sys/kernel/hostname
    mount -t tmpfs tmpfs /run
    mount -t sysfs sysfs /sys
    mkdir -p "$stage/bin" "$stage/net.d" /run/netns
    cp "$CNITOOL" "$stage/cnitool"
    ip link set lo up
}

# The plugins in $stage/bin. From there on nothing of the source tree is needed, and state goes where nobody else's is.
install_plugins() {
    if [ -n "${PLUGINS:-}" ]; then
        cp "$PLUGINS"/{bridge,host-local,loopback} "$stage/bin/"
    else
        show trestle install --bin-dir "$stage/bin"
        "$TRESTLE_BIN" install --bin-dir "$stage/bin" 2>&1 | text || fail "install"
    fi
    mount -t tmpfs tmpfs /var/lib
    cd "$stage" || fail "no $stage"
    export CNI_PATH=$stage/bin NETCONFPATH=$stage/net.d
}

nothing_left() {
    try ip -brief link
    try find /var/lib/cni -type f
    left=$(ip -j link show type veth | jq -r '.[]?.ifname')
    [ -z "$left" ] || fail "interfaces left: $left"
    left=$(find /var/lib/cni -type f ! -name lock ! -name 'last_reserved_ip.*' ! -path '*/.trestle/*/index')
    [ -z "$left" ] || fail "files left: $left"
}
