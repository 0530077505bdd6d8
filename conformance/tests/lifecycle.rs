//! ADD, CHECK and DEL of containers on a bridge, in the order that runtimes and accidents bring about.

use std::process::ExitCode;

use conformance::{Host, Lab, Need, Protocol, address, case};

fn main() -> ExitCode {
    conformance::run(vec![
        case!(two_pods_talk_over_a_bridge).needs(Need::Cnitool),
    ])
}

const PLAIN: &str = r#"{
    "cniVersion": "1.0.0", "name": "plain",
    "plugins": [{
        "type": "bridge", "bridge": "cni0", "isGateway": true,
        "ipam": {
            "type": "host-local", "routes": [{"dst": "0.0.0.0/0"}],
            "ranges": [[{"subnet": "10.88.0.0/24"}]]
        }
    }]
}"#;

fn two_pods_talk_over_a_bridge(lab: &Lab) {
    let host = Host::new();
    host.configure("10-plain.conflist", PLAIN);
    let cnitool = lab.cnitool(&host);
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = host.observe();

    let first = address(&cnitool.add("plain", &a), 0);
    let second = address(&cnitool.add("plain", &b), 0);
    assert!(a.pings(second), "a reaches b");
    assert!(b.pings(first), "b reaches a");
    for protocol in Protocol::BOTH {
        let server = b.serve(protocol, second, 80);
        assert_eq!(a.ask(protocol, server.address).expect("an answer"), first);
    }
    cnitool.check("plain", &a);
    cnitool.check("plain", &b);
    cnitool.del("plain", &a);
    cnitool.del("plain", &b);
    host.assert_nothing_left(&before, &[]);
}
