//! On a crowded node.

use std::fmt::Write as _;

use conformance::{Case, Lab, Program, Protocol, case};
use serde_json::json;

use super::{Node, at};

pub(super) fn cases() -> Vec<Case> {
    vec![case!(
        among_ten_thousand_rules_and_a_thousand_links_the_one_that_drops_is_found
    )]
}

fn among_ten_thousand_rules_and_a_thousand_links_the_one_that_drops_is_found(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    let mut links = String::new();
    for number in 0..500 {
        let _ = writeln!(links, "link add l{number} type veth peer name m{number}");
        let _ = writeln!(links, "link set l{number} master cni0 up");
    }
    node.run(Program::new("ip").args(["-batch", "-"]).stdin(links))
        .succeeded();
    let mut rules =
        "table bridge crowd {\nchain forwarded {\ntype filter hook forward priority 0;\n"
            .to_owned();
    for number in 0..10_000 {
        let _ = writeln!(
            rules,
            "ip daddr 10.{}.{}.1 drop comment \"rule {number}\"",
            100 + number / 250,
            number % 250
        );
    }
    let ip = b.ips()[0];
    let _ = writeln!(
        rules,
        "ip daddr {ip} tcp dport 81 drop comment \"the last one\"\n}}\n}}"
    );
    node.run(Program::new("nft").args(["-f", "-"]).stdin(rules))
        .succeeded();
    let _server = b.serve(Protocol::Tcp, ip, 8080);
    node.follow(&a, &at(ip, 8080)).is("answered", &[]);
    node.follow(&a, &at(ip, 81))
        .is("dropped", &["bridge crowd forwarded"])
        .has("there", "(the last one): drop");
}
