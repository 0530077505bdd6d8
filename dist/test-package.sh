#!/usr/bin/env bash
# test-package.sh [OUT] - installs, upgrades and purges the Debian package of OUT (target/dist unless given) in an empty root of its
# own, beside a container that runs, and puts lintian to it. Nothing is installed on this machine, and the container is in namespaces that
# vanish with this script.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=$(realpath "${1:-target/dist}")
if [ "${2:-}" != inside ]; then
    exec unshare --net --mount --propagation private -- bash "${BASH_SOURCE[0]}" "$out" inside
fi
deb=$(echo "$out"/trestle_*.deb)
work=$(mktemp -d)
root=$work/root
trap 'rm -rf "$work"' EXIT

fail() { echo "package: $*" >&2; exit 1; }
in_root() {
    dpkg --root="$root" --force-not-root --log=/dev/null "$@" >"$work/log" 2>&1 || fail "$* failed: $(tail -5 "$work/log")"
}
# package NAME VERSION [FIELD...]: an empty one, or one of the directory $work/NAME if that exists.
package() {
    local directory=$work/$1
    mkdir -p "$directory/DEBIAN"
    printf '%s\n' "Package: $1" "Version: $2" "Architecture: all" "Maintainer: nobody <nobody@trestle.example>" "Description: test" "${@:3}" \
        >"$directory/DEBIAN/control"
    dpkg-deb --root-owner-group --build "$directory" "$work/$1.deb" >"$work/log"
}

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

# The Go plugins' package is replaced, and what needs it is content.
mkdir -p "$work/containernetworking-plugins/usr/lib/cni"
echo theirs >"$work/containernetworking-plugins/usr/lib/cni/bridge"
package containernetworking-plugins 1.1.1+ds1-3
package runtime 1 "Depends: containernetworking-plugins (>= 0.9)"
in_root --install "$work/containernetworking-plugins.deb" "$work/runtime.deb"
in_root --auto-deconfigure --install "$deb"
in_root --configure --pending
installed() { dpkg-query --admindir="$root/var/lib/dpkg" --show --showformat '${db:Status-Status}' "$1" 2>/dev/null || true; }
[ "$(installed containernetworking-plugins)" != installed ] || fail "two packages have /usr/lib/cni/bridge"
[ "$(installed runtime)" = installed ] || fail "a package that needs containernetworking-plugins is $(installed runtime)"

links=$(stat -c %h "$root/usr/lib/cni/bridge")
names=$("$root/usr/lib/cni/trestle" version | sed -n 's/^plugins: //p' | tr -d ',')
[ "$links" -eq $(($(wc -w <<<"$names") + 1)) ] || fail "bridge has $links links for the names $names"
for name in $names; do
    CNI_COMMAND=VERSION "$root/usr/lib/cni/$name" </dev/null | jq -e '.supportedVersions | index("1.1.0")' >/dev/null ||
        fail "$name does not answer VERSION"
done
[ "$(readlink "$root/usr/bin/trestle")" = ../lib/cni/trestle ] || fail "no trestle in /usr/bin"
for unit in dist/systemd/*; do
    [ -n "$(find "$root/lib/systemd" "$root/usr/lib/systemd" -name "${unit##*/}" 2>/dev/null)" ] || fail "no unit ${unit##*/}"
done
for page in trestle trestle-doctor trestle-gc; do
    [ -f "$root/usr/share/man/man1/$page.1.gz" ] || fail "no man page $page"
done
[ -f "$root/usr/share/doc/trestle/examples/networkd/10-trestle.network" ] || fail "no drop-ins among the examples"
[ ! -d "$root/etc/systemd/system/multi-user.target.wants" ] || fail "a unit was enabled"

# A container that the old version attached, and the new one finds: its interface, its address and its way out.
mount -t tmpfs tmpfs /run
mkdir -p /run/netns
ip link set lo up
ip netns add pod
call() {
    CNI_COMMAND=$1 CNI_CONTAINERID=pod CNI_NETNS=/run/netns/pod CNI_IFNAME=eth0 CNI_PATH=$root/usr/lib/cni "$root/usr/lib/cni/bridge" <<CONF
{"cniVersion": "1.0.0", "name": "live", "type": "bridge", "isGateway": true, "ipMasq": true, "prevResult": ${2:-null},
 "ipam": {"type": "host-local", "dataDir": "$work/data", "ranges": [[{"subnet": "10.89.0.0/24"}]]}}
CONF
}
result=$(call ADD) || fail "ADD: $result"
answers() { ip netns exec pod ping -n -q -c 1 -W 2 10.89.0.1 >/dev/null || fail "the container does not reach its gateway $1"; }
answers "after ADD"
rules=$(nft list ruleset)
dpkg-deb --raw-extract "$deb" "$work/newer"
sed -i 's/^Version: .*/&+newer/' "$work/newer/DEBIAN/control"
dpkg-deb --root-owner-group --build "$work/newer" "$work/newer.deb" >"$work/log"
in_root --install "$work/newer.deb"
answers "after an upgrade"
[ "$(nft list ruleset)" = "$rules" ] || fail "an upgrade changed rules"
said=$(call CHECK "$result") || fail "CHECK after an upgrade: $said"
[ "$(state)" = "$before" ] || fail "an upgrade changed what is not the package's"
said=$(call DEL "$result") || fail "DEL after an upgrade: $said"
[ "$(ip -n pod -json link | jq length)" -eq 1 ] || fail "DEL after an upgrade left an interface"

in_root --purge runtime
in_root --purge trestle
[ "$(state)" = "$before" ] || fail "purging changed what is not the package's"
[ ! -d "$root/usr" ] || [ -z "$(find "$root/usr" -type f)" ] || fail "purging left $(find "$root/usr" -type f | head -3)"
lintian --fail-on error --allow-root "$deb"
echo "package: installed, upgraded and purged $(basename "$deb")"
