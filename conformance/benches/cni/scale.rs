//! What should cost the same however much there is: thousands of containers on one host, and thousands of ports of one
//! container. Only trestle is put to it: the limits are its own.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use conformance::{Host, Pod};
use serde_json::{Value, json};

use crate::attach::milliseconds;
use crate::options::Options;
use crate::process::Call;
use crate::report::{Report, section};
use crate::say;
use crate::stats::{Effort, Figures, Series, interleave};
use crate::subject::{Implementation, Subject};

/// How many containers are attached already. A bridge takes no more than 1,023 of them, ptp any number.
const DENSITY: [u16; 2] = [1, 4_000];

/// How many ports of a container are mapped.
const PORTS: [u16; 5] = [1, 10, 100, 1_000, 10_000];

/// The first port of the host that is mapped.
const FIRST_PORT: u16 = 20_000;

const WORKERS: usize = 4;

/// A host, and a list of plugins that containers are attached to it by.
struct Node<'s> {
    host: Host,
    bin: &'s Path,
    /// The plugins for the container that has so many ports from that one on.
    plugins: Box<dyn Fn(u16, u16) -> Vec<Value> + Sync + 's>,
}

/// A container that is attached.
struct Attached {
    container: String,
    netns: String,
    plugins: Vec<Value>,
    result: Value,
}

impl Node<'_> {
    /// ADD of the list, and the milliseconds that it takes.
    fn add(&self, pod: &Pod, first: u16, ports: u16) -> Result<(Attached, Duration), String> {
        let mut attached = Attached {
            container: pod.name.clone(),
            netns: pod.netns(),
            plugins: (self.plugins)(first, ports),
            result: Value::Null,
        };
        let mut took = Duration::ZERO;
        for plugin in &attached.plugins {
            let done = self.call("ADD", plugin, &attached).run()?.succeeded()?;
            took += done.took;
            attached.result =
                serde_json::from_slice(&done.stdout).map_err(|error| format!("ADD: {error}"))?;
        }
        Ok((attached, took))
    }

    /// Another verb of the list, in the order that runtimes have for it.
    fn run(&self, verb: &str, attached: &Attached) -> Result<Duration, String> {
        let mut plugins: Vec<_> = attached.plugins.iter().collect();
        if verb == "DEL" {
            plugins.reverse();
        }
        let each = plugins.into_iter().map(|plugin| {
            let done = self.call(verb, plugin, attached).run()?.succeeded()?;
            Ok(done.took)
        });
        each.sum()
    }

    fn call(&self, verb: &str, plugin: &Value, attached: &Attached) -> Call {
        let mut configuration = plugin.clone();
        configuration["cniVersion"] = json!("1.0.0");
        configuration["name"] = json!("bench");
        if !attached.result.is_null() {
            configuration["prevResult"] = attached.result.clone();
        }
        let program = plugin["type"].as_str().unwrap_or_default();
        Call {
            command: vec![self.bin.join(program)],
            env: vec![
                ("CNI_COMMAND", verb.to_owned()),
                ("CNI_CONTAINERID", attached.container.clone()),
                ("CNI_NETNS", attached.netns.clone()),
                ("CNI_IFNAME", "eth0".to_owned()),
                ("CNI_PATH", self.bin.to_string_lossy().into_owned()),
            ],
            stdin: configuration.to_string().into_bytes(),
        }
    }

    /// ADD, CHECK and DEL of one container, in milliseconds for each of `share` parts.
    fn figures(&self, pod: &Pod, first: u16, ports: u16, share: u16) -> Result<Figures, String> {
        self.host.enter(|| {
            let (attached, add) = self.add(pod, first, ports)?;
            let check = self.run("CHECK", &attached)?;
            let del = self.run("DEL", &attached)?;
            let figure =
                |verb: &str, took| (verb.to_owned(), milliseconds(took) / f64::from(share));
            Ok(vec![
                figure("ADD", add),
                figure("CHECK", check),
                figure("DEL", del),
            ])
        })
    }

    /// Attaches so many containers, some at a time, each with a port of its own. They stay.
    fn fill(&self, count: u16) -> Result<Vec<Pod>, String> {
        let pods = (0..count).map(|number| self.host.pod(&format!("dense-{number}")));
        let pods: Vec<Pod> = pods.collect();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
                let number = pod.name.rsplit('-').next().and_then(|it| it.parse().ok());
                self.add(pod, FIRST_PORT + number.unwrap_or(0), 1)?;
            }
            Ok::<_, String>(())
        };
        self.host.enter(|| {
            thread::scope(|scope| {
                let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
                let mut ends = threads.into_iter().map(|thread| thread.join());
                ends.try_for_each(|end| end.map_err(|_| "a worker panicked".to_owned())?)
            })
        })?;
        Ok(pods)
    }

    /// What is kept for those that are attached.
    fn kept(&self) -> String {
        let size = self.host.sh("du -sk --apparent-size /run/cni /var/lib/cni");
        let files = self.host.sh("find /run/cni /var/lib/cni -type f");
        let rules = self.host.sh("nft list ruleset");
        format!(
            "{} files, {} KiB by du; the rules are {} KiB as text",
            files.lines().count(),
            size.lines()
                .filter_map(|line| line.split_whitespace().next()?.parse::<u64>().ok())
                .sum::<u64>(),
            rules.len() / 1024
        )
    }
}

fn mappings(first: u16, count: u16) -> Value {
    let each = (0..count).map(|number| {
        let protocol = if number % 2 == 0 { "tcp" } else { "udp" };
        json!({"hostPort": first + number, "containerPort": 80, "protocol": protocol})
    });
    json!({"portMappings": each.collect::<Vec<_>>()})
}

fn trestle(subjects: &[Subject]) -> Option<&Subject> {
    let mut subjects = subjects.iter();
    subjects.find(|subject| subject.who == Implementation::Trestle)
}

fn effort(options: &Options, patience: u64) -> Effort {
    Effort {
        rounds: options.rounds.div_ceil(4).max(1),
        warm_up: 1,
        patience: Duration::from_secs(patience),
    }
}

/// ptp with masquerade, a port and firewall, where iptables drops what it isn't told to forward.
pub(crate) fn density(subjects: &[Subject], options: &Options, report: &mut Report) {
    let Some(subject) = trestle(subjects) else {
        return;
    };
    let mut nodes = Vec::new();
    for level in DENSITY {
        say(&format!("preparing trestle, {level} containers by ptp"));
        let node = Node {
            host: Host::new(),
            bin: &subject.bin,
            plugins: Box::new(|first, ports| {
                let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]],
                    "routes": [{"dst": "0.0.0.0/0"}]});
                vec![
                    json!({"type": "ptp", "ipMasq": true, "ipMasqBackend": "nftables", "ipam": ipam}),
                    json!({"type": "portmap", "runtimeConfig": mappings(first, ports)}),
                    json!({"type": "firewall"}),
                ]
            }),
        };
        node.host.sh("iptables -P FORWARD DROP");
        match node.fill(level) {
            Ok(pods) => {
                report.note(format!("density, {level} attached: {}", node.kept()));
                let spare = node.host.pod("spare");
                nodes.push((level, node, pods, spare));
            }
            Err(reason) => report.skip(format!("density, {level} attached: {reason}")),
        }
    }
    let each = nodes.iter().map(|(level, node, _, spare)| {
        let case = format!("ptp + portmap + firewall, {level} attached");
        Series::new(case, subject.who.name(), move || {
            node.figures(spare, FIRST_PORT - 1, 1, 1)
        })
    });
    let mut all_series: Vec<_> = each.collect();
    interleave(&mut all_series, effort(options, 10));
    report.take(section::DENSITY, "ms", &all_series);
}

/// From one port to ten thousand, half of them UDP, both families: what each costs.
pub(crate) fn ports(subjects: &[Subject], options: &Options, report: &mut Report) {
    let Some(subject) = trestle(subjects) else {
        return;
    };
    let node = |backend: &'static str| Node {
        host: Host::new(),
        bin: &subject.bin,
        plugins: Box::new(move |first, ports| {
            let ranges = json!([[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]]);
            let ipam = json!({"type": "host-local", "ranges": ranges, "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]});
            vec![
                json!({"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipam": ipam}),
                json!({"type": "portmap", "backend": backend, "runtimeConfig": mappings(first, ports)}),
            ]
        }),
    };
    let nodes = ["nftables", "iptables"].map(|backend| (backend, node(backend)));
    let pods: Vec<_> = nodes.iter().map(|(_, node)| node.host.pod("pod")).collect();
    let mut all_series = Vec::new();
    for ((backend, node), pod) in nodes.iter().zip(&pods) {
        for count in PORTS {
            let case = format!("{count} ports, {backend}");
            let figures = move || node.figures(pod, FIRST_PORT, count, count);
            all_series.push(Series::new(case, subject.who.name(), figures));
        }
    }
    interleave(&mut all_series, effort(options, 15));
    report.take(section::PORTS, "ms for each port", &all_series);
}
