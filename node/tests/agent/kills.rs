//! An agent that is killed at any moment, while nodes come, go and move.

use std::thread::sleep;
use std::time::Duration;

use conformance::{Case, Lab, case};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::world::{Node, World};

pub(crate) fn cases() -> Vec<Case> {
    vec![case!(
        routes_are_right_in_the_end_whenever_the_agent_is_killed
    )]
}

/// Numbers that look random and are the same each time (Marsaglia's xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn routes_are_right_in_the_end_whenever_the_agent_is_killed(lab: &Lab) {
    let rounds = if std::env::var_os("TRESTLE_FULL").is_some() {
        100
    } else {
        25
    };
    let mut random = Random(0x7265_7374);
    let world = World::new();
    let one = world.node(1);
    // Whether each of the others is there, and by which address.
    let mut others: Vec<Option<u8>> = vec![None; 12];
    for round in 0..rounds {
        let agent = one.start(lab, &["--repair", "off", "--gc", "off"]);
        for _ in 0..random.below(6) {
            sleep(Duration::from_millis(random.below(30)));
            let index = usize::try_from(random.below(12)).unwrap();
            let address = 100 + u8::try_from(random.below(100)).unwrap();
            others[index] = match random.below(3) {
                0 => None,
                _ => Some(address),
            };
            tell(&world, index, others[index]);
        }
        sleep(Duration::from_millis(random.below(60)));
        agent.end(Signal::SIGKILL);
        // Whatever was done halfway, no route leads where no node ever was.
        for route in one.routes() {
            assert!(route.starts_with("10.244."), "round {round}: {route}");
        }
    }
    let _agent = one.run(lab, &[]);
    let mut expected: Vec<String> = others
        .iter()
        .enumerate()
        .filter_map(|(index, address)| {
            Some(format!(
                "10.244.{}.0/24 via 192.168.77.{}",
                10 + index,
                (*address)?
            ))
        })
        .collect();
    expected.sort();
    one.until_routes(&expected);
    assert_eq!(
        one.host.list(conformance::Host::NET_D),
        ["10-trestle.conflist"]
    );
    let plugins = one.host.list("/run/cni-bin");
    let left: Vec<&String> = plugins
        .iter()
        .filter(|name| name.ends_with(".tmp"))
        .collect();
    assert!(left.len() <= rounds, "{left:?}");
    assert!(Node::list(&one).is_some());
}

fn tell(world: &World, index: usize, address: Option<u8>) {
    let name = format!("other-{index}");
    let Some(address) = address else {
        return world.api.delete(&name);
    };
    let subnet = format!("10.244.{}.0/24", 10 + index);
    let address = format!("192.168.77.{address}");
    world.api.put(json!({
        "metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"podCIDR": subnet, "podCIDRs": [subnet]},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }));
}
