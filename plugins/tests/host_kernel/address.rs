//! Addresses of links.

use std::time::Duration;

use ipnet::IpNet;
use nix::errno::Errno;
use plugins::host::rtnl::{AddressFlags, AddressOptions, AddressScope, RouteFilter};
use plugins::host::{HostError, Sysctl};

use super::support::{LONG, Needs, Pod, Sandbox, Tests};

const NODAD: AddressOptions = AddressOptions {
    nodad: true,
    noprefixroute: false,
};
const PLAIN: AddressOptions = AddressOptions {
    nodad: false,
    noprefixroute: false,
};

pub(crate) fn add(tests: &mut Tests) {
    tests.add("address_is_listed_for_its_link_alone", Needs::Root, listed);
    tests.add(
        "address_ipv4_gets_its_broadcast_address",
        Needs::Root,
        broadcast,
    );
    tests.add("address_that_exists_is_told_as_such", Needs::Root, exists);
    tests.add("address_can_be_removed_twice", Needs::Root, removed);
    tests.add(
        "address_without_prefix_route_adds_no_route",
        Needs::Root,
        no_prefix_route,
    );
    tests.add(
        "address_ipv6_without_detection_is_usable_at_once",
        Needs::Root,
        usable_at_once,
    );
    tests.add(
        "address_ipv6_where_it_is_switched_off_names_the_remedy",
        Needs::Root,
        switched_off,
    );
    tests.add(
        "address_ipv6_detection_is_waited_for",
        Needs::Root,
        detection,
    );
    tests.add("address_ipv6_duplicate_is_reported", Needs::Root, duplicate);
    tests.add(
        "address_ipv6_detection_wait_is_bounded",
        Needs::Root,
        bounded,
    );
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn listed(sandbox: &Sandbox) {
    let (a, b) = (sandbox.bridge("br0"), sandbox.bridge("br1"));
    sandbox
        .rtnl
        .add_address(a, net("10.1.0.1/24"), PLAIN)
        .unwrap();
    sandbox
        .rtnl
        .add_address(a, net("fd00:1::1/64"), NODAD)
        .unwrap();
    sandbox
        .rtnl
        .add_address(b, net("10.2.0.1/24"), PLAIN)
        .unwrap();
    let global = |link| -> Vec<IpNet> {
        let all = sandbox.rtnl.addresses(link).unwrap();
        all.iter()
            .filter(|a| a.scope == AddressScope::Universe)
            .map(|a| a.net)
            .collect()
    };
    assert_eq!(global(a), [net("10.1.0.1/24"), net("fd00:1::1/64")]);
    assert_eq!(global(b), [net("10.2.0.1/24")]);
    assert_eq!(
        sandbox.rtnl.addresses(4711).unwrap_err().errno(),
        Some(Errno::ENODEV)
    );
    sandbox
        .rtnl
        .add_address(1, net("127.0.0.1/8"), PLAIN)
        .unwrap();
    let lo = sandbox.rtnl.addresses(1).unwrap();
    assert_eq!((lo.len(), lo[0].scope), (1, AddressScope::Host));
}

fn broadcast(sandbox: &Sandbox) {
    let link = sandbox.bridge("br0");
    for (text, expected) in [
        ("10.1.0.1/24", Some([10, 1, 0, 255])),
        ("10.2.0.1/30", Some([10, 2, 0, 3])),
        ("10.3.0.1/31", None),
        ("10.4.0.1/32", None),
    ] {
        sandbox.rtnl.add_address(link, net(text), PLAIN).unwrap();
        let all = sandbox.rtnl.addresses(link).unwrap();
        let added = all.iter().find(|address| address.net == net(text)).unwrap();
        assert_eq!(added.broadcast, expected.map(Into::into), "{text}");
        assert!(added.flags.contains(AddressFlags::Permanent));
    }
}

fn exists(sandbox: &Sandbox) {
    let link = sandbox.bridge("br0");
    for text in ["10.1.0.1/24", "fd00:1::1/64"] {
        sandbox.rtnl.add_address(link, net(text), NODAD).unwrap();
        let error = sandbox
            .rtnl
            .add_address(link, net(text), NODAD)
            .unwrap_err();
        assert!(error.already_exists(), "{error}");
        assert!(
            error
                .to_string()
                .starts_with(&format!("add address {text} to br0: File exists")),
            "{error}"
        );
    }
}

fn removed(sandbox: &Sandbox) {
    let link = sandbox.bridge("br0");
    for text in ["10.1.0.1/24", "fd00:1::1/64"] {
        sandbox.rtnl.add_address(link, net(text), NODAD).unwrap();
        assert!(
            sandbox.rtnl.delete_address(link, net(text)).unwrap(),
            "{text}"
        );
        assert!(
            !sandbox.rtnl.delete_address(link, net(text)).unwrap(),
            "{text}"
        );
        assert!(
            !sandbox.rtnl.delete_address(4711, net(text)).unwrap(),
            "{text}"
        );
    }
}

fn no_prefix_route(sandbox: &Sandbox) {
    let link = sandbox.bridge("br0");
    let routes = |dst| {
        let filter = RouteFilter {
            dst: Some(net(dst)),
            ..RouteFilter::default()
        };
        sandbox.rtnl.routes(&filter).unwrap().len()
    };
    let options = AddressOptions {
        nodad: true,
        noprefixroute: true,
    };
    sandbox
        .rtnl
        .add_address(link, net("10.1.0.1/24"), options)
        .unwrap();
    sandbox
        .rtnl
        .add_address(link, net("fd00:1::1/64"), options)
        .unwrap();
    assert_eq!((routes("10.1.0.0/24"), routes("fd00:1::/64")), (0, 0));
    sandbox
        .rtnl
        .add_address(link, net("10.2.0.1/24"), NODAD)
        .unwrap();
    sandbox
        .rtnl
        .add_address(link, net("fd00:2::1/64"), NODAD)
        .unwrap();
    assert_eq!((routes("10.2.0.0/24"), routes("fd00:2::/64")), (1, 1));
}

fn usable_at_once(sandbox: &Sandbox) {
    let pod = Pod::new();
    let pair = sandbox.veth("veth0", None, &pod);
    pod.rtnl
        .add_address(pair.peer_index, net("fd00:1::2/64"), NODAD)
        .unwrap();
    pod.up(pair.peer_index);
    let all = pod.rtnl.addresses(pair.peer_index).unwrap();
    let added = all
        .iter()
        .find(|address| address.net == net("fd00:1::2/64"))
        .unwrap();
    assert!(!added.is_tentative() && !added.is_duplicate());
    let bound = pod
        .netns
        .enter(|| std::net::UdpSocket::bind("[fd00:1::2]:0"))
        .unwrap();
    assert!(bound.is_ok(), "a socket can be bound to it: {bound:?}");
}

fn detection(sandbox: &Sandbox) {
    let pod = Pod::new();
    let pair = sandbox.veth("veth0", None, &pod);
    pod.up(pair.peer_index);
    pod.rtnl
        .add_address(pair.peer_index, net("fd00:1::2/64"), PLAIN)
        .unwrap();
    pod.rtnl.wait_for_dad(pair.peer_index, LONG).unwrap();
    let all = pod.rtnl.addresses(pair.peer_index).unwrap();
    assert!(all.iter().any(|address| address.net == net("fd00:1::2/64")));
    assert!(all.iter().all(|address| !address.is_tentative()));
}

fn duplicate(sandbox: &Sandbox) {
    let pod = Pod::new();
    let pair = sandbox.veth("veth0", None, &pod);
    pod.up(pair.peer_index);
    sandbox
        .rtnl
        .add_address(pair.host.index, net("fd00:1::2/64"), NODAD)
        .unwrap();
    pod.rtnl
        .add_address(pair.peer_index, net("fd00:1::2/64"), PLAIN)
        .unwrap();
    let error = pod.rtnl.wait_for_dad(pair.peer_index, LONG).unwrap_err();
    assert!(
        matches!(error, HostError::DuplicateAddress { .. }),
        "{error}"
    );
    assert!(
        error
            .to_string()
            .starts_with("add address fd00:1::2/64 to eth0: duplicate"),
        "{error}"
    );
}

fn bounded(sandbox: &Sandbox) {
    let pod = Pod::new();
    let pair = sandbox.veth("veth0", None, &pod);
    // While the link is down, detection does not begin.
    pod.rtnl
        .add_address(pair.peer_index, net("fd00:1::2/64"), PLAIN)
        .unwrap();
    let error = pod
        .rtnl
        .wait_for_dad(pair.peer_index, Duration::from_millis(50))
        .unwrap_err();
    assert!(matches!(error, HostError::Timeout { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "wait for duplicate address detection on eth0: still waiting after 50 ms"
    );
}

fn switched_off(sandbox: &Sandbox) {
    let link = sandbox.bridge("br0");
    Sysctl::ipv6_conf("br0", "disable_ipv6").write("1").unwrap();
    let error = sandbox
        .rtnl
        .add_address(link, net("fd00:1::1/64"), NODAD)
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EACCES), "{error}");
    assert!(error.remedy().unwrap().contains("disable_ipv6"));
}
