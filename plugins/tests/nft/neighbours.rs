//! Owners whose names differ in one byte, of every length, through all that masquerade does: none touches the other's.

use cni_conf::request::AttachmentId;
use ipnet::IpNet;
use plugins::attach::masquerade::{self, Backend, Kept, Masquerade};
use plugins::owner::Owner;

use crate::Case;
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case("neighbours_do_not_touch_each_other", nftables),
    case("iptables_neighbours_do_not_touch_each_other", iptables),
    case(
        "elements_that_a_former_version_named_are_removed",
        former_elements,
    ),
    case(
        "iptables_rules_that_a_former_version_named_are_removed",
        former_rules,
    ),
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &["iptables", "ip6tables", "nft", "ip"],
        run,
    }
}

const LENGTHS: [usize; 8] = [1, 99, 100, 101, 109, 110, 128, 240];

fn owner(network: &str, container: &str, ifname: &str) -> Owner {
    Owner {
        network: network.try_into().unwrap(),
        container: container.try_into().unwrap(),
        ifname: ifname.try_into().unwrap(),
    }
}

/// Neighbours by network, container and interface.
fn pairs() -> Vec<[Owner; 2]> {
    let mut pairs = vec![["e$", "e_"].map(|ifname| owner("net", "c", ifname))];
    for length in LENGTHS {
        let [x, y] = ["x", "y"].map(|last| format!("{}{last}", "n".repeat(length - 1)));
        pairs.push([&x, &y].map(|network| owner(network, "c", "eth0")));
        pairs.push([&x, &y].map(|container| owner("net", container, "eth0")));
        pairs.push([&x, &y].map(|container| owner(&x, container, "eth0")));
    }
    pairs
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn with<T>(
    owner: &Owner,
    backend: Backend,
    address: &str,
    work: impl Fn(&Masquerade<'_>) -> T,
) -> T {
    work(&Masquerade {
        owner,
        addresses: &[net(address)],
        non_masquerade: &[],
        backend,
    })
}

fn id(owner: &Owner) -> AttachmentId {
    AttachmentId {
        container: owner.container.clone(),
        ifname: owner.ifname.clone(),
    }
}

/// What is kept for the owner, in its network.
fn kept(owner: &Owner) -> Vec<Kept> {
    let comments = [owner.comment(), owner.iptables_comment()];
    let all = masquerade::list(&owner.network).unwrap();
    all.into_iter()
        .filter(|kept| comments.contains(&kept.owner))
        .collect()
}

fn nftables() {
    pairs()
        .iter()
        .for_each(|pair| verbs(pair, Backend::Nftables));
}

fn iptables() {
    pairs()
        .iter()
        .for_each(|pair| verbs(pair, Backend::Iptables));
}

fn verbs(pair: &[Owner; 2], backend: Backend) {
    let (first, second) = ("10.1.0.2/24", "10.1.0.3/24");
    let node = Node::new();
    let [one, other] = pair.clone();
    node.run(move || {
        let (one, other) = (&one, &other);
        let add = |owner, address| {
            with(owner, backend, address, |it| {
                masquerade::ensure(it, &Vec::new, &|_| true)
            })
            .unwrap();
        };
        let differences =
            |owner, address| with(owner, backend, address, masquerade::check).unwrap();
        let what = format!("{} {}", one.path(), other.path());
        add(one, first);
        assert_ne!(differences(other, first), Vec::<String>::new(), "{what}");
        add(other, second);
        assert_eq!(differences(one, first), Vec::<String>::new(), "{what}");
        assert_eq!(differences(other, second), Vec::<String>::new(), "{what}");

        // Both are valid, each for its network.
        let ids = [id(one), id(other)];
        assert_eq!(masquerade::gc(&one.network, &ids).unwrap(), [], "{what}");
        // The other is not.
        let gone = masquerade::gc(&other.network, &ids[..1]).unwrap();
        let valid = id(one) == id(other);
        assert_eq!(gone.len(), usize::from(!valid), "{what}");
        assert_eq!(
            (kept(one).len(), kept(other).len()),
            (1, usize::from(valid)),
            "{what}"
        );

        add(other, second);
        masquerade::remove(one).unwrap();
        assert_eq!((kept(one).len(), kept(other).len()), (0, 1), "{what}");
        assert_eq!(differences(other, second), Vec::<String>::new(), "{what}");
        // None is valid in the network of the one that is gone.
        if one.network != other.network {
            assert_eq!(masquerade::gc(&one.network, &[]).unwrap(), [], "{what}");
        }
        masquerade::remove(other).unwrap();
    });
    let left = node.sh("nft list ruleset | grep -i trestle || true");
    assert_eq!(left, "", "{pair:?}");
}

/// As former versions spelt an owner that is too long for `nft`: cut within the name of the network.
fn former(owner: &Owner) -> String {
    let hash = plugins::owner::fnv1a(owner.path().as_bytes());
    format!("{}#{hash:016x}", &owner.path()[..110])
}

/// The neighbours whose comments former versions cut.
fn cut() -> Vec<[Owner; 2]> {
    let mut pairs = pairs();
    pairs.retain(|[one, _]| one.path().len() > 127);
    assert!(pairs.len() >= 8);
    pairs
}

fn former_elements() {
    for [one, other] in cut() {
        let node = Node::new();
        let pair = [one.clone(), other.clone()];
        let sets = node.run(move || {
            let [one, other] = pair;
            for (owner, address) in [(&one, "10.1.0.2/24"), (&other, "10.1.0.3/24")] {
                with(owner, Backend::Nftables, address, |it| {
                    masquerade::ensure(it, &Vec::new, &|_| true).unwrap();
                });
            }
            [&one, &other].map(|owner| {
                let kept = kept(owner);
                kept[0].what.rsplit(' ').next().unwrap().to_owned()
            })
        });
        for (set, (owner, address)) in sets.iter().zip([(&one, "10.1.0.2"), (&other, "10.1.0.3")]) {
            let element = format!("{{ {address} comment \"{}\" }}", former(owner));
            node.sh(&format!(
                "nft 'delete element inet trestle {set} {{ {address} }}; add element inet trestle {set} {element}'"
            ));
        }
        node.run(move || {
            let check = |owner, address| {
                with(owner, Backend::Nftables, address, |it| {
                    masquerade::check(it)
                })
                .unwrap()
            };
            assert_eq!(check(&one, "10.1.0.2/24"), Vec::<String>::new());
            let valid = [id(&one), id(&other)];
            assert_eq!(masquerade::gc(&one.network, &valid).unwrap(), []);
            masquerade::remove(&one).unwrap();
            assert_eq!(check(&other, "10.1.0.3/24"), Vec::<String>::new());
            // The set tells the network.
            assert_eq!(masquerade::gc(&other.network, &[]).unwrap().len(), 1);
        });
        assert_eq!(node.sh("nft list ruleset"), "");
    }
}

fn former_rules() {
    for [one, other] in cut() {
        let node = Node::new();
        let pair = [one.clone(), other.clone()];
        node.run(move || {
            let [one, other] = pair;
            for (owner, address) in [(&one, "10.1.0.2/24"), (&other, "10.1.0.3/24")] {
                with(owner, Backend::Iptables, address, |it| {
                    masquerade::ensure(it, &Vec::new, &|_| true).unwrap();
                });
            }
        });
        for owner in [&one, &other] {
            let (now, then) = (owner.iptables_comment(), former(owner));
            node.sh(&format!(
                "iptables-save -t nat | sed 's|{now}|{then}|' | iptables-restore -T nat"
            ));
        }
        let jumps = || node.sh("iptables -t nat -S POSTROUTING | grep -c MASQ- || true");
        let pair = [one.clone(), other.clone()];
        node.run(move || {
            let valid = pair.each_ref().map(id);
            assert_eq!(masquerade::gc(&pair[0].network, &valid).unwrap(), []);
            masquerade::remove(&pair[0]).unwrap();
        });
        assert_eq!(jumps().trim(), "1");
        node.run(move || masquerade::remove(&other).unwrap());
        assert_eq!(jumps().trim(), "0");
    }
}
