//! CVE-2020-10749: a container that calls itself a router.
//!
//! A pod sends router advertisements from a raw socket. Whether they are really under way is shown by a listener on the same
//! bridge, an ordinary Linux with its defaults, which falls for them.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd;

use conformance::{Call, Case, Host, Lab, Place, Snapshot, case, layer2, with};
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendto, setsockopt,
    socket, sockopt,
};
use serde_json::{Value, json};

use crate::common::{dual, plain, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(cve_2020_10749_a_rogue_router_is_heard_by_nobody).ours()]
}

/// The prefix that the rogue announces, and that nobody may get an address or a route of.
const PREFIX: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 0);

/// A router advertisement (RFC 4861, section 4.2) that makes its sender the default router, with a prefix to derive
/// addresses from. The kernel fills in the checksum.
fn advertisement() -> Vec<u8> {
    let mut message = vec![134, 0, 0, 0, 64, 0];
    message.extend(1800_u16.to_be_bytes());
    message.extend([0; 8]);
    // Prefix information: 64 bits, on the link, for addresses.
    message.extend([3, 4, 64, 0xc0]);
    message.extend(86_400_u32.to_be_bytes());
    message.extend(14_400_u32.to_be_bytes());
    message.extend([0; 4]);
    message.extend(PREFIX.octets());
    message
}

/// Send an advertisement to all nodes on a link.
fn advertise(from: &Place, interface: &str) {
    from.enter(|| {
        let socket = socket(
            AddressFamily::Inet6,
            SockType::Raw,
            SockFlag::empty(),
            SockProtocol::IcmpV6,
        )
        .expect("a raw socket");
        // Anything below 255 has passed a router and is not believed.
        setsockopt(&socket, sockopt::Ipv6MulticastHops, &255).expect("set the hop limit");
        let index = if_nametoindex(interface).expect("the index of the interface");
        let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
        let to = SockaddrIn6::from(SocketAddrV6::new(all_nodes, 0, 0, index));
        sendto(socket.as_raw_fd(), &advertisement(), &to, MsgFlags::empty())
            .expect("send an advertisement");
    });
}

/// What a place has from the rogue: addresses, and routes over it.
fn advertised_addresses(place: &Place, rogue: &str) -> Vec<String> {
    let facts = Snapshot::of(place);
    let words = ["2001:db8:bad:", rogue];
    words
        .iter()
        .flat_map(|word| facts.mentioning(word))
        .map(str::to_owned)
        .collect()
}

/// The link-local address of an interface.
fn link_local(place: &Place, interface: &str) -> Option<String> {
    let shown = place.ip_json(&format!(
        "-6 addr show dev {interface} scope link -tentative"
    ));
    // An empty object stands for each address that was not asked for.
    let infos = shown[0]["addr_info"].as_array()?;
    infos
        .iter()
        .find_map(|info| Some(info["local"].as_str()?.to_owned()))
}

fn cve_2020_10749_a_rogue_router_is_heard_by_nobody(lab: &Lab) {
    let without_gateway = with(dual(), json!({"isGateway": false}));
    let networks = [dual(), plain(), layer2(), without_gateway];
    for network in networks {
        hear(lab, &network);
    }
}

fn hear(lab: &Lab, network: &Value) {
    let host = Host::new();
    // Also a host that listens although it forwards.
    host.set_sysctl("net.ipv6.conf.default.accept_ra", "2");
    let (rogue, victim) = (host.pod("rogue"), host.pod("victim"));
    let plugin = lab.plugin(&host, "bridge");
    plugin.add(network, &Call::of(&rogue));
    let result = plugin.add(network, &Call::of(&victim));
    let has_ipv6 = victim.addresses("eth0").iter().any(|it| it.contains(':'));
    let listener = host.pod("listener");
    host.ip("link add listener master cni0 type veth peer name eth0 netns listener");
    host.ip("link set listener up");
    listener.ip("link set eth0 up");
    for place in [&rogue, &listener] {
        wait_until(
            &format!("{network}: a link-local address of {}", place.name),
            || link_local(place, "eth0").is_some(),
        );
    }
    let rogue_address = link_local(&rogue, "eth0").expect("it has one by now");
    wait_until("the listener falls for the rogue", || {
        advertise(&rogue, "eth0");
        advertised_addresses(&listener, &rogue_address).len() >= 3
    });
    advertise(&rogue, "eth0");
    // The host's own interfaces hear what the listener hears, at the same time.
    let on_host = advertised_addresses(&host, &rogue_address);
    assert!(on_host.is_empty(), "{network}: the host has {on_host:#?}");
    if has_ipv6 {
        let in_pod = advertised_addresses(&victim, &rogue_address);
        assert!(in_pod.is_empty(), "{network}: a pod has {in_pod:#?}");
    }
    plugin
        .check(network, &result, &Call::of(&victim))
        .succeeded();
}
