//! A small network with a router, and who sees whom in it.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use testbed::Node;

/// A router with a pod behind it and an outside in front of it that has no route back.
pub(crate) struct Scene {
    pub(crate) host: Node,
    pub(crate) pod: Node,
    pub(crate) neighbour: Node,
    pub(crate) outside: Node,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let (host, pod, neighbour, outside) = (Node::new(), Node::new(), Node::new(), Node::new());
        host.sh("ip link add br0 type bridge; ip link set br0 up
            ip addr add 10.1.0.1/24 dev br0; ip addr add fd00:1::1/64 dev br0 nodad
            echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding");
        for (node, name, last) in [(&pod, "pod", 5), (&neighbour, "near", 6)] {
            host.sh(&format!(
                "ip link add {name} type veth peer name eth0 netns {}; ip link set {name} master br0 up",
                node.netns()
            ));
            node.sh(&format!(
                "ip addr add 10.1.0.{last}/24 dev eth0; ip addr add fd00:1::{last}/64 dev eth0 nodad
                 ip link set eth0 up; ip route add default via 10.1.0.1; ip route add default via fd00:1::1"
            ));
        }
        host.sh(&format!(
            "ip link add up0 type veth peer name eth0 netns {}; ip link set up0 up
             ip addr add 192.0.2.1/24 dev up0; ip addr add 2001:db8::1/64 dev up0 nodad
             ip route add 198.51.100.0/24 via 192.0.2.2",
            outside.netns()
        ));
        outside.sh(
            "ip addr add 192.0.2.2/24 dev eth0; ip addr add 2001:db8::2/64 dev eth0 nodad
            ip addr add 198.51.100.2/24 dev eth0; ip link set eth0 up
            ip route add 10.1.0.0/24 via 192.0.2.1; ip route add fd00:1::/64 via 2001:db8::1",
        );
        Self {
            host,
            pod,
            neighbour,
            outside,
        }
    }

    /// The source that `server` sees of packets from the pod to `to`, which is an address of `server`;
    /// none when it sees none of `tries`. A link that has just come up may lose the first ones.
    fn seen_by(&self, server: &Node, to: &str, tries: u32) -> Option<IpAddr> {
        let to: IpAddr = to.parse().unwrap();
        let socket = server.run(move || UdpSocket::bind(SocketAddr::new(to, 7000)).unwrap());
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = self.pod.run(move || UdpSocket::bind(any).unwrap());
        (0..tries).find_map(|_| {
            client.send_to(b"hello", SocketAddr::new(to, 7000)).unwrap();
            socket
                .recv_from(&mut [0; 64])
                .ok()
                .map(|(_, from)| from.ip())
        })
    }

    pub(crate) fn assert_blocked(&self, to: &str) {
        assert_eq!(self.seen_by(&self.outside, to, 3), None, "towards {to}");
    }

    pub(crate) fn assert_seen(&self, server: &Node, to: &str, from: &str) {
        let from: IpAddr = from.parse().unwrap();
        assert_eq!(self.seen_by(server, to, 50), Some(from), "towards {to}");
    }
}
