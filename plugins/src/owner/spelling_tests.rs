//! Names of every permitted length, and pairs of them that differ as little as they can.

use std::collections::BTreeSet;

use cni_conf::names::{ContainerId, IfName, NAME_MAX, NetworkName};

use super::*;
use crate::host::nft::COMMENT_MAX;

/// Lengths around every cut.
const LENGTHS: [usize; 15] = [
    1, 40, 59, 60, 61, 93, 94, 99, 100, 101, 109, 110, 111, 128, NAME_MAX,
];

/// Interface names that a rule's text has no place for, or that differ by its last byte.
const IFNAMES: [&str; 8] = [
    "e",
    "eth0",
    "eth1",
    "e$",
    "e_",
    "e#",
    "ü",
    "fifteen-bytes-\"",
];

/// A name of that length and its neighbour, which differs in the last byte.
fn pair(length: usize) -> [String; 2] {
    ["x", "y"].map(|last| format!("{}{last}", "n".repeat(length - 1)))
}

fn owner(network: &str, container: &str, ifname: &str) -> Owner {
    Owner {
        network: network.try_into().unwrap(),
        container: container.try_into().unwrap(),
        ifname: ifname.try_into().unwrap(),
    }
}

/// Pairs of neighbours by network, by container, and by interface, of every length.
fn neighbours() -> Vec<[Owner; 2]> {
    let mut all = Vec::new();
    for network in LENGTHS {
        for container in LENGTHS {
            let (networks, containers) = (pair(network), pair(container));
            for ifname in IFNAMES {
                let of = |i: usize, j: usize| owner(&networks[i], &containers[j], ifname);
                all.push([of(0, 0), of(1, 0)]);
                all.push([of(0, 0), of(0, 1)]);
            }
            for (i, one) in IFNAMES.iter().enumerate() {
                let of = |ifname| owner(&networks[0], &containers[0], ifname);
                all.extend(IFNAMES[..i].iter().map(|other| [of(one), of(other)]));
            }
        }
    }
    all
}

fn id(owner: &Owner) -> AttachmentId {
    AttachmentId {
        container: owner.container.clone(),
        ifname: owner.ifname.clone(),
    }
}

fn spellings(owner: &Owner) -> [String; 6] {
    [
        owner.comment(),
        owner.iptables_comment(),
        owner.alias(),
        owner.chain("TRESTLE-TEST-"),
        owner.chain_by_comment("TRESTLE-TEST-"),
        owner.file_name("firewall"),
    ]
}

#[test]
fn the_longest_permitted_names_are_among_these() {
    for length in LENGTHS {
        assert!(NetworkName::try_from(pair(length)[0].as_str()).is_ok());
        assert!(ContainerId::try_from(pair(length)[0].as_str()).is_ok());
    }
    for length in [NAME_MAX + 1, 255] {
        assert!(NetworkName::try_from(pair(length)[0].as_str()).is_err());
    }
    assert!(IFNAMES.iter().all(|name| IfName::try_from(*name).is_ok()));
}

#[test]
fn neighbours_have_no_spelling_in_common() {
    for [one, other] in neighbours() {
        for (own, others) in spellings(&one).iter().zip(spellings(&other)) {
            assert_ne!(*own, others, "{} {}", one.path(), other.path());
        }
        let same = id(&one) == id(&other);
        assert_eq!(
            saved_file_name(&id(&one)) == saved_file_name(&id(&other)),
            same
        );
    }
}

#[test]
fn every_spelling_fits_where_it_is_written() {
    for owner in neighbours().into_iter().flatten() {
        assert!(owner.comment().len() <= COMMENT_MAX);
        let iptables = owner.iptables_comment();
        assert!(iptables.len() <= COMMENT_MAX + 17);
        assert_eq!(iptables, printable(&iptables));
        assert!(owner.alias().len() <= 254);
        assert_eq!(owner.chain("TRESTLE-MASQ-").len(), 28);
        assert!(owner.file_name("firewall").len() <= 255);
        assert!(saved_file_name(&id(&owner)).len() <= 255);
        assert!(network::label(&owner.network).len() <= 60);
        assert!(network::text(&owner.network, 80).len() <= 80);
    }
}

#[test]
fn what_fits_is_whole() {
    let id = "a".repeat(64);
    let owner = owner("podnet", &id, "eth0");
    assert_eq!(owner.comment(), format!("podnet/{id}/eth0"));
    assert_eq!(owner.iptables_comment(), owner.comment());
    assert_eq!(owner.alias(), format!("trestle:podnet/{id}/eth0"));
    assert_eq!(
        owner.file_name("portmap"),
        format!("portmap:podnet:{id}:eth0")
    );
}

/// Rules, files and links outlive an upgrade: what is correct once stays as it is, byte for byte.
#[test]
fn spellings_never_change() {
    let cut = owner("podnet", &"c".repeat(240), "eth0");
    assert_eq!(
        cut.comment(),
        format!(
            "podnet/{}#{:016x}",
            "c".repeat(103),
            fnv1a(cut.path().as_bytes())
        )
    );
    let long = owner(&"n".repeat(110), &"c".repeat(20), "eth0");
    assert_eq!(
        long.comment(),
        format!(
            "{}#{:016x}/{:016x}",
            "n".repeat(93),
            fnv1a("n".repeat(110).as_bytes()),
            fnv1a(long.path().as_bytes())
        )
    );
    let odd = owner("net", "c", "e$");
    let hash = fnv1a(b"net/c/e$");
    assert_eq!(odd.iptables_comment(), format!("net/c/e_#{hash:016x}"));
    assert_eq!(
        odd.chain("TRESTLE-MASQ-"),
        format!("TRESTLE-MASQ-{:015x}", hash >> 4)
    );
    assert_eq!(odd.chain("X-"), odd.chain_by_comment("X-"));
    let named = |length| network::label(&NetworkName::try_from("n".repeat(length)).unwrap());
    assert_eq!(named(60), "n".repeat(60));
    let hash = fnv1a("n".repeat(61).as_bytes());
    assert_eq!(named(61), format!("{}/x{hash:016x}", "n".repeat(40)));
}

#[test]
fn a_removal_takes_the_own_and_leaves_the_neighbours() {
    for [one, other] in neighbours() {
        let removed = Owners::one(&one);
        assert!(removed.has_in_iptables(&one.iptables_comment()));
        assert!(!removed.has_in_iptables(&other.iptables_comment()));
        for spelling in [one.comment(), one.iptables_comment()] {
            assert!(removed.has(&spelling) && removed.has_among_its_own(&spelling));
        }
        for spelling in [other.comment(), other.iptables_comment()] {
            assert!(!removed.has(&spelling) && !removed.has_among_its_own(&spelling));
        }
        assert!(removed.has_alias(&one.alias()) && !removed.has_alias(&other.alias()));
    }
}

#[test]
fn a_collection_takes_the_networks_own_but_for_the_valid() {
    for [one, other] in neighbours() {
        let same = one.network == other.network;
        let (rest, all) = (
            Owners::all_but(&one.network, &[id(&one)]),
            Owners::all(&one.network),
        );
        let of = |owner: &Owner| [owner.comment(), owner.iptables_comment()];
        assert!(of(&one).iter().all(|it| all.has(it) && !rest.has(it)));
        assert!(
            of(&other).iter().all(|it| all.has(it) == same),
            "{}",
            other.path()
        );
        assert!(of(&other).iter().all(|it| rest.has(it) == same));
        // A former version may have given the valid one's rule of iptables the neighbour's comment.
        let comment = other.iptables_comment();
        let spared = comment == printable(&one.path());
        assert_eq!(rest.has_in_iptables(&comment), same && !spared);
        assert!(all.has_alias(&one.alias()) && !rest.has_alias(&one.alias()));
        assert_eq!(rest.has_alias(&other.alias()), same);
        let file = other.file_name("firewall");
        assert_eq!(Owner::file_is_of(&one.network, "firewall", &file), same);
        assert!(!Owner::file_is_of(&one.network, "portmap", &file));
    }
}

/// As version 0.1 spelt it.
fn former(owner: &Owner) -> String {
    let whole = owner.path();
    match whole.len() <= COMMENT_MAX {
        true => whole,
        false => format!("{}#{:016x}", &whole[..110], fnv1a(whole.as_bytes())),
    }
}

#[test]
fn a_whole_spelling_tells_its_owner_and_a_cut_one_nobody() {
    for owner in neighbours().into_iter().flatten() {
        let whole = owner.path().len() <= COMMENT_MAX;
        let parsed = Owner::parse(&owner.comment());
        assert_eq!(parsed, whole.then(|| owner.clone()));
        let whole = owner.alias() == format!("trestle:{}", owner.path());
        assert_eq!(Owner::parse_alias(&owner.alias()), whole.then_some(owner));
    }
    for other in [
        "",
        "net",
        "net/c",
        "net/c/e/f",
        "net/c/../e",
        "trestle:net/c/e",
        "net//e",
    ] {
        assert_eq!(Owner::parse(other), None, "{other}");
        assert_eq!(
            Owner::parse_alias(other).is_some(),
            other.starts_with("trestle:")
        );
    }
}

#[test]
fn what_former_versions_wrote_is_removed_where_it_tells_its_owner() {
    for [one, other] in neighbours() {
        let (own, others) = (former(&one), former(&other));
        assert!(Owners::one(&one).has(&own) && !Owners::one(&one).has(&others));
        let rest = Owners::all_but(&one.network, &[id(&one)]);
        assert!(!rest.has(&own) && !rest.has_among_its_own(&own));
        assert!(rest.has_among_its_own(&others));
        // In what networks share, a comment that ends within the network's name may be anybody's.
        let same = one.network == other.network;
        assert_eq!(rest.has(&others), same && others.contains('/'));
        assert_eq!(
            one.former_file_name("x"),
            format!("x:{}", own.replace('/', ":"))
        );
    }
}

#[test]
fn two_interfaces_that_iptables_could_not_tell_apart_are_not_taken_for_each_other() {
    let (odd, plain) = (owner("net", "c", "e$"), owner("net", "c", "e_"));
    // Both were written so.
    let shared = "net/c/e_";
    let one = |owner| Owners::one(owner).has_in_iptables(shared);
    assert!(!one(&odd) && one(&plain));
    // As long as one of them lives it may be its.
    let (network, ids) = (&odd.network, [id(&odd)]);
    assert!(!Owners::all_but(network, &ids).has_in_iptables(shared));
    assert!(Owners::all(network).has_in_iptables(shared));
    // nftables could tell them apart.
    assert!(Owners::all_but(network, &ids).has(shared));
}

#[test]
fn nothing_of_a_name_reaches_a_rule_as_syntax() {
    assert_eq!(printable("net/abc/e\"\\$;h0"), "net/abc/e____h0");
}

#[test]
fn one_network_is_told_from_another_that_begins_alike() {
    let comments: BTreeSet<String> = ["net", "net2", "ne"]
        .map(|it| owner(it, "c", "e").comment())
        .into();
    let of_net: Vec<_> = comments
        .iter()
        .filter(|it| Owners::all(&owner("net", "c", "e").network).has(it))
        .collect();
    assert_eq!(of_net, ["net/c/e"]);
}
