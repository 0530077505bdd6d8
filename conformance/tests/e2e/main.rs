//! End to end: the container runtimes that people use, with the plugins under test in their plugin directory, and
//! firewalld, which the plugins use.
//!
//! Every test runs its daemons on a [`conformance::Machine`] of its own, which has to look at the end as it did before
//! the first container.

mod agent;
mod api_server;
mod containerd;
mod cri;
mod engine;
mod extras;
mod firewalld;
mod guarded;
mod image;
mod node;
mod podman;
mod readiness;
mod routing;
mod runtime;
mod template;
mod upgrade;

use std::net::IpAddr;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use conformance::{Case, Host, Machine, Need, Snapshot, Subject};

fn main() -> ExitCode {
    conformance::obtain_runtimes();
    let cases = [
        containerd::cases(),
        extras::cases(),
        readiness::cases(),
        upgrade::cases(),
        podman::cases(),
        firewalld::cases(),
        routing::cases(),
        template::cases(),
        agent::cases(),
    ];
    conformance::run(cases.into_iter().flatten().collect())
}

/// The machine's own addresses on the network outside, one of each family, and those of a machine there.
const MACHINE: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
const OUTSIDE: [&str; 2] = ["192.0.2.2", "2001:db8::2"];

/// A test that needs these plugins.
fn with_plugins(case: Case, plugins: &[&'static str]) -> Case {
    plugins
        .iter()
        .fold(case, |case, name| case.needs(Need::Plugin(name)))
}

/// A host on a network with the machine, and how the machine looks then.
fn outside(machine: &Machine) -> (Host, Snapshot) {
    let outside = Host::new();
    machine.cable("uplink", &outside, "eth0");
    let here: &Host = machine;
    for (place, device, [v4, v6]) in [(here, "uplink", MACHINE), (&outside, "eth0", OUTSIDE)] {
        place.ip(&format!("addr add {v4}/24 dev {device}"));
        place.ip(&format!("addr add {v6}/64 dev {device} nodad"));
    }
    let before = machine.observe();
    (outside, before)
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Whether something becomes so within ten seconds.
fn eventually(condition: impl Fn() -> bool) -> bool {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if condition() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    condition()
}

/// What the Go plugins keep in the firewall for all containers there will be.
const KEPT_BY_GO_PLUGINS: [&str; 6] = [
    "CNI-HOSTPORT-DNAT",
    "CNI-HOSTPORT-SETMARK",
    "CNI-HOSTPORT-MASQ",
    "CNI-FORWARD",
    "CNI-ADMIN",
    "CNI-ISOLATION-STAGE",
];

/// Check that runtimes and plugins have left nothing of these containers on a machine.
#[track_caller]
fn assert_nothing_left(
    machine: &Machine,
    subject: Subject,
    before: &Snapshot,
    containers: &[String],
) {
    let after = machine.observe();
    let mut left = after.leftovers(before);
    // The kernel finishes the IPv6 side of the test's cable in its own time.
    left.retain(|line| !(line.starts_with("+ route 6 ") && line.contains(" dev uplink ")));
    if subject == Subject::Go {
        left.retain(|line| !KEPT_BY_GO_PLUGINS.iter().any(|name| line.contains(name)));
    }
    assert!(left.is_empty(), "left behind:\n{}", left.join("\n"));
    for container in containers {
        let mentions = after.mentioning(container);
        assert!(
            mentions.is_empty(),
            "{container} is still known:\n{}",
            mentions.join("\n")
        );
    }
    let left = machine.inside().list("/run/netns");
    assert!(left.is_empty(), "network namespaces are left: {left:?}");
}
