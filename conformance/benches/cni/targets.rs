//! What the figures should be on a quiet machine. They are shown beside what was measured and never decide
//! whether a run succeeds: time belongs to the machine.

use crate::doctor;
use crate::kind::Kind;
use crate::report::Report;
use crate::report::section::{BURST, COSTS, FULL, ONE, STORE};
use crate::subject::Implementation::{self, Floor, Go, Trestle};
use crate::target::{Limit, Target};

/// Section, case, metric and whose: what names a figure.
type Figure<'a> = (&'a str, &'a str, &'a str, Implementation);

/// All targets with what this run says about them.
pub(crate) fn all(report: &Report) -> Vec<Target> {
    use Limit::{AtLeast, AtMost};
    let (plain, masq) = (Kind::Bridge.name(), Kind::Nftables.name());
    let value =
        |(section, case, metric, who): Figure<'_>| report.median(section, case, metric, who);
    let ratio = |text: &str, over: Figure<'_>, under: Figure<'_>, limit: Limit| Target {
        text: text.to_owned(),
        measured: value(over)
            .zip(value(under))
            .map(|(over, under)| over / under),
        limit,
    };
    let figure = |text: &str, of: Figure<'_>, limit: Limit| Target {
        text: text.to_owned(),
        measured: value(of),
        limit,
    };
    let mut targets = Vec::new();
    for (kind, add, del) in [
        (plain, 1.25, 1.1),
        (masq, 1.35, 1.1),
        (Kind::Iptables.name(), 2.0, 1.5),
        (Kind::DualStack.name(), 1.25, 1.1),
        (Kind::PtpPortmap.name(), 1.8, 1.3),
        (Kind::List.name(), 1.8, 1.3),
    ] {
        for (verb, limit) in [("ADD", add), ("DEL", del)] {
            targets.push(ratio(
                &format!("{verb} of {kind}, trestle to floor"),
                (ONE, kind, verb, Trestle),
                (ONE, kind, verb, Floor),
                AtMost(limit),
            ));
        }
    }
    for workers in [8, 32] {
        let case = |kind: &str| format!("{kind}, {workers} at once");
        for (kind, verb, limit) in [
            (plain, "ADD", 1.35),
            (masq, "ADD", 1.35),
            (masq, "DEL", 1.3),
        ] {
            let case = case(kind);
            targets.push(ratio(
                &format!("200 {verb}s of {case}, trestle to floor"),
                (BURST, &case, verb, Trestle),
                (BURST, &case, verb, Floor),
                AtMost(limit),
            ));
        }
    }
    for (kind, limit) in [(masq, 1.15), (Kind::DualStack.name(), 1.25)] {
        let case = format!("{kind}, 1000 attached");
        targets.push(ratio(
            &format!("ADD of {case}, trestle to floor"),
            (FULL, &case, "ADD", Trestle),
            (FULL, &case, "ADD", Floor),
            AtMost(limit),
        ));
    }
    targets.extend([
        ratio(
            "ADD with nftables masquerade, Go to trestle",
            (ONE, masq, "ADD", Go),
            (ONE, masq, "ADD", Trestle),
            AtLeast(10.0),
        ),
        ratio(
            "ADD of macvlan, trestle to floor",
            (ONE, "macvlan", "ADD", Trestle),
            (ONE, "macvlan", "ADD", Floor),
            AtMost(1.5),
        ),
        ratio(
            "ADD of macvlan, Go to trestle",
            (ONE, "macvlan", "ADD", Go),
            (ONE, "macvlan", "ADD", Trestle),
            AtLeast(5.0),
        ),
        ratio(
            "host-local ADD, 60000 addresses to none",
            (STORE, "60000 allocated", "ADD", Trestle),
            (STORE, "0 allocated", "ADD", Trestle),
            AtMost(1.2),
        ),
        ratio(
            "host-local DEL, 60000 addresses to none",
            (STORE, "60000 allocated", "DEL", Trestle),
            (STORE, "0 allocated", "DEL", Trestle),
            AtMost(1.2),
        ),
        figure(
            "doctor on a node with 1000 containers, ms",
            (FULL, doctor::CASE, "time", Trestle),
            AtMost(1000.0),
        ),
        ratio(
            "connections out of a pod, 1000 containers to 1",
            (
                FULL,
                "bridge, nftables masquerade, 1000 attached",
                "connections",
                Trestle,
            ),
            (
                FULL,
                "bridge, nftables masquerade, 1 attached",
                "connections",
                Trestle,
            ),
            AtLeast(0.95),
        ),
        figure(
            "child processes of an ADD with masquerade",
            (COSTS, masq, "ADD: child processes", Trestle),
            AtMost(0.0),
        ),
        figure(
            "MB of the binary",
            (
                COSTS,
                "files of bridge, ptp, host-local, loopback, portmap",
                "size",
                Trestle,
            ),
            AtMost(5.0),
        ),
    ]);
    targets
}
