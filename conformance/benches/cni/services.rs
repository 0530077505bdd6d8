//! Beside kube-proxy with its rules for 2,000 Services, 10,000 of them in mode iptables: what `firewall` costs there.

use std::time::Duration;

use conformance::{Host, Pod, ProxyMode};

use crate::attach;
use crate::burst;
use crate::options::Options;
use crate::report::{Report, section};
use crate::say;
use crate::stats::{Effort, interleave};
use crate::subject::{Implementation, Kind, Network, Subject};

const SERVICES: u16 = 2_000;
const BURST: usize = 30;

/// Containers of a full node: firewall by trestle is also measured there.
const MANY: usize = 1_000;
const WORKERS: usize = 8;

/// What is on the host, and the command that makes it drop forwarded packets.
const NODES: [(&str, ProxyMode, Option<&str>); 3] = [
    ("kube-proxy iptables", ProxyMode::Iptables, None),
    ("kube-proxy nftables", ProxyMode::Nftables, None),
    (
        "kube-proxy iptables, FORWARD drops",
        ProxyMode::Iptables,
        Some("iptables -P FORWARD DROP"),
    ),
];

/// A network beside kube-proxy, with pods to attach.
struct Beside {
    case: String,
    network: Network,
    pods: Vec<Pod>,
    /// Containers that are attached already, beside the one that every network has.
    residents: Vec<Pod>,
}

impl Beside {
    /// Those of a node that is not full, which many more can be attached to.
    fn has_room(&self) -> bool {
        self.residents.is_empty()
    }
}

/// One container at a time and thirty together, with firewall and without.
pub(crate) fn measure(subjects: &[Subject], options: &Options, report: &mut Report) {
    let networks = networks(subjects, report);
    let mut all_series: Vec<_> = networks
        .iter()
        .filter_map(|it| Some(attach::series(&it.case, &it.network, it.pods.first()?)))
        .collect();
    let effort = |rounds: usize, patience: u64| Effort {
        rounds: rounds.max(1),
        warm_up: 1,
        patience: Duration::from_secs(patience),
    };
    interleave(&mut all_series, effort(options.rounds, 3));
    report.take(section::SERVICES, "ms", &all_series);
    let mut all_series: Vec<_> = networks
        .iter()
        .filter(|it| it.has_room())
        .map(|it| {
            let case = format!("{}, {BURST} at once", it.case);
            burst::series(case, &it.network, &it.pods, WORKERS)
        })
        .collect();
    interleave(&mut all_series, effort(options.rounds.div_ceil(12), 4));
    report.take(section::SERVICES, "ms", &all_series);
}

fn networks(subjects: &[Subject], report: &mut Report) -> Vec<Beside> {
    let mut networks = Vec::new();
    for (node, mode, guard) in NODES {
        for subject in subjects.iter().filter(|it| it.who != Implementation::Floor) {
            let full = subject.who == Implementation::Trestle;
            for (kind, attached) in [
                (Kind::Bridge, 1),
                (Kind::Firewall, 1),
                (Kind::Firewall, MANY),
            ] {
                if attached > 1 && !full {
                    continue;
                }
                let case = match attached {
                    1 => format!("{}, {node}", kind.name()),
                    _ => format!("{}, {node}, {attached} attached", kind.name()),
                };
                say(&format!("preparing {}, {case}", subject.who.name()));
                let host = Host::new();
                host.kube_proxy_of(mode, SERVICES);
                guard.into_iter().for_each(|command| {
                    host.sh(command);
                });
                match beside(host, subject, kind, &case, attached) {
                    Ok(beside) => networks.push(beside),
                    Err(reason) => {
                        report.skip(format!("{}, {case}: {reason}", subject.who.name()));
                    }
                }
            }
        }
    }
    networks
}

/// A network with so many containers attached.
fn beside(
    host: Host,
    subject: &Subject,
    kind: Kind,
    case: &str,
    attached: usize,
) -> Result<Beside, String> {
    let network = Network::on(host, subject, kind)?;
    let pods = |count: usize, name: &str| -> Vec<Pod> {
        let names = (0..count).map(|number| format!("{name}-{number}"));
        names.map(|name| network.host.pod(&name)).collect()
    };
    let residents = pods(attached - 1, "resident");
    burst::attach_all(&network, &residents, WORKERS)?;
    Ok(Beside {
        case: case.to_owned(),
        pods: pods(if attached == 1 { BURST } else { 1 }, "beside"),
        residents,
        network,
    })
}
