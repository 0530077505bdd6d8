//! Finding, changing and deleting links.

use nix::errno::Errno;
use plugins::host::rtnl::LinkChange;

use super::support::{MAC_A, Needs, Pod, Sandbox, Tests, new_netns};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "link_that_does_not_exist_is_none",
        Needs::Root,
        unknown_links,
    );
    tests.add("link_loopback_is_told_as_such", Needs::Root, loopback);
    tests.add("link_changes_go_in_one_request", Needs::Root, changes);
    tests.add(
        "link_that_is_gone_is_named_in_the_error",
        Needs::Root,
        change_of_missing_link,
    );
    tests.add("link_can_be_deleted_twice", Needs::Root, delete_twice);
    tests.add("link_is_found_by_kind_and_alias", Needs::Root, by_alias);
    tests.add("link_can_be_moved_to_another_namespace", Needs::Root, moves);
}

fn unknown_links(sandbox: &Sandbox) {
    for name in [
        "nobody",
        "",
        "sixteen-bytes-xx",
        &"long".repeat(100),
        "lo\0x",
    ] {
        assert_eq!(sandbox.rtnl.link_by_name(name).unwrap(), None, "{name:?}");
        assert!(!sandbox.rtnl.has_link(name).unwrap(), "{name:?}");
        assert!(!sandbox.rtnl.delete_link_by_name(name).unwrap(), "{name:?}");
    }
    for index in [0, 4711] {
        assert_eq!(sandbox.rtnl.link_by_index(index).unwrap(), None);
        assert!(!sandbox.rtnl.delete_link(index).unwrap());
    }
}

fn loopback(sandbox: &Sandbox) {
    let lo = sandbox.rtnl.link_by_name("lo").unwrap().unwrap();
    assert!(lo.loopback && !lo.up && lo.index == 1 && lo.mtu == 65536);
    assert_eq!(lo.kind, None);
    assert!(sandbox.rtnl.has_link("lo").unwrap());
    // A socket is asked about its own namespace, wherever the thread is.
    let pod = Pod::new();
    assert!(!pod.rtnl.has_link("eth0").unwrap());
    sandbox.veth("veth0", None, &pod);
    assert!(pod.rtnl.has_link("eth0").unwrap() && !sandbox.rtnl.has_link("eth0").unwrap());
    sandbox
        .rtnl
        .set_link(
            1,
            &LinkChange {
                up: Some(true),
                ..LinkChange::default()
            },
        )
        .unwrap();
    assert!(sandbox.rtnl.link_by_index(1).unwrap().unwrap().up);
}

fn changes(sandbox: &Sandbox) {
    let pod = Pod::new();
    let pair = sandbox.veth("veth0", None, &pod);
    let index = pair.host.index;
    sandbox
        .rtnl
        .set_link(
            index,
            &LinkChange {
                up: Some(false),
                ..LinkChange::default()
            },
        )
        .unwrap();
    let change = LinkChange {
        up: Some(true),
        mtu: Some(1400),
        mac: Some(MAC_A),
        promisc: Some(true),
        allmulti: Some(true),
        tx_queue_len: Some(123),
        alias: Some("whose: ours"),
        name: Some("renamed"),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(index, &change).unwrap();
    let link = sandbox.rtnl.link_by_index(index).unwrap().unwrap();
    assert_eq!(
        (
            link.name.as_str(),
            link.mtu,
            link.mac,
            link.tx_queue_len,
            link.alias.as_deref()
        ),
        ("renamed", 1400, Some(MAC_A), 123, Some("whose: ours"))
    );
    assert!(link.up && link.promisc && link.allmulti);

    let undo = LinkChange {
        promisc: Some(false),
        alias: Some(""),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(index, &undo).unwrap();
    let link = sandbox.rtnl.link_by_index(index).unwrap().unwrap();
    assert!(link.up && !link.promisc && link.allmulti && link.mtu == 1400);
    assert_eq!(link.alias, None);
}

fn change_of_missing_link(sandbox: &Sandbox) {
    let change = LinkChange {
        up: Some(true),
        mtu: Some(1400),
        ..LinkChange::default()
    };
    let error = sandbox.rtnl.set_link(4711, &change).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENODEV));
    assert!(error.not_found());
    assert_eq!(
        error.to_string(),
        "set up, mtu 1400 on link with index 4711: No such device"
    );

    let index = sandbox.bridge("br0");
    let change = LinkChange {
        mtu: Some(10_000_000),
        ..LinkChange::default()
    };
    let error = sandbox.rtnl.set_link(index, &change).unwrap_err();
    // The text in parentheses is the kernel's own.
    assert_eq!(
        error.to_string(),
        "set mtu 10000000 on br0: Invalid argument (mtu greater than device maximum)"
    );
}

fn delete_twice(sandbox: &Sandbox) {
    let pod = Pod::new();
    let pair = sandbox.veth("veth0", None, &pod);
    assert!(sandbox.rtnl.delete_link(pair.host.index).unwrap());
    assert!(!sandbox.rtnl.delete_link(pair.host.index).unwrap());
    assert_eq!(
        pod.rtnl.link_by_name("eth0").unwrap(),
        None,
        "the peer goes with it"
    );
    sandbox.bridge("br0");
    assert!(sandbox.rtnl.delete_link_by_name("br0").unwrap());
    assert!(!sandbox.rtnl.delete_link_by_name("br0").unwrap());
}

fn by_alias(sandbox: &Sandbox) {
    let bridge = sandbox.bridge("br0");
    for (number, alias) in ["trestle:net/a/eth0", "trestle:net/b/eth0", "other"]
        .iter()
        .enumerate()
    {
        let index = sandbox.lone_veth(&format!("veth{number}"), None);
        let change = LinkChange {
            alias: Some(alias),
            ..LinkChange::default()
        };
        sandbox.rtnl.set_link(index, &change).unwrap();
    }
    let change = LinkChange {
        alias: Some("trestle:net"),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(bridge, &change).unwrap();
    let names = |prefix| -> Vec<String> {
        let links = sandbox.rtnl.links_with_alias("veth", prefix).unwrap();
        links.into_iter().map(|link| link.name).collect()
    };
    assert_eq!(names("trestle:net/"), ["veth0", "veth1"]);
    assert_eq!(names("trestle:net/b/"), ["veth1"]);
    assert!(names("nothing").is_empty());
    assert!(
        sandbox
            .rtnl
            .links_of_kind("no-such-kind")
            .unwrap()
            .is_empty()
    );
    assert_eq!(sandbox.rtnl.links_of_kind("bridge").unwrap().len(), 1);
    assert!(sandbox.rtnl.links().unwrap().len() >= 5);
}

fn moves(sandbox: &Sandbox) {
    let pod = Pod::new();
    let pair = sandbox.veth("veth0", None, &pod);
    let target = new_netns();
    let change = LinkChange {
        netns: Some(&target),
        name: Some("net1"),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(pair.host.index, &change).unwrap();
    assert_eq!(sandbox.rtnl.link_by_name("veth0").unwrap(), None);
    let rtnl = plugins::host::Rtnl::in_netns(&target).unwrap();
    assert!(rtnl.link_by_name("net1").unwrap().is_some());
}
