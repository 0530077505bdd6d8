//! Elements, chains and rules by netlink, with `nft` as the witness.

use std::net::IpAddr;

use plugins::host::NetNs;
use plugins::host::nft::{
    Batch, Element, ElementData, FORWARD_HOOK, Family, KeyBuilder, Nft, TableRef,
};

use crate::Case;
use testbed::Node;

const T: TableRef<'static> = TableRef {
    family: Family::Inet,
    name: "t",
};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "elements_are_added_with_a_comment_that_nft_shows",
        needs: &["nft"],
        run: comment,
    },
    Case {
        name: "a_transaction_takes_effect_whole_or_not_at_all",
        needs: &["nft"],
        run: atomic,
    },
    Case {
        name: "missing_and_existing_objects_are_told_apart",
        needs: &["nft"],
        run: distinguish,
    },
    Case {
        name: "map_elements_carry_verdicts_and_values",
        needs: &["nft"],
        run: maps,
    },
    Case {
        name: "thousands_of_elements_are_listed",
        needs: &["nft"],
        run: many,
    },
    Case {
        name: "chains_tell_hook_policy_and_use",
        needs: &["nft"],
        run: chains,
    },
    Case {
        name: "a_thread_uses_its_socket_again_in_the_same_namespace_alone",
        needs: &["nft"],
        run: kept,
    },
    Case {
        name: "a_listing_survives_constant_change",
        needs: &["nft"],
        run: interrupted,
    },
];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn comment() {
    let node = Node::new();
    node.sh("nft 'add table inet t; add set inet t s4 { type ipv4_addr; }; add set inet t s6 { type ipv6_addr; }'");
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        let mut batch = Batch::new();
        batch.add_elements(
            T.object("s4"),
            &[Element::address(ip("10.1.0.5"), "net/abc/eth0")],
        );
        batch.add_elements(
            T.object("s6"),
            &[Element::address(ip("fd00::5"), "net/abc/eth0")],
        );
        nft.commit(batch).unwrap();
        let found = nft.elements(T.object("s6")).unwrap();
        assert_eq!(found, [Element::address(ip("fd00::5"), "net/abc/eth0")]);
        let key = Element {
            key: found[0].key.clone(),
            data: None,
            comment: None,
        };
        assert_eq!(
            nft.element(T.object("s6"), &key).unwrap().as_ref(),
            found.first()
        );
    });
    let listing = node.sh("nft list table inet t");
    assert!(
        listing.contains("10.1.0.5 comment \"net/abc/eth0\""),
        "{listing}"
    );
    assert!(
        listing.contains("fd00::5 comment \"net/abc/eth0\""),
        "{listing}"
    );
}

fn atomic() {
    let node = Node::new();
    node.sh("nft 'add table inet t; add set inet t s4 { type ipv4_addr; }'");
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        let mut batch = Batch::new();
        batch.add_elements(T.object("s4"), &[Element::address(ip("10.1.0.5"), "a")]);
        batch.add_elements(
            T.object("nowhere"),
            &[Element::address(ip("10.1.0.6"), "a")],
        );
        let error = nft.commit(batch).unwrap_err();
        assert!(error.not_found(), "{error}");
        assert_eq!(
            error.to_string().split(':').next(),
            Some("add 10.1.0.6 in nft set inet t nowhere")
        );
        assert_eq!(nft.elements(T.object("s4")).unwrap(), []);
        assert!(nft.is_empty(T.object("s4")).unwrap());
    });
}

fn distinguish() {
    let node = Node::new();
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        let element = [Element::address(ip("10.1.0.5"), "a")];
        let add = |nft: &mut Nft| {
            let mut batch = Batch::new();
            batch.add_elements(T.object("s4"), &element);
            nft.commit(batch)
        };
        let delete = |nft: &mut Nft| {
            let mut batch = Batch::new();
            batch.delete_elements(T.object("s4"), &element);
            nft.commit(batch)
        };
        assert!(add(&mut nft).unwrap_err().not_found());
        assert!(nft.elements(T.object("s4")).unwrap_err().not_found());
        assert_eq!(nft.sets(T).unwrap(), Vec::<String>::new());
        assert_eq!(nft.rules(T.object("c")).unwrap(), []);
        assert_eq!(nft.chain(T.object("c")).unwrap(), None);
        let script = "add table inet t; add set inet t s4 { type ipv4_addr; }";
        assert!(
            std::process::Command::new("nft")
                .arg(script)
                .status()
                .unwrap()
                .success()
        );
        assert!(delete(&mut nft).unwrap_err().not_found());
        add(&mut nft).unwrap();
        assert!(add(&mut nft).unwrap_err().already_exists());
        let mut batch = Batch::new();
        batch.delete_empty_set(T.object("s4"));
        assert_eq!(
            nft.commit(batch).unwrap_err().errno(),
            Some(nix::errno::Errno::EBUSY)
        );
        delete(&mut nft).unwrap();
        let mut batch = Batch::new();
        batch.delete_empty_set(T.object("s4")).delete_empty_table(T);
        nft.commit(batch).unwrap();
        assert!(delete(&mut nft).unwrap_err().not_found());
    });
}

fn maps() {
    let node = Node::new();
    node.sh("nft 'add table inet t; add chain inet t there; \
        add map inet t v { type ipv4_addr : verdict; }; \
        add map inet t d { type inet_proto . inet_service : ipv4_addr . inet_service; }'");
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        let jump = Element {
            key: KeyBuilder::default().address(ip("10.1.0.5")).finish(),
            data: Some(ElementData::Jump("there".into())),
            comment: Some("x".into()),
        };
        let value = Element {
            key: KeyBuilder::default().protocol(6).port(8080).finish(),
            data: Some(ElementData::Value(
                KeyBuilder::default()
                    .address(ip("10.1.0.5"))
                    .port(80)
                    .finish(),
            )),
            comment: Some("y".into()),
        };
        let mut batch = Batch::new();
        batch.add_elements(T.object("v"), std::slice::from_ref(&jump));
        batch.add_elements(T.object("d"), std::slice::from_ref(&value));
        nft.commit(batch).unwrap();
        assert_eq!(nft.elements(T.object("v")).unwrap(), [jump]);
        assert_eq!(nft.elements(T.object("d")).unwrap(), [value]);
    });
    let listing = node.sh("nft list table inet t");
    assert!(
        listing.contains("10.1.0.5 comment \"x\" : jump there"),
        "{listing}"
    );
    assert!(
        listing.contains("tcp . 8080 comment \"y\" : 10.1.0.5 . 80"),
        "{listing}"
    );
}

fn many() {
    let node = Node::new();
    node.sh("nft 'add table inet t; add set inet t s4 { type ipv4_addr; }'");
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        let elements: Vec<Element> = (0..3000_u16)
            .map(|n| {
                Element::address(
                    [10, 1, (n >> 8) as u8, n as u8].into(),
                    format!("net/{n}/eth0"),
                )
            })
            .collect();
        for some in elements.chunks(500) {
            let mut batch = Batch::new();
            batch.add_elements(T.object("s4"), some);
            nft.commit(batch).unwrap();
        }
        let mut found = nft.elements(T.object("s4")).unwrap();
        found.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(found, elements);
        assert!(!nft.is_empty(T.object("s4")).unwrap());
        assert_eq!(nft.elements(T.object("s4")).unwrap().len(), 3000);
    });
}

fn chains() {
    let node = Node::new();
    node.sh("nft 'add table inet t; add chain inet t f { type filter hook forward priority -5; policy drop; }; \
        add chain inet t plain; add rule inet t f jump plain comment \"hello\"; add rule inet t plain accept'");
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        let base = nft.chain(T.object("f")).unwrap().unwrap().base.unwrap();
        assert_eq!(
            (base.hook, base.priority, base.drops),
            (FORWARD_HOOK, -5, true)
        );
        assert_eq!(base.kind, "filter");
        let plain = nft.chain(T.object("plain")).unwrap().unwrap();
        assert_eq!((plain.uses, plain.base), (2, None));
        let all = nft.chains(None).unwrap();
        assert_eq!(
            all.iter()
                .map(|chain| chain.name.as_str())
                .collect::<Vec<_>>(),
            ["f", "plain"]
        );
        let rules = nft.rules(T.object("f")).unwrap();
        assert_eq!(rules[0].comment.as_deref(), Some("hello"));
        let mut batch = Batch::new();
        batch
            .delete_rule(T.object("f"), rules[0].handle)
            .delete_chain(T.object("plain"));
        nft.commit(batch).unwrap();
        assert_eq!(nft.chains(Some(T)).unwrap().len(), 1);
    });
}

/// Closing one can take the kernel long; one of another namespace would change the wrong rules.
fn kept() {
    let (here, there) = (Node::new(), Node::new());
    for (node, name) in [(&here, "here"), (&there, "there")] {
        node.sh(&format!("nft 'add table inet t; add chain inet t {name}'"));
    }
    let elsewhere = there.run(|| NetNs::current().unwrap());
    here.run(move || {
        let chains = || {
            let found = Nft::open().unwrap().chains(Some(T)).unwrap();
            found
                .into_iter()
                .map(|chain| chain.name)
                .collect::<Vec<_>>()
        };
        // The netfilter sockets of the namespace: 12 is NETLINK_NETFILTER, port 0 the kernel.
        let sockets = || {
            let all = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap();
            let lines = all
                .lines()
                .map(|line| line.split_whitespace().collect::<Vec<_>>());
            lines
                .filter(|line| line[1] == "12" && line[2] != "0")
                .count()
        };
        for _ in 0..3 {
            assert_eq!(chains(), ["here"]);
            assert_eq!(sockets(), 1);
        }
        for _ in 0..2 {
            assert_eq!(elsewhere.enter(chains).unwrap(), ["there"]);
            assert_eq!(chains(), ["here"]);
        }
        // One that is in use is nobody else's.
        let (mut one, mut other) = (Nft::open().unwrap(), Nft::open().unwrap());
        let mut batch = Batch::new();
        batch.add_elements(T.object("none"), &[Element::address(ip("10.1.0.2"), "x")]);
        assert!(one.commit(batch).unwrap_err().not_found());
        assert_eq!(other.chains(Some(T)).unwrap().len(), 1);
        // Nor is one closed, which can take long, before the thread ends.
        let before = sockets();
        drop((one, other));
        assert_eq!(sockets(), before);
        let _both = (Nft::open().unwrap(), Nft::open().unwrap());
        assert_eq!(sockets(), before);
    });
}

fn interrupted() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    let node = Node::new();
    node.sh("nft 'add table inet t; add set inet t s4 { type ipv4_addr; }; add set inet t other { type ipv4_addr; }'");
    node.run(|| {
        let mut nft = Nft::open().unwrap();
        let elements: Vec<Element> = (0..400_u16)
            .map(|n| Element::address([10, 1, (n >> 8) as u8, n as u8].into(), "x".repeat(100)))
            .collect();
        let mut batch = Batch::new();
        batch.add_elements(T.object("s4"), &elements);
        nft.commit(batch).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let signal = Arc::clone(&stop);
        // The new thread starts in this namespace.
        let noise = std::thread::spawn(move || {
            let mut noisy = Nft::open().unwrap();
            let element = [Element::address([10, 9, 9, 9].into(), "noise")];
            while !signal.load(Ordering::Relaxed) {
                let mut batch = Batch::new();
                batch.add_elements(T.object("other"), &element);
                noisy.commit(batch).unwrap();
                let mut batch = Batch::new();
                batch.delete_elements(T.object("other"), &element);
                noisy.commit(batch).unwrap();
                std::thread::yield_now();
            }
        });
        for _ in 0..20 {
            match nft.elements(T.object("s4")) {
                Ok(found) => assert_eq!(found.len(), 400),
                Err(error) => assert!(error.to_string().contains("interrupted"), "{error}"),
            }
        }
        stop.store(true, Ordering::Relaxed);
        noise.join().unwrap();
        assert_eq!(nft.elements(T.object("s4")).unwrap().len(), 400);
    });
}
