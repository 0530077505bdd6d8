#!/usr/bin/env bash
# demo.sh - two containers on a bridge, attached by cnitool through trestle, step by step.
#
# It happens on a throw-away host. Run it by `make demo`, or give the binary in TRESTLE_BIN. PLUGINS=DIR shows the same with the
# plugins of that directory.
set -euo pipefail
# shellcheck source=demo-stage.sh
source "$(dirname "${BASH_SOURCE[0]}")/demo-stage.sh"
enter "${BASH_SOURCE[0]}" "${1:-}"
cp "$root/cni-conf/net.d/20-dual-stack.conflist" "$stage/net.d/"

cat <<'TEXT'

What happens when a container runtime starts a container? It makes a network namespace, reads a network
configuration and runs the plugins that this names, with ADD. Here cnitool plays the runtime.
TEXT

title "Install: one binary, linked under the name of every plugin"
install_plugins
try ls -li bin

title "Configure: a bridge with an IPv4 and an IPv6 subnet"
try cat net.d/20-dual-stack.conflist

title "Two containers, which so far are two empty network namespaces"
try ip netns add blue
try ip netns add green
try ip -n blue -brief link

title "ADD: attach them; each result says which interfaces were made and which addresses they have"
try ./cnitool add dual-stack /run/netns/blue
show ./cnitool add dual-stack /run/netns/green
./cnitool add dual-stack /run/netns/green >green.json || fail "ADD of green"
jq -r '.ips[].address' green.json | text

title "What the container sees: an interface, its addresses, its routes"
try ip -n blue -brief addr
try ip -n blue route
try ip -n blue -6 route show default

title "What the host sees: the bridge and a veth per container; the alias says whose it is"
try ip -brief addr
try ip link show type veth

title "They talk: both ways, both families, the moment ADD has returned"
address() { ip -n "$1" -j "-$2" addr show dev eth0 | jq -r '[.[0].addr_info[] | select(.scope == "global")][0].local'; }
for family in 4 6; do
    try ip netns exec blue ping -n -c 2 -i 0.2 -W 2 "$(address green $family)"
    try ip netns exec green ping -n -c 2 -i 0.2 -W 2 "$(address blue $family)"
done

title "CHECK: is everything still as ADD left it?"
try ./cnitool check dual-stack /run/netns/blue
try ./cnitool check dual-stack /run/netns/green
echo "   Yes. And after someone takes the address away:"
try ip -n green addr flush dev eth0
show ./cnitool check dual-stack /run/netns/green
if ./cnitool check dual-stack /run/netns/green >check.log 2>&1; then fail "CHECK should have noticed"; fi
text <check.log

title "DEL: detach them; a second time is fine, runtimes do that"
for pod in blue green blue; do
    try ./cnitool del dual-stack "/run/netns/$pod"
done

title "Nothing is left but the bridge, for the next container"
nothing_left

printf '\n%sThat was all.%s The throw-away host is gone when this line is. `make demo-services` shows a Service.\n' "$bold" "$off"
