#!/usr/bin/env bash
# test-package.sh [OUT] - installs, upgrades and purges the Debian package of OUT (target/dist unless given) in an empty root of its
# own, and puts lintian to it. Nothing is installed on this machine.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
deb=$(echo "${1:-target/dist}"/trestle_*.deb)
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

fail() { echo "package: $*" >&2; exit 1; }
in_root() { dpkg --root="$root" --force-not-root --force-depends --log=/dev/null "$@" >"$root/log" 2>&1 || fail "$* failed: $(tail -3 "$root/log")"; }

mkdir -p "$root"/var/lib/dpkg/{info,updates} "$root"/etc/cni/net.d "$root"/opt
touch "$root"/var/lib/dpkg/{status,available}
# What the administrator owns, and what a container that runs holds.
echo '{"cniVersion":"1.0.0","name":"mine","plugins":[{"type":"bridge"}]}' >"$root/etc/cni/net.d/10-mine.conflist"
mkdir -p "$root/var/lib/cni/networks/mine"
printf 'c1\r\neth0' >"$root/var/lib/cni/networks/mine/10.88.0.2"
# Maintainer scripts run inside.
install -D "$(readlink -f /bin/sh)" "$root/bin/sh"
for library in $(ldd /bin/sh | grep -o '/[^ ]*'); do install -D "$library" "$root$library"; done
state() { find "$root/etc/cni" "$root/var/lib/cni" -type f -exec sha256sum {} + | sort; }
before=$(state)

in_root --install "$deb"
links=$(stat -c %h "$root/usr/lib/cni/bridge")
names=$("$root/usr/lib/cni/trestle" version | sed -n 's/^plugins: //p' | tr -d ',')
[ "$links" -eq $(($(wc -w <<<"$names") + 1)) ] || fail "bridge has $links links for the names $names"
for name in $names; do
    CNI_COMMAND=VERSION "$root/usr/lib/cni/$name" </dev/null | jq -e '.supportedVersions | index("1.1.0")' >/dev/null ||
        fail "$name does not answer VERSION"
done
[ "$(readlink "$root/usr/bin/trestle")" = ../lib/cni/trestle ] || fail "no trestle in /usr/bin"
[ ! -d "$root/etc/systemd/system/multi-user.target.wants" ] || fail "a unit was enabled"
in_root --install "$deb"
[ "$(state)" = "$before" ] || fail "an upgrade changed what is not the package's"
in_root --purge trestle
[ "$(state)" = "$before" ] || fail "purging changed what is not the package's"
[ ! -d "$root/usr" ] || [ -z "$(find "$root/usr" -type f)" ] || fail "purging left $(find "$root/usr" -type f | head -3)"
lintian --fail-on error --allow-root "$deb"
echo "package: installed, upgraded and purged $(basename "$deb")"
