//! Masquerade by the iptables commands.

use ipnet::IpNet;
use plugins::attach::masquerade::{self, Backend, Masquerade};

use crate::Case;
use crate::masquerade::{add, gc, list, owner};
use crate::node::Node;
use crate::scene::Scene;

pub(crate) const CASES: &[Case] = &[
    case("iptables_masquerades_like_nftables_does", traffic),
    case("iptables_leaves_nothing_behind", leaves_nothing),
    case("iptables_chains_are_made_once", twice),
    case("iptables_chains_are_collected_by_owner", collected),
    case("iptables_check_tells_what_is_missing", checked),
    case("foreign_nat_rules_are_left_alone", foreign),
    case("simultaneous_dels_with_iptables_succeed", simultaneous),
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &["iptables", "ip6tables", "nft", "ip"],
        run,
    }
}

fn nets(list: &[&str]) -> Vec<IpNet> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn with_wanted<T>(
    container: &str,
    addresses: &[&str],
    exempt: &[&str],
    work: impl FnOnce(&Masquerade<'_>) -> T,
) -> T {
    work(&Masquerade {
        owner: &owner("podnet", container),
        addresses: &nets(addresses),
        non_masquerade: &nets(exempt),
        backend: Backend::Iptables,
    })
}

fn add_old(container: &str, addresses: &[&str], exempt: &[&str]) {
    with_wanted(container, addresses, exempt, |wanted| {
        masquerade::ensure(wanted, &Vec::new)
    })
    .unwrap();
}

fn del(container: &str) {
    masquerade::remove(&owner("podnet", container)).unwrap();
}

/// The rules of both nat tables.
fn rules(node: &Node) -> String {
    node.sh("iptables -t nat -S | grep -v ^-P || true; ip6tables -t nat -S | grep -v ^-P || true")
}

fn traffic() {
    let scene = Scene::new();
    scene.host.run(|| {
        add_old(
            "abc",
            &["10.1.0.5/24", "fd00:1::5/64"],
            &["198.51.100.0/24"],
        )
    });
    scene.assert_seen(&scene.outside, "192.0.2.2", "192.0.2.1");
    scene.assert_seen(&scene.outside, "2001:db8::2", "2001:db8::1");
    scene.assert_seen(&scene.neighbour, "10.1.0.6", "10.1.0.5");
    scene.assert_seen(&scene.neighbour, "fd00:1::6", "fd00:1::5");
    scene.assert_seen(&scene.outside, "198.51.100.2", "10.1.0.5");
    scene.host.run(|| del("abc"));
    scene.assert_seen(&scene.outside, "192.0.2.2", "10.1.0.5");
}

fn leaves_nothing() {
    let node = Node::new();
    node.run(|| {
        add_old("a", &["10.1.0.2/24", "fd00::2/64"], &[]);
        add_old("b", &["10.1.0.3/24"], &[]);
        assert_eq!(list("podnet").len(), 3);
        del("a");
        assert_eq!(list("podnet").len(), 1);
    });
    assert!(rules(&node).contains("podnet/b/eth0"));
    node.run(|| {
        del("b");
        del("b");
    });
    assert_eq!(rules(&node), "");
}

fn twice() {
    let node = Node::new();
    node.run(|| add_old("a", &["10.1.0.2/24"], &[]));
    let before = rules(&node);
    node.run(|| add_old("a", &["10.1.0.2/24"], &[]));
    assert_eq!(rules(&node), before);
    assert_eq!(before.matches("POSTROUTING").count(), 1, "{before}");
}

fn collected() {
    let node = Node::new();
    node.run(|| {
        add_old("a", &["10.1.0.2/24"], &[]);
        add_old("b", &["10.1.0.3/24", "fd00::3/64"], &[]);
        add("podnet", "c", &["10.1.0.4/24"]).unwrap();
        assert_eq!(list("podnet").len(), 4);
        assert_eq!(gc("other", &[]), []);
        let removed = gc("podnet", &[("a", "eth0")]);
        let mut owners: Vec<_> = removed.iter().map(|kept| kept.owner.as_str()).collect();
        owners.sort_unstable();
        assert_eq!(owners, ["podnet/b/eth0", "podnet/b/eth0", "podnet/c/eth0"]);
        assert_eq!(list("podnet").len(), 1);
        gc("podnet", &[]);
    });
    assert_eq!(rules(&node), "");
}

fn checked() {
    let node = Node::new();
    let check =
        || with_wanted("a", &["10.1.0.2/24", "fd00::2/64"], &[], masquerade::check).unwrap();
    node.run(move || {
        assert_eq!(check().len(), 2);
        add_old("a", &["10.1.0.2/24", "fd00::2/64"], &[]);
        assert_eq!(check(), Vec::<String>::new());
    });
    node.sh("ip6tables -t nat -F POSTROUTING");
    let differences = node.run(check);
    assert!(
        differences[0].contains("fd00::2 is not masqueraded"),
        "{differences:?}"
    );
}

fn foreign() {
    let node = Node::new();
    node.sh("iptables -t nat -N KUBE-POSTROUTING; iptables -t nat -A POSTROUTING -m comment --comment \"a b\" -j KUBE-POSTROUTING
        iptables -t nat -N CNI-0123456789abcdef01234567; iptables -t nat -A POSTROUTING -s 10.9.0.1 -j CNI-0123456789abcdef01234567");
    let before = rules(&node);
    node.run(|| add_old("a", &["10.1.0.2/24"], &[]));
    let listing = rules(&node);
    let last = listing.lines().rfind(|line| line.contains("POSTROUTING"));
    assert!(
        last.is_some_and(|line| line.contains("TRESTLE-MASQ-")),
        "{listing}"
    );
    node.run(|| {
        gc("podnet", &[("a", "eth0")]);
        del("a");
        gc("podnet", &[]);
    });
    assert_eq!(rules(&node), before);
}

fn simultaneous() {
    let node = Node::new();
    node.run(|| {
        (0..6).for_each(|n| add_old(&format!("c{n}"), &[&format!("10.1.0.{}/24", n + 2)], &[]))
    });
    crate::masquerade::at_once(&node, 12, |n| del(&format!("c{}", n % 6)));
    assert_eq!(rules(&node), "");
}
