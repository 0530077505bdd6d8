//! Rules that somebody flushes.

use conformance::{Case, Lab, Need, case};

use crate::world::{Node, World, until};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_flush_is_repaired_when_it_happens).needs(Need::Cnitool),
        case!(pods_that_come_and_go_cause_no_repair).needs(Need::Cnitool),
    ]
}

fn rules(node: &Node) -> String {
    node.host.sh("nft list ruleset")
}

fn repairs(node: &Node) -> f64 {
    let outcomes = ["fine", "repaired", "broken", "failed"];
    let count = |outcome: &&str| {
        node.metric(&format!(
            "trestle_node_repairs_total{{outcome=\"{outcome}\"}}"
        ))
    };
    outcomes.iter().map(count).sum()
}

/// The one at the start, which is none of a flush's.
fn until_the_first_repair(node: &Node) {
    until(
        "the first one is done",
        || repairs(node) > 0.5,
        || node.log(),
    );
}

fn a_flush_is_repaired_when_it_happens(lab: &Lab) {
    let world = World::new();
    let one = world.node(1);
    let _agent = one.run(lab, &[]);
    until_the_first_repair(&one);
    let (pod, addresses) = one.attach(lab, "pod");
    let address = addresses[0].to_string();
    let is_whole = || one.cnitool(lab).call("check", "podnet", &pod.netns()).ok();
    assert!(rules(&one).contains(&address), "{}", rules(&one));
    assert!(is_whole());
    let repaired = || one.metric("trestle_node_repairs_total{outcome=\"repaired\"}");
    // By whatever tool: everything, the table, and the rules of a table.
    for flush in [
        "nft flush ruleset",
        "nft delete table inet trestle",
        "nft flush table inet trestle",
    ] {
        let before = repaired();
        one.host.sh(flush);
        let is_so = || repaired() > before + 0.5 && is_whole();
        until(flush, is_so, || format!("{}\n{}", rules(&one), one.log()));
        assert!(rules(&one).contains(&address), "{}", rules(&one));
    }
    assert!(one.metric("trestle_node_repaired_attachments_total") > 2.5);
}

fn pods_that_come_and_go_cause_no_repair(lab: &Lab) {
    let world = World::new();
    let one = world.node(1);
    let _agent = one.run(lab, &[]);
    until_the_first_repair(&one);
    // The network's rules come with the first pod, by `nft`.
    let _stays = one.attach(lab, "stays");
    let before = repairs(&one);
    for number in 0..5 {
        let (pod, _) = one.attach(lab, &format!("pod-{number}"));
        one.cnitool(lab).del("podnet", &pod);
    }
    // One that matters, for a moment at which all that was told before has been read.
    one.host.sh("nft add table inet strange");
    one.host.sh("nft delete table inet strange");
    until(
        "the stranger's is seen",
        || repairs(&one) > before + 0.5,
        || one.log(),
    );
    assert!((repairs(&one) - before - 1.0).abs() < 0.5, "{}", one.log());
}
