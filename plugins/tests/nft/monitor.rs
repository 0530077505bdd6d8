//! What is told of transactions that remove something.

use std::process::Command;
use std::time::{Duration, Instant};

use plugins::host::nft::Family;
use plugins::host::nft::monitor::{Monitor, Removed, Transaction};

use crate::Case;
use testbed::Node;

/// A bound for what happens at once unless something is broken.
const LONG: Duration = Duration::from_secs(20);

pub(crate) const CASES: &[Case] = &[Case {
    name: "a_monitor_tells_what_was_removed_and_by_whom",
    needs: &["nft"],
    run: removals,
}];

fn nft(command: &str) {
    let status = Command::new("nft").arg(command).status().unwrap();
    assert!(status.success(), "{command}");
}

/// The next transaction that removes something.
fn next(monitor: &mut Monitor) -> Transaction {
    let deadline = Instant::now() + LONG;
    while Instant::now() < deadline {
        let heard = monitor.wait(Duration::from_secs(1)).unwrap();
        assert!(!heard.lost);
        if let Some(first) = heard.transactions.into_iter().next() {
            return first;
        }
    }
    panic!("nothing is told");
}

fn removals() {
    Node::new().run(told);
}

fn told() {
    let mut monitor = Monitor::begin().unwrap();
    // What is added is no removal.
    nft(
        "table inet t { set s { type ipv4_addr; elements = { 10.0.0.1, 10.0.0.2 }; }; chain c { accept; }; chain d { }; }",
    );
    let mut expect = |command: &str, removed: &[Removed]| {
        nft(command);
        let told = next(&mut monitor);
        assert_eq!(told.process, "nft", "{command}");
        let whats: Vec<_> = told.removals.iter().map(|it| it.what.clone()).collect();
        assert!(
            removed.iter().all(|it| whats.contains(it)),
            "{command}: {whats:?}"
        );
        let of_table = |table: &str| table == "t";
        assert!(
            told.removals
                .iter()
                .all(|it| of_table(&it.table) && it.family == Family::Inet)
        );
    };
    // Two of a kind are told as one.
    expect(
        "delete element inet t s { 10.0.0.1, 10.0.0.2 }",
        &[Removed::Elements],
    );
    expect("delete chain inet t d", &[Removed::Chain("d".into())]);
    expect("flush chain inet t c", &[Removed::Rule("c".into())]);
    expect("delete set inet t s", &[Removed::Set]);
    expect("flush ruleset", &[Removed::Table]);
}
