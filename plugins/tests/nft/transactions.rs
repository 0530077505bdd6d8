//! Transactions of any size: all or nothing, one answer, and an error that says which element it is about.

use std::net::IpAddr;

use plugins::host::nft::{Batch, Element, ElementData, Family, KeyBuilder, Nft, TableRef};

use crate::Case;
use testbed::Node;

const T: TableRef<'static> = TableRef {
    family: Family::Inet,
    name: "t",
};

/// Around what a receive buffer holds of acknowledgements and a send buffer of elements, and far beyond.
const SIZES: [u32; 10] = [1, 127, 128, 129, 255, 256, 257, 1_000, 10_000, 50_000];

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "a_transaction_adds_and_deletes_any_number_of_elements",
        needs: &["nft"],
        run: sizes,
    },
    Case {
        name: "elements_of_two_maps_in_turns_are_one_transaction",
        needs: &["nft"],
        run: in_turns,
    },
    Case {
        name: "the_element_that_exists_already_is_told_and_nothing_is_added",
        needs: &["nft"],
        run: taken,
    },
    Case {
        name: "the_element_that_does_not_exist_is_told_and_nothing_is_deleted",
        needs: &["nft"],
        run: absent,
    },
    Case {
        name: "more_errors_than_the_receive_buffer_holds_are_a_refusal",
        needs: &["nft"],
        run: overrun,
    },
    Case {
        name: "an_error_says_whose_element_it_is_about_and_no_bytes_of_a_key",
        needs: &["nft"],
        run: words,
    },
];

/// The longest comment there is.
fn comment(n: u32) -> String {
    format!("{n:0>127}")
}

fn port(n: u32) -> Element {
    let key = KeyBuilder::default()
        .address(IpAddr::from(0x0a00_0000_u32.to_be_bytes()))
        .protocol(if n.is_multiple_of(2) { 6 } else { 17 })
        .port((n / 2) as u16);
    let to = KeyBuilder::default()
        .address(IpAddr::from([10, 1, 0, 5]))
        .port(80);
    Element {
        key: key.finish(),
        data: Some(ElementData::Value(to.finish())),
        comment: Some(comment(n)),
    }
}

fn address(n: u32) -> Element {
    Element::address(IpAddr::from((0x0a00_0000 + n).to_be_bytes()), comment(n))
}

fn node() -> Node {
    let node = Node::new();
    node.sh("nft 'add table inet t; add set inet t s { type ipv4_addr; }; \
        add map inet t m { type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }'");
    node
}

fn sorted(mut elements: Vec<Element>) -> Vec<Element> {
    elements.sort_by(|a, b| a.key.cmp(&b.key));
    elements
}

fn commit(nft: &mut Nft, fill: impl FnOnce(&mut Batch)) {
    let mut batch = Batch::new();
    fill(&mut batch);
    nft.commit(batch).unwrap();
}

fn sizes() {
    let node = node();
    node.run(|| {
        for size in SIZES {
            // Each with a socket as a new process has it.
            let mut nft = std::thread::scope(|scope| {
                scope.spawn(|| assert_round_trip(size)).join().unwrap();
                Nft::open().unwrap()
            });
            assert!(nft.is_empty(T.object("m")).unwrap(), "{size}");
        }
    });
}

fn assert_round_trip(size: u32) {
    let mut nft = Nft::open().unwrap();
    let elements: Vec<Element> = (0..size).map(port).collect();
    commit(&mut nft, |batch| {
        batch.add_elements(T.object("m"), &elements);
    });
    let found = sorted(nft.elements(T.object("m")).unwrap());
    assert!(found == sorted(elements.clone()), "{size}: {}", found.len());
    commit(&mut nft, |batch| {
        batch.ensure_elements(T.object("m"), &elements);
    });
    commit(&mut nft, |batch| {
        batch.delete_elements(T.object("m"), &elements);
    });
}

fn in_turns() {
    let node = node();
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        for size in [128, 129, 10_000] {
            let fill = |batch: &mut Batch, delete: bool| {
                for n in 0..size {
                    for (set, element) in [("m", port(n)), ("s", address(n))] {
                        if delete {
                            batch.delete_elements(T.object(set), &[element]);
                        } else {
                            batch.add_elements(T.object(set), &[element]);
                        }
                    }
                }
            };
            commit(&mut nft, |batch| fill(batch, false));
            for set in ["m", "s"] {
                let found = nft.elements(T.object(set)).unwrap();
                assert_eq!(found.len(), size as usize, "{set}");
            }
            commit(&mut nft, |batch| fill(batch, true));
            for set in ["m", "s"] {
                assert!(nft.is_empty(T.object(set)).unwrap(), "{set}, {size}");
            }
        }
    });
}

fn taken() {
    let node = node();
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        for (size, which) in [
            (1, 0),
            (129, 0),
            (129, 128),
            (1_000, 777),
            (50_000, 0),
            (50_000, 31_234),
            (50_000, 49_999),
        ] {
            let others = Element {
                comment: Some("somebody else".into()),
                ..port(which)
            };
            let taken = std::slice::from_ref(&others);
            commit(&mut nft, |batch| {
                batch.add_elements(T.object("m"), taken);
            });
            let elements: Vec<Element> = (0..size).map(port).collect();
            let mut batch = Batch::new();
            batch.add_elements(T.object("s"), &[address(1)]);
            batch.add_elements(T.object("m"), &elements);
            let refused = nft.transact(&batch).unwrap_err();
            assert!(refused.error.already_exists(), "{}", refused.error);
            assert_eq!(refused.element.as_deref(), Some(&port(which)), "{size}");
            assert_eq!(nft.elements(T.object("m")).unwrap(), taken);
            assert!(nft.is_empty(T.object("s")).unwrap());
            commit(&mut nft, |batch| {
                batch.delete_elements(T.object("m"), taken);
            });
        }
    });
}

fn absent() {
    let node = node();
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        let elements: Vec<Element> = (0..10_000).map(port).collect();
        let present = [&elements[..6_543], &elements[6_544..]].concat();
        commit(&mut nft, |batch| {
            batch.add_elements(T.object("m"), &present);
        });
        let mut batch = Batch::new();
        batch.delete_elements(T.object("m"), &elements);
        let refused = nft.transact(&batch).unwrap_err();
        assert!(refused.error.not_found(), "{}", refused.error);
        assert_eq!(refused.element.as_deref(), Some(&elements[6_543]));
        let found = sorted(nft.elements(T.object("m")).unwrap());
        assert!(found == sorted(present), "{}", found.len());
    });
}

fn overrun() {
    let node = node();
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        for size in [255, 256, 1_000, 60_000] {
            let mut batch = Batch::new();
            batch.add_elements(T.object("s"), &[address(1)]);
            for handle in 0..size {
                batch.delete_rule(T.object("nowhere"), 1_000 + handle);
            }
            let refused = nft.transact(&batch).unwrap_err();
            assert!(
                refused
                    .error
                    .to_string()
                    .starts_with("delete rule 1000 of nft chain inet t nowhere: No such file"),
                "{size}: {}",
                refused.error
            );
            assert_eq!(refused.element, None);
            assert!(nft.is_empty(T.object("s")).unwrap(), "{size}");
        }
        // The socket is as good as new.
        commit(&mut nft, |batch| {
            batch.add_elements(T.object("s"), &[address(1)]);
        });
        assert_eq!(nft.elements(T.object("s")).unwrap(), [address(1)]);
    });
}

fn words() {
    let node = node();
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        let element = |n| Element {
            comment: Some("podnet/abc/eth0".into()),
            ..port(n)
        };
        commit(&mut nft, |batch| {
            batch.add_elements(T.object("m"), &[port(1)]);
        });
        let mut batch = Batch::new();
        batch.add_elements(T.object("m"), &[element(0), element(1)]);
        let error = nft.commit(batch).unwrap_err().to_string();
        assert!(
            error.starts_with("add an element of podnet/abc/eth0 in nft set inet t m: File exists"),
            "{error}"
        );
    });
}
