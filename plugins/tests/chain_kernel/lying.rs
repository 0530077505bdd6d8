//! Containers that lie about their interfaces: the indices of links in a namespace, and what they claim to be joined to,
//! are its own choice.

use cni_conf::result::CniResult;
use serde_json::{Value, json};

use super::bandwidth::{attached, limits};
use super::support::{Needs, Node, Pod, Tests};

pub(crate) fn add(tests: &mut Tests) {
    for (name, test) in [
        (
            "lying_container_does_not_lift_a_neighbours_limit",
            lying_del as fn(&Node),
        ),
        ("lying_container_does_not_set_a_neighbours_limit", lying_add),
        (
            "lying_container_is_limited_by_the_alias_of_its_pair",
            lying_with_a_pair,
        ),
    ] {
        tests.add(name, Needs::Shaping, test);
    }
    for (name, test) in [
        (
            "lying_container_gets_no_neighbours_port_into_hairpin_mode",
            hairpin as fn(&Node),
        ),
        (
            "lying_container_gets_its_own_port_into_hairpin_mode",
            hairpin_beside_a_pair,
        ),
    ] {
        tests.add(name, Needs::BridgeNetfilter, test);
    }
    for (name, test) in [
        (
            "lying_container_does_not_deceive_check_of_bridge",
            check_of_bridge as fn(&Node),
        ),
        (
            "lying_container_does_not_deceive_check_of_ptp",
            check_of_ptp,
        ),
    ] {
        tests.add(name, Needs::Nothing, test);
    }
}

/// So that the ends of a pair have different indices: no namespace has two links of one index.
fn skip_an_index(node: &Node) {
    node.ip("link add skipped type bridge");
    node.ip("link del skipped");
}

/// Two pods with limits; the second one has thrown its interface away and claims to have the first one's.
fn liar(node: &Node, conf: &Value) -> (Pod, Pod, CniResult) {
    skip_an_index(node);
    let ((victim, at_victim), (liar, at_liar)) = (attached(node, "victim"), attached(node, "liar"));
    node.add("bandwidth", conf, &victim, Some(&at_victim))
        .unwrap();
    liar.claim_pair_of(&victim);
    (victim, liar, at_liar)
}

fn lying_del(node: &Node) {
    for (alias, name) in [(true, "ours"), (false, "theirs")] {
        let (victim, liar, previous) = liar(node, &limits(&["ingress", "egress"]));
        let end = node.end_of(&victim);
        if !alias {
            node.make_foreign(&end, name);
        }
        let before = node.rtnl.token_bucket(end.index).unwrap();
        let redirect = node.rtnl.ingress_redirect(end.index).unwrap();
        assert!(before.is_some() && redirect.is_some());
        node.del("bandwidth", &limits(&["ingress", "egress"]), &liar)
            .unwrap();
        assert_eq!(node.rtnl.token_bucket(end.index).unwrap(), before);
        assert_eq!(node.rtnl.ingress_redirect(end.index).unwrap(), redirect);
        let conf = json!({"ipam": node.ipam()});
        node.del("ptp", &conf, &liar).unwrap();
        drop(previous);
        node.del("bandwidth", &json!({}), &victim).unwrap();
        assert_eq!(node.rtnl.token_bucket(end.index).unwrap(), None);
        victim.ip("link del eth0");
        node.del("ptp", &conf, &victim).unwrap();
    }
}

fn lying_add(node: &Node) {
    let (victim, liar, previous) = liar(node, &limits(&["ingress"]));
    let end = node.end_of(&victim);
    let before = node.rtnl.token_bucket(end.index).unwrap();
    for (alias, conf) in [
        (true, limits(&["ingress", "egress"])),
        (
            true,
            json!({"ingressRate": 8_000, "ingressBurst": 8_000_000}),
        ),
        (false, limits(&["ingress", "egress"])),
    ] {
        if !alias {
            node.make_foreign(&end, "theirs");
        }
        let error = node
            .add("bandwidth", &conf, &liar, Some(&previous))
            .unwrap_err();
        assert!(error.msg.contains("no other end on the host"), "{error}");
        node.check("bandwidth", &conf, &liar, &previous)
            .unwrap_err();
        assert_eq!(node.rtnl.token_bucket(end.index).unwrap(), before);
        assert_eq!(node.rtnl.ingress_redirect(end.index).unwrap(), None);
    }
}

/// The container keeps its own interface by another name, and puts a pair of its own in its place.
fn lying_with_a_pair(node: &Node) {
    let ((victim, _), (liar, previous)) = (attached(node, "victim"), attached(node, "liar"));
    let (own, others) = (node.end_of(&liar), node.end_of(&victim));
    let inside = victim.eth0().index;
    liar.ip("link set eth0 down");
    liar.ip("link set eth0 name kept");
    // An index that is taken can't be claimed.
    let index = if liar.rtnl.link_by_index(inside).unwrap().is_some() {
        String::new()
    } else {
        format!("index {inside}")
    };
    liar.ip(&format!(
        "link add name eth0 {index} type veth peer name x index {}",
        others.index
    ));
    let conf = limits(&["ingress"]);
    node.add("bandwidth", &conf, &liar, Some(&previous))
        .unwrap();
    assert!(node.rtnl.token_bucket(own.index).unwrap().is_some());
    assert_eq!(node.rtnl.token_bucket(others.index).unwrap(), None);
    node.del("bandwidth", &conf, &liar).unwrap();
    assert_eq!(node.rtnl.token_bucket(own.index).unwrap(), None);
}

fn check_of_bridge(node: &Node) {
    let conf = json!({"bridge": "br0", "isDefaultGateway": true, "ipam": node.ipam()});
    deceived_check(node, "bridge", &conf);
}

fn check_of_ptp(node: &Node) {
    deceived_check(node, "ptp", &json!({"ipam": node.ipam()}));
}

/// The container has an interface that looks as it should, joined to its neighbour's end if one believes it.
fn deceived_check(node: &Node, plugin: &str, conf: &Value) {
    skip_an_index(node);
    let (victim, liar) = (Pod::new("victim"), Pod::new("liar"));
    node.add(plugin, conf, &victim, None).unwrap();
    let result = node.add(plugin, conf, &liar, None).unwrap();
    node.check(plugin, conf, &liar, &result).unwrap();
    let mac = result.interfaces.last().unwrap().mac.clone();
    liar.claim_pair_of(&victim);
    liar.ip(&format!("link set eth0 address {mac}"));
    liar.ip("link set x up");
    liar.ip("link set eth0 up");
    for ip in &result.ips {
        liar.ip(&format!("address add {} dev eth0 nodad", ip.address));
    }
    for ip in &result.ips {
        let gateway = ip.gateway.unwrap();
        let family = if gateway.is_ipv4() { "-4" } else { "-6" };
        liar.ip(&format!(
            "{family} route add default via {gateway} dev eth0"
        ));
        if plugin == "ptp" {
            // What ptp's CHECK compares on the host's end is the address.
            let address = ip.address.addr();
            let end = node.end_of(&victim).name;
            node.ip(&format!("route replace {address} dev {end}"));
        }
    }
    let error = node.check(plugin, conf, &liar, &result).unwrap_err();
    assert!(error.msg.contains("no peer on the host"), "{error}");
}

fn bridged(node: &Node) -> Value {
    json!({"bridge": "br0", "isDefaultGateway": true, "ipam": node.ipam()})
}

fn mapped(node: &Node, port: u16) -> Value {
    let mappings = json!([{"hostPort": port, "containerPort": 80, "protocol": "tcp"}]);
    json!({"dataDir": node.path("portmap"), "backend": "nftables", "runtimeConfig": {"portMappings": mappings}})
}

fn has_hairpin(node: &Node, end: u32) -> bool {
    let link = node.rtnl.link_by_index(end).unwrap().unwrap();
    link.port.expect("a port of a bridge").hairpin
}

/// A container on a bridge that has thrown its interface away and claims to have its neighbour's, by index and by alias, with
/// what ADD said of it; the neighbour, who has to stay, and its end are given too.
fn liar_on_a_bridge(node: &Node) -> (Pod, CniResult, Pod, u32) {
    skip_an_index(node);
    let (victim, liar) = (Pod::new("victim"), Pod::new("liar"));
    node.add("bridge", &bridged(node), &victim, None).unwrap();
    let result = node.add("bridge", &bridged(node), &liar, None).unwrap();
    let end = node.end_of(&victim);
    liar.claim_pair_of(&victim);
    for name in ["eth0", "x"] {
        let alias = end.alias.as_deref().unwrap();
        liar.ip(&format!("link set {name} alias {alias}"));
        liar.ip(&format!("link set {name} up"));
    }
    (liar, result, victim, end.index)
}

fn hairpin(node: &Node) {
    let (liar, mut result, _victim, end) = liar_on_a_bridge(node);
    node.add("portmap", &mapped(node, 8080), &liar, Some(&result))
        .unwrap();
    assert!(!has_hairpin(node, end));
    node.del("portmap", &mapped(node, 8080), &liar).unwrap();
    // Nor when a result of another plugin's names the neighbour's end.
    let name = node.rtnl.link_by_index(end).unwrap().unwrap().name;
    for interface in &mut result.interfaces {
        if interface.sandbox.is_empty() && interface.name.starts_with("veth") {
            interface.name.clone_from(&name);
        }
    }
    node.add("portmap", &mapped(node, 8080), &liar, Some(&result))
        .unwrap();
    assert!(!has_hairpin(node, end));
}

/// The container keeps its own interface by another name: what is found is its own end, and an honest one's is found, too.
fn hairpin_beside_a_pair(node: &Node) {
    skip_an_index(node);
    let (victim, liar) = (Pod::new("victim"), Pod::new("liar"));
    let of_victim = node.add("bridge", &bridged(node), &victim, None).unwrap();
    let result = node.add("bridge", &bridged(node), &liar, None).unwrap();
    let (own, others) = (node.end_of(&liar), node.end_of(&victim));
    for words in [
        "link set eth0 down".to_owned(),
        "link set eth0 name kept".to_owned(),
        format!(
            "link add name eth0 type veth peer name x index {}",
            others.index
        ),
    ] {
        liar.ip(&words);
    }
    node.add("portmap", &mapped(node, 8080), &liar, Some(&result))
        .unwrap();
    assert!(has_hairpin(node, own.index) && !has_hairpin(node, others.index));
    node.add("portmap", &mapped(node, 8081), &victim, Some(&of_victim))
        .unwrap();
    assert!(has_hairpin(node, others.index));
}
