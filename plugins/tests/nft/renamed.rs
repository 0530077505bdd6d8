//! A network that has another name by now: what the former one left for an address goes when somebody else gets it.

use plugins::attach::masquerade::{self, Backend, Masquerade};
use plugins::owner::Owner;

use crate::Case;
use crate::masquerade::{list, owner};
use testbed::Node;

pub(crate) const CASES: &[Case] = &[
    case(
        "add_takes_over_what_a_renamed_network_left_for_the_address",
        taken_over,
    ),
    case(
        "iptables_add_takes_over_what_a_renamed_network_left_for_the_address",
        taken_over_by_iptables,
    ),
    case(
        "without_masquerading_the_address_is_released_all_the_same",
        released,
    ),
    case("what_belongs_to_somebody_who_stands_stays", stays),
];

const fn case(name: &'static str, run: fn()) -> Case {
    Case {
        name,
        needs: &["iptables", "ip6tables", "nft", "ip"],
        run,
    }
}

fn add(
    owner: &Owner,
    backend: Backend,
    addresses: &[&str],
    stands: &dyn Fn(&str) -> bool,
) -> Vec<String> {
    let addresses: Vec<_> = addresses.iter().map(|text| text.parse().unwrap()).collect();
    let wanted = Masquerade {
        owner,
        addresses: &addresses,
        non_masquerade: &[],
        backend,
    };
    let released = masquerade::ensure(&wanted, &Vec::new, stands).unwrap();
    released.into_iter().map(|kept| kept.owner).collect()
}

/// The former network's name: a short one, and one that is in no name and in no comment whole.
fn names() -> [String; 2] {
    ["former".to_owned(), "f".repeat(240)]
}

fn taken_over() {
    names()
        .iter()
        .for_each(|name| renamed(name, Backend::Nftables));
}

fn taken_over_by_iptables() {
    names()
        .iter()
        .for_each(|name| renamed(name, Backend::Iptables));
}

fn renamed(former: &str, backend: Backend) {
    let node = Node::new();
    let name = former.to_owned();
    node.run(move || {
        let gone = |_: &str| false;
        let (a, b) = (owner(&name, "a"), owner(&name, "b"));
        add(&a, backend, &["10.1.0.2/24", "fd00::2/64"], &gone);
        add(&b, backend, &["10.1.0.3/24"], &gone);
        // As a host prefix and with another length the address is the same.
        for (address, count) in [("10.1.0.2/32", 1), ("fd00::2/56", 1), ("10.1.0.2/24", 0)] {
            let new = owner("podnet", "new");
            let released = add(&new, backend, &[address], &gone);
            assert_eq!(released.len(), count, "{address} {released:?}");
            masquerade::remove(&new).unwrap();
        }
        assert_eq!(list(&name).len(), 1, "b's address is nobody else's");
        let released = add(&owner("podnet", "other"), backend, &["10.1.0.3/24"], &gone);
        assert_eq!(released.len(), 1);
        assert_eq!(list(&name), []);
        masquerade::remove(&owner("podnet", "other")).unwrap();
    });
    // A comment that is cut does not tell the network whose mark in iptables could go too.
    let mark = match backend == Backend::Iptables && former.len() > 127 {
        true => "TRESTLE-NET-",
        false => "none",
    };
    let left = node.sh(&format!(
        "nft list ruleset | grep -i trestle | grep -v {mark} || true"
    ));
    assert_eq!(
        left, "",
        "the former network's own rules went with its last container"
    );
}

fn released() {
    let node = Node::new();
    node.run(|| {
        let addresses = ["10.1.0.2/24".parse().unwrap()];
        let network = owner("podnet", "x").network;
        let release = || masquerade::release(&network, &addresses, &|_| false).unwrap();
        assert_eq!(release(), []);
        add(
            &owner("former", "a"),
            Backend::Nftables,
            &["10.1.0.2/24"],
            &|_| true,
        );
        assert_eq!(release().len(), 1);
        assert_eq!(release(), []);
    });
    assert_eq!(node.sh("nft list ruleset"), "");
}

fn stays() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let node = Node::new();
        node.run(move || {
            let asked = std::cell::RefCell::new(Vec::new());
            let stands = |comment: &str| {
                asked.borrow_mut().push(comment.to_owned());
                true
            };
            add(&owner("former", "a"), backend, &["10.1.0.2/24"], &stands);
            assert_eq!(asked.borrow().len(), 0, "nobody has the address");
            add(&owner("podnet", "new"), backend, &["10.1.0.3/24"], &stands);
            assert_eq!(asked.borrow().len(), 0, "another address");
            let released = add(&owner("podnet", "new"), backend, &["10.1.0.2/24"], &stands);
            assert_eq!((released.len(), list("former").len()), (0, 1));
            assert_eq!(*asked.borrow(), ["former/a/eth0"]);
        });
    }
}
