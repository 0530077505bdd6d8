//! Forgetting tracked connections.

use std::net::UdpSocket;
use std::time::Duration;

use plugins::host::conntrack::Conntrack;

use crate::Case;
use crate::scene::Scene;

pub(crate) const CASES: &[Case] = &[Case {
    name: "a_forgotten_udp_flow_follows_the_rules_of_now",
    needs: &["nft", "ip"],
    run: forget,
}];

const UDP: u8 = 17;

/// A client keeps asking at one address of the host from one port, while the address is led elsewhere.
fn forget() {
    let scene = Scene::new();
    for (node, answer) in [(&scene.pod, "pod"), (&scene.neighbour, "near")] {
        let server = node.run(|| UdpSocket::bind("0.0.0.0:5300").unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((_, from)) = server.recv_from(&mut buffer) {
                let _ = server.send_to(answer.as_bytes(), from);
            }
        });
    }
    let client = scene
        .outside
        .run(|| UdpSocket::bind("192.0.2.2:0").unwrap());
    client
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let ask = || {
        client.send_to(b"?", "192.0.2.1:53").unwrap();
        let mut buffer = [0; 64];
        let (length, _) = client.recv_from(&mut buffer).expect("an answer");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let lead_to = |address: &str| {
        scene.host.sh(&format!(
            "nft 'add table ip t; flush table ip t; add chain ip t pre {{ type nat hook prerouting priority -100; }};
             add rule ip t pre udp dport 53 dnat to {address}:5300'"
        ));
    };
    lead_to("10.1.0.5");
    assert_eq!(ask(), "pod");
    lead_to("10.1.0.6");
    assert_eq!(ask(), "pod", "a flow keeps its translation");
    scene.host.run(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let flows = conntrack
            .flows(false, |flow| flow.original.destination_port == 53)
            .unwrap();
        assert_eq!(flows.len(), 1);
        assert_eq!(flows[0].reply.source.to_string(), "10.1.0.5");
        assert_eq!(
            (flows[0].reply.protocol, flows[0].reply.source_port),
            (UDP, 5300)
        );
        // One by its tuple, and none by another.
        let by_tuple = conntrack.flow(&flows[0].original).unwrap();
        assert_eq!(by_tuple.as_ref(), Some(&flows[0]));
        let mut other = flows[0].original;
        other.source_port ^= 1;
        assert_eq!(conntrack.flow(&other).unwrap(), None);
        let other = conntrack
            .forget(false, |flow| flow.original.destination_port == 54)
            .unwrap();
        let gone = conntrack.forget(false, |flow| {
            flow.original.protocol == UDP && flow.reply.source == flows[0].reply.source
        });
        assert_eq!((other, gone.unwrap()), (0, 1));
        assert_eq!(
            conntrack
                .flows(true, |flow| flow.original.protocol == UDP)
                .unwrap(),
            []
        );
    });
    assert_eq!(ask(), "near");
}
