#!/usr/bin/env bash
# demo.sh - two containers on a bridge, attached by cnitool through trestle, step by step; then a Service on one node.
#
# It happens on a throw-away host: a network and a mount namespace that vanish with this script. Run it by
# `make demo`, or give the binary in TRESTLE_BIN. PLUGINS=DIR shows the same with the plugins of that directory.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tools=${TRESTLE_TOOLS:-$root/target/conformance-tools}
stage=/run/demo
PATH=$PATH:/usr/sbin:/sbin

if [ -t 1 ]; then bold=$'\e[1m' dim=$'\e[2m' off=$'\e[0m'; else bold='' dim='' off=''; fi
step=0
title() { step=$((step + 1)); printf '\n%s%d. %s%s\n' "$bold" "$step" "$*" "$off"; }
# Indented, and with a line end after the last line.
text() { sed -e 's/^/   /' -e '$a\'; }
servers=()
stop_servers() { [ ${#servers[@]} -eq 0 ] || kill "${servers[@]}"; servers=(); }
fail() { printf '\nThe demo failed in step %d: %s\n' "$step" "$*" >&2; trap - EXIT; stop_servers; exit 1; }

# Show a command, run it, indent what it says, and stop the demo if it fails.
try() {
    printf '   %s# %s%s\n' "$dim" "$*" "$off"
    "$@" 2>&1 | text || fail "$*"
}

# The first half finds what is needed and goes on in namespaces of its own.
if [ "${1:-}" != inside ]; then
    [ "$(id -u)" -eq 0 ] || { echo "The demo makes network namespaces, so it must run as root." >&2; exit 1; }
    [ -n "${PLUGINS:-}" ] || [ -x "${TRESTLE_BIN:-}" ] || { echo "No binary: run make demo." >&2; exit 1; }
    for cnitool in "$tools/cnitool-new/cnitool" "$tools/cnitool-old/cnitool"; do
        [ -x "$cnitool" ] && export CNITOOL="$cnitool" && break
    done
    [ -n "${CNITOOL:-}" ] || { echo "No cnitool: run conformance/tools/obtain.sh, which says why it can't be had." >&2; exit 1; }
    exec unshare --net --mount --propagation private -- bash "${BASH_SOURCE[0]}" inside
fi

trap '[ $? -eq 0 ] || fail "see the last lines above"' EXIT

mount -t tmpfs tmpfs /run
mkdir -p "$stage/bin" "$stage/net.d" /run/netns
cp "$CNITOOL" "$stage/cnitool"
cp "$root/cni-conf/net.d/20-dual-stack.conflist" "$stage/net.d/"
ip link set lo up

cat <<'TEXT'

What happens when a container runtime starts a container? It makes a network namespace, reads a network
configuration and runs the plugins that this names, with ADD. Here cnitool plays the runtime.
TEXT

title "Install: one binary, linked under the name of every plugin"
if [ -n "${PLUGINS:-}" ]; then
    cp "$PLUGINS"/{bridge,host-local,loopback} "$stage/bin/"
else
    try "$TRESTLE_BIN" install --bin-dir "$stage/bin"
fi
# From here on nothing of the source tree is needed, and state goes where nobody else's is.
mount -t tmpfs tmpfs /var/lib
cd "$stage"
try ls -li bin

title "Configure: a bridge with an IPv4 and an IPv6 subnet"
try cat net.d/20-dual-stack.conflist

title "Two containers, which so far are two empty network namespaces"
try ip netns add blue
try ip netns add green
try ip -n blue -brief link

export CNI_PATH=$stage/bin NETCONFPATH=$stage/net.d
title "ADD: attach them; each result says which interfaces were made and which addresses they have"
try ./cnitool add dual-stack /run/netns/blue
printf '   %s# ./cnitool add dual-stack /run/netns/green%s\n' "$dim" "$off"
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
printf '   %s# ./cnitool check dual-stack /run/netns/green%s\n' "$dim" "$off"
if ./cnitool check dual-stack /run/netns/green >check.log 2>&1; then fail "CHECK should have noticed"; fi
text <check.log

title "DEL: detach them; a second time is fine, runtimes do that"
for pod in blue green blue; do
    try ./cnitool del dual-stack "/run/netns/$pod"
done

nothing_left() {
    try ip -brief link
    try find /var/lib/cni -type f
    left=$(ip -j link show type veth | jq -r '.[]?.ifname')
    [ -z "$left" ] || fail "interfaces left: $left"
    left=$(find /var/lib/cni -type f ! -name lock ! -name 'last_reserved_ip.*' ! -path '*/.trestle/*/index')
    [ -z "$left" ] || fail "files left: $left"
}
title "Nothing is left but the bridge, for the next container"
nothing_left

# A Service needs more of the host than its bridge.
bridge_nf=/proc/sys/net/bridge/bridge-nf-call-iptables
if [ -n "${PLUGINS:-}" ] || [ ! -e "$bridge_nf" ]; then
    printf '\n%sThat was all.%s A Service on one node is shown with trestle, where br_netfilter is loaded.\n' "$bold" "$off"
    exit 0
fi

title "A Service: kube-proxy's rules for the virtual address 10.96.0.10 and the one pod behind it"
cat >kube-proxy.rules <<'TEXT'
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-DNS - [0:0]
:KUBE-SEP-DNS - [0:0]
-I PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp --dport 53 -j KUBE-SVC-DNS
-A KUBE-SVC-DNS -j KUBE-SEP-DNS
-A KUBE-SEP-DNS -p udp -j DNAT --to-destination 10.200.5.2:53
COMMIT
TEXT
try cat kube-proxy.rules
try iptables-restore --noflush kube-proxy.rules

title "Without bridge netfilter: server and client on one bridge, as on many a fresh machine"
cat >net.d/service.conflist <<'TEXT'
{
  "cniVersion": "1.0.0",
  "name": "service",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni1",
      "isDefaultGateway": true,
      "ipMasq": true,
      "bridgeNetfilter": "off",
      "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.200.5.0/24" }]] }
    }
  ]
}
TEXT
try sh -c "echo 0 >$bridge_nf"
try cat net.d/service.conflist
# Both insist on UDP without connect(2), so that an answer from elsewhere arrives and can be shown.
cat >serve.pl <<'TEXT'
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(Proto => "udp", LocalPort => 53) or die "bind: $!";
while (my $peer = $socket->recv(my $question, 512)) {
    my ($port, $address) = unpack_sockaddr_in($peer);
    $socket->send("I see you as " . inet_ntoa($address), 0, $peer);
}
TEXT
cat >ask.pl <<'TEXT'
use IO::Socket::INET;
my $socket = IO::Socket::INET->new(Proto => "udp");
for (1 .. 5) {    # the server may be starting still
    $socket->send("who am I?", 0, pack_sockaddr_in(53, inet_aton($ARGV[0])));
    vec(my $readable = "", fileno $socket, 1) = 1;
    next unless select($readable, undef, undef, 1);
    my $peer = $socket->recv(my $answer, 512) or next;
    my ($port, $address) = unpack_sockaddr_in($peer);
    print "asked $ARGV[0], answered by ", inet_ntoa($address), ": $answer\n";
    exit(inet_ntoa($address) eq $ARGV[0] ? 0 : 1);
}
die "asked $ARGV[0]: no answer\n";
TEXT
for pod in server client; do
    ip netns add "$pod"
    try sh -c "./cnitool add service /run/netns/$pod | jq -c '.ips[]'"
done
ip netns exec server perl serve.pl &
servers+=($!)
printf '   %s# ip netns exec client perl ask.pl 10.96.0.10%s\n' "$dim" "$off"
if ip netns exec client perl ask.pl 10.96.0.10 >ask.log 2>&1; then fail "the answer should have taken the short way"; fi
text <ask.log
grep -q 'answered by 10.200.5.2' ask.log || fail "an answer from the pod's own address was expected"
echo "   The answer took the short way, from port to port, and met no rule that would have translated it back."

title "With bridge netfilter: what trestle does for every gateway unless told not to"
sed -i '/"bridgeNetfilter": "off"/d' net.d/service.conflist
printf '   %s# ./cnitool del and add service /run/netns/client, without "bridgeNetfilter": "off"%s\n' "$dim" "$off"
./cnitool del service /run/netns/client || fail "DEL of client"
./cnitool add service /run/netns/client >client.json || fail "ADD of client"
try cat "$bridge_nf"
try ip netns exec client perl ask.pl 10.96.0.10

title "The outside, which has no route to any container, sees the host; the rules say whom they are for"
ip netns add world
ip link add up0 type veth peer name eth0 netns world
ip addr add 198.51.100.2/24 dev up0
ip -n world addr add 198.51.100.1/24 dev eth0
ip link set up0 up
ip -n world link set eth0 up
ip netns exec world perl serve.pl &
servers+=($!)
try ip netns exec client perl ask.pl 198.51.100.1
try nft list table inet trestle

title "DEL: and the rules have gone with the last container"
stop_servers
ip link del up0
for pod in client server; do
    try ./cnitool del service "/run/netns/$pod"
done
nothing_left
left=$(nft list ruleset 2>/dev/null | grep trestle || true)
[ -z "$left" ] || fail "rules left: $left"

printf '\n%sThat was all.%s The throw-away host is gone when this line is.\n' "$bold" "$off"
