#!/usr/bin/env bash
# demo-services.sh - a Service and its client on one node, without and with bridge netfilter, and how trestle names what is wrong.
#
# It is the picture of docs/service-traffic.md, live, on a throw-away host. Run it by `make demo-services`, or give the binary in
# TRESTLE_BIN. It fails where what it tells is not what happens.
set -euo pipefail
# shellcheck source=demo-stage.sh
source "$(dirname "${BASH_SOURCE[0]}")/demo-stage.sh"
bridge_nf=/proc/sys/net/bridge/bridge-nf-call-iptables
[ -e "$bridge_nf" ] || { echo "This kernel has no bridge netfilter (modprobe br_netfilter), and that is what is shown." >&2; exit 1; }
unset PLUGINS
enter "${BASH_SOURCE[0]}" "${1:-}"

cat <<'TEXT'

A Service has an address that no machine has. Rules of the host replace it by that of a pod, and
the pod's by the Service's again in the answer. Which goes wrong where the answer never meets them.
TEXT

# A program that must end with this status, which is not 0, and what it says in $stage/said.
expect() {
    local status=0 wanted=$1
    shift
    show "$@"
    "$@" >said 2>&1 || status=$?
    [ "$status" -eq "$wanted" ] || fail "$* ended with status $status instead of $wanted: $(cat said)"
}
says() { grep -q -- "$1" said || fail "not a word of $1: $(cat said)"; }

title "kube-proxy's rules for the Service 10.96.0.10, and the one pod behind it, 10.200.5.2"
cat >"$stage/kube-proxy.rules" <<'TEXT'
*nat
:KUBE-SERVICES - [0:0]
:KUBE-SEP-DNS - [0:0]
-I PREROUTING -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.96.0.10/32 -p udp --dport 53 -j KUBE-SEP-DNS
-A KUBE-SEP-DNS -p udp -j DNAT --to-destination 10.200.5.2:53
COMMIT
TEXT
install_plugins >/dev/null
ln -s bin/trestle trestle
grep -e '^-A' kube-proxy.rules | text
iptables-restore --noflush kube-proxy.rules || fail "load the rules"

title "A network without bridge netfilter, as a fresh machine is, and a pod for server and client each"
sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0
cat >net.d/service.conflist <<'TEXT'
{
  "cniVersion": "1.0.0",
  "name": "service",
  "plugins": [
    {
      "type": "bridge",
      "isDefaultGateway": true,
      "hairpinMode": true,
      "ipMasq": true,
      "bridgeNetfilter": "off",
      "ipam": { "type": "host-local", "ranges": [[{ "subnet": "10.200.5.0/24" }]] }
    }
  ]
}
TEXT
cat net.d/service.conflist | text
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

title "The client asks the Service, and hears from a stranger"
expect 1 ip netns exec client perl ask.pl 10.96.0.10
says 'answered by 10.200.5.2'
text <said
echo "   From port to port of the bridge the answer took the short way, past the rules."

title "trestle trace follows a packet there and back, and sees it happen"
expect 2 ./trestle trace /run/netns/client 10.96.0.10:53 --conf-dir net.d
says 'answer-untranslated'
sed -n '/^back/,$p' said | text

title "trestle doctor finds it without a packet"
expect 2 ./trestle doctor --conf-dir net.d
says 'bridge-netfilter-off'
text <said

title "So: bridge netfilter, which trestle switches on for every gateway unless told not to"
sed -i '/"bridgeNetfilter": "off"/d' net.d/service.conflist
show "./cnitool del and add service /run/netns/client, without \"bridgeNetfilter\": \"off\""
./cnitool del service /run/netns/client || fail "DEL of client"
./cnitool add service /run/netns/client >client.json || fail "ADD of client"
try cat "$bridge_nf"

title "The Service answers"
try ip netns exec client perl ask.pl 10.96.0.10
try ./trestle trace /run/netns/client 10.96.0.10:53 --conf-dir net.d
try ./trestle doctor --conf-dir net.d

title "The world, which has no route to any pod, sees the host; the rules say whom they are for"
ip netns add world
ip link add up0 type veth peer name eth0 netns world
ip addr add 198.51.100.2/24 dev up0
ip -n world addr add 198.51.100.1/24 dev eth0
ip link set up0 up
ip -n world link set eth0 up
ip netns exec world perl serve.pl &
servers+=($!)
expect 0 ip netns exec client perl ask.pl 198.51.100.1
says 'I see you as 198.51.100.2'
text <said
try nft list table inet trestle

title "DEL: and the rules have gone with the last pod"
stop_servers
ip link del up0
for pod in client server; do
    try ./cnitool del service "/run/netns/$pod"
done
nothing_left
left=$(nft list ruleset 2>/dev/null | grep trestle || true)
[ -z "$left" ] || fail "rules left: $left"

printf '\n%sThat was all.%s The throw-away host is gone when this line is.\n' "$bold" "$off"
