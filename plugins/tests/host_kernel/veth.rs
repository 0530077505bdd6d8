//! Pairs of virtual Ethernet links.

use nix::errno::Errno;
use plugins::host::rtnl::{LinkChange, NewBridge, NewVeth, PortChange, PortState, VethEnd};

use super::support::{LONG, MAC_A, MAC_B, Needs, Pod, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add("veth_is_complete_when_created", Needs::Root, complete);
    tests.add("veth_without_a_bridge_is_a_plain_pair", Needs::Root, routed);
    tests.add(
        "veth_name_taken_in_the_container_is_said",
        Needs::Root,
        peer_name_taken,
    );
    tests.add(
        "veth_is_finished_by_one_more_request",
        Needs::Root,
        finished_by_one_change,
    );
    tests.add(
        "veth_name_taken_on_the_host_is_said",
        Needs::Root,
        host_name_taken,
    );
    tests.add(
        "veth_that_fails_leaves_nothing",
        Needs::Root,
        leaves_nothing,
    );
}

fn new_veth(pod: &Pod) -> NewVeth<'_> {
    NewVeth {
        host: VethEnd {
            name: "veth0",
            mac: Some(MAC_A),
            mtu: Some(1400),
        },
        alias: Some("trestle:net/id/eth0"),
        master: None,
        up: true,
        peer: VethEnd {
            name: "eth0",
            mac: Some(MAC_B),
            mtu: Some(1400),
        },
        peer_netns: &pod.netns,
    }
}

fn complete(sandbox: &Sandbox) {
    let bridge = sandbox.bridge("br0");
    let pod = Pod::new();
    let new = NewVeth {
        master: Some(bridge),
        ..new_veth(&pod)
    };
    let pair = sandbox.rtnl.create_veth(&new).unwrap();
    let looked_up = sandbox.rtnl.link_by_name("veth0").unwrap().unwrap();
    for host in [&pair.host, &looked_up] {
        assert_eq!((host.mac, host.mtu, host.up), (Some(MAC_A), 1400, true));
        assert_eq!(host.alias.as_deref(), Some("trestle:net/id/eth0"));
        assert_eq!(host.kind.as_deref(), Some("veth"));
        assert_eq!(host.link, Some(pair.peer_index));
        assert_eq!(host.master, Some(bridge));
        assert!(host.link_netnsid.is_some());
    }
    assert_eq!(pair.host.index, looked_up.index);
    let peer = pod.rtnl.link_by_index(pair.peer_index).unwrap().unwrap();
    assert_eq!(
        (peer.name.as_str(), peer.mac, peer.mtu),
        ("eth0", Some(MAC_B), 1400)
    );
    assert!(!peer.up);

    assert!(looked_up.port.is_some() && !looked_up.running);
    pod.up(pair.peer_index);
    let host = sandbox
        .rtnl
        .wait_until_forwarding(pair.host.index, LONG)
        .unwrap();
    assert_eq!(host.port.unwrap().state, PortState::Forwarding);
    assert!(host.running);
}

fn routed(sandbox: &Sandbox) {
    let pod = Pod::new();
    let pair = sandbox
        .rtnl
        .create_veth(&NewVeth {
            up: false,
            ..new_veth(&pod)
        })
        .unwrap();
    let host = sandbox
        .rtnl
        .link_by_index(pair.host.index)
        .unwrap()
        .unwrap();
    assert!(!host.up && host.master.is_none() && host.port.is_none());
}

fn peer_name_taken(sandbox: &Sandbox) {
    let pod = Pod::new();
    let taken = NewBridge {
        name: "eth0",
        ..NewBridge::default()
    };
    pod.rtnl.create_bridge(&taken).unwrap();
    let error = sandbox.rtnl.create_veth(&new_veth(&pod)).unwrap_err();
    assert!(error.already_exists());
    let text = error.to_string();
    assert!(
        text.starts_with("create interface eth0 in /proc/") && text.contains("File exists"),
        "{text}"
    );
    assert_eq!(sandbox.rtnl.link_by_name("veth0").unwrap(), None);
}

fn host_name_taken(sandbox: &Sandbox) {
    sandbox.bridge("veth0");
    let pod = Pod::new();
    let error = sandbox.rtnl.create_veth(&new_veth(&pod)).unwrap_err();
    assert!(error.already_exists());
    assert!(
        error
            .to_string()
            .starts_with("create veth veth0: File exists"),
        "{error}"
    );
    assert_eq!(pod.rtnl.link_by_name("eth0").unwrap(), None);
}

fn leaves_nothing(sandbox: &Sandbox) {
    let pod = Pod::new();
    let elsewhere = Pod::new();
    let not_a_bridge = sandbox.veth("other", None, &elsewhere).host.index;
    let new = NewVeth {
        master: Some(not_a_bridge),
        ..new_veth(&pod)
    };
    let error = sandbox.rtnl.create_veth(&new).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("create veth veth0 with peer eth0 in "),
        "{error}"
    );
    let peer = VethEnd {
        name: "sixteen-bytes-xx",
        ..VethEnd::default()
    };
    let error = sandbox
        .rtnl
        .create_veth(&NewVeth {
            peer,
            ..new_veth(&pod)
        })
        .unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ERANGE), "{error}");
    assert_eq!(sandbox.rtnl.link_by_name("veth0").unwrap(), None);
    assert_eq!(pod.rtnl.links().unwrap().len(), 1, "only lo");
}

fn finished_by_one_change(sandbox: &Sandbox) {
    let bridge = sandbox.bridge("br0");
    let pod = Pod::new();
    let new = NewVeth {
        master: Some(bridge),
        alias: None,
        up: false,
        ..new_veth(&pod)
    };
    let pair = sandbox.rtnl.create_veth(&new).unwrap();
    assert!(!pair.host.up);
    let port = PortChange {
        hairpin: Some(true),
        isolated: Some(true),
        ..PortChange::default()
    };
    let change = LinkChange {
        up: Some(true),
        alias: Some("trestle:net/id/eth0"),
        port: Some(port),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(pair.host.index, &change).unwrap();
    let host = sandbox.rtnl.link_by_name("veth0").unwrap().unwrap();
    assert!(host.up && host.alias.as_deref() == Some("trestle:net/id/eth0"));
    assert_eq!(host.master, Some(bridge));
    let port = host.port.unwrap();
    assert!(port.hairpin && port.isolated && port.learning);
}
