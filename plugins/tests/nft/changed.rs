//! Rules that are not what this build would write: those of the former release, and those that somebody changed by hand
//! and left their comments. CHECK tells, and the next ADD of the network puts things right.

use plugins::attach::isolation::{self, Isolated};
use plugins::attach::masquerade::{self, Backend, Masquerade};
use plugins::owner::Owner;

use crate::Case;
use crate::masquerade::{list, owner};
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case(
        "rules_of_the_former_release_are_noticed_and_replaced",
        former_release,
    ),
    case("rules_changed_by_hand_are_noticed_and_replaced", by_hand),
    case(
        "rules_that_were_saved_and_loaded_again_are_the_same",
        loaded_again,
    ),
    case(
        "iptables_rules_changed_by_hand_are_noticed_and_replaced",
        iptables_by_hand,
    ),
    case(
        "rules_of_isolated_ports_changed_by_hand_are_noticed_and_replaced",
        isolated_by_hand,
    ),
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &["iptables", "ip6tables", "nft", "ip"],
        run,
    }
}

const EXEMPT: [&str; 4] = ["10.0.0.0/8", "192.168.1.1/32", "10.5.0.0/16", "fd00::/8"];

fn with<T>(
    owner: &Owner,
    backend: Backend,
    addresses: &[&str],
    work: impl Fn(&Masquerade<'_>) -> T,
) -> T {
    let parse = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| text.parse().unwrap())
            .collect::<Vec<_>>()
    };
    work(&Masquerade {
        owner,
        addresses: &parse(addresses),
        non_masquerade: &parse(&EXEMPT),
        backend,
    })
}

fn add(container: &str, backend: Backend, addresses: &[&str]) {
    with(&owner("podnet", container), backend, addresses, |wanted| {
        masquerade::ensure(wanted, &Vec::new, &|_| true).unwrap();
    });
}

/// What CHECK says of the container `abc`.
fn differences(node: &Node, backend: Backend) -> Vec<String> {
    node.run(move || {
        with(&owner("podnet", "abc"), backend, &ABC, |wanted| {
            masquerade::check(wanted)
        })
        .unwrap()
    })
}

const ABC: [&str; 2] = ["10.1.0.5/24", "fd00:1::5/64"];

fn listing(node: &Node) -> String {
    node.sh("nft -s list ruleset")
}

/// The ruleset as this build makes it for `abc` and `new`.
fn fresh() -> String {
    let node = Node::new();
    node.run(|| {
        add("abc", Backend::Nftables, &ABC);
        add("new", Backend::Nftables, &["10.1.0.6/24", "fd00:1::6/64"]);
    });
    listing(&node)
}

/// An ADD of a neighbour puts the rules right, those of `abc` included, and nothing is left in the end.
fn is_put_right(node: &Node, what: &str) {
    node.run(|| add("new", Backend::Nftables, &["10.1.0.6/24", "fd00:1::6/64"]));
    assert_eq!(
        differences(node, Backend::Nftables),
        Vec::<String>::new(),
        "{what}"
    );
    assert_eq!(listing(node), fresh(), "{what}");
    node.run(|| {
        masquerade::remove(&owner("podnet", "new")).unwrap();
        masquerade::remove(&owner("podnet", "abc")).unwrap();
        assert_eq!(list("podnet"), []);
    });
    assert_eq!(listing(node), "", "{what}");
}

fn former_release() {
    let node = Node::new();
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/masquerade-0.1.nft"
    );
    node.sh(&format!("nft -f {file}"));
    assert_eq!(differences(&node, Backend::Nftables).len(), 2);
    node.run(|| masquerade::remove(&owner("other", "def")).unwrap());
    is_put_right(&node, "0.1");
}

fn by_hand() {
    for change in [
        "s/masquerade fully-random/accept/",
        "s/masquerade fully-random/masquerade/",
        "/own subnet/s/return/accept/",
        "/own subnet/s/10.1.0.0.24/10.1.0.0\\/25/",
        "/nonMasqueradeCIDRs/d",
        "/nonMasqueradeCIDRs/{h;d};/masquerade fully-random/G",
        "/continue/d",
        "s/own subnet/own subnets/",
    ] {
        let node = Node::new();
        node.run(|| add("abc", Backend::Nftables, &ABC));
        node.sh(&format!(
            "nft list ruleset > $$.nft; sed '{change}' $$.nft > $$.changed; nft flush ruleset; nft -f $$.changed; \
             rm $$.nft $$.changed"
        ));
        assert!(
            !differences(&node, Backend::Nftables).is_empty(),
            "{change}"
        );
        is_put_right(&node, change);
    }
}

fn loaded_again() {
    let node = Node::new();
    // The numbers of sets without a name are others afterwards.
    node.run(|| {
        add("before", Backend::Nftables, &["10.9.0.5/24"]);
        add("abc", Backend::Nftables, &ABC);
        masquerade::remove(&owner("podnet", "before")).unwrap();
    });
    let before = listing(&node);
    node.sh("nft list ruleset > $$.nft; nft flush ruleset; nft -f $$.nft; rm $$.nft");
    assert_eq!(differences(&node, Backend::Nftables), Vec::<String>::new());
    assert_eq!(listing(&node), before);
}

fn iptables_by_hand() {
    for change in [
        "s/-j MASQUERADE --random-fully/-j ACCEPT/",
        "/-d 10.1.0.0.24/d",
        "s/10.1.0.0.24/10.1.0.0\\/25/",
    ] {
        let node = Node::new();
        node.run(|| add("abc", Backend::Iptables, &ABC));
        assert_eq!(differences(&node, Backend::Iptables), Vec::<String>::new());
        node.sh(&format!(
            "iptables-save -t nat | sed '{change}' | iptables-restore -T nat"
        ));
        assert_eq!(differences(&node, Backend::Iptables).len(), 1, "{change}");
        node.run(|| add("abc", Backend::Iptables, &ABC));
        assert_eq!(
            differences(&node, Backend::Iptables),
            Vec::<String>::new(),
            "{change}"
        );
    }
    // A prefix that is everything is no condition in a listing.
    let node = Node::new();
    node.run(|| {
        let exempt = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        let addresses = ABC.map(|text| text.parse().unwrap());
        let wanted = Masquerade {
            owner: &owner("podnet", "abc"),
            addresses: &addresses,
            non_masquerade: &exempt,
            backend: Backend::Iptables,
        };
        masquerade::ensure(&wanted, &Vec::new, &|_| true).unwrap();
        assert_eq!(masquerade::check(&wanted).unwrap(), Vec::<String>::new());
    });
}

fn isolated(work: fn(&Isolated<'_>)) {
    work(&Isolated {
        owner: &owner("podnet", "abc"),
        interface: "cni0",
        addresses: &["10.1.0.5".parse().unwrap()],
        mac: "0a:58:0a:01:00:05".parse().unwrap(),
    });
}

fn isolated_by_hand() {
    for change in [
        "/@isolated.*v4 /s/drop/accept/",
        "s/ct status dnat return/ct status dnat drop/",
        "/to isolated containers/d",
        "/, rules /d",
    ] {
        let node = Node::new();
        let ensure = || isolated(|it| isolation::ensure(it, &Vec::new).unwrap());
        let is_current = || isolated(|it| assert_eq!(isolation::check(it).unwrap(), [""; 0]));
        node.run(ensure);
        node.run(is_current);
        let before = listing(&node);
        node.sh(&format!(
            "nft list ruleset > $$.nft; sed '{change}' $$.nft > $$.changed; nft flush ruleset; nft -f $$.changed; \
             rm $$.nft $$.changed"
        ));
        assert_ne!(listing(&node), before, "{change}");
        node.run(|| isolated(|it| assert_eq!(isolation::check(it).unwrap().len(), 1)));
        node.run(ensure);
        node.run(is_current);
        assert_eq!(listing(&node), before, "{change}");
    }
}
