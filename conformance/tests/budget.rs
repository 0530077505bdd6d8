//! What a call may ask of the kernel, counted by strace: system calls, netlink messages, child processes.
//!
//! Counts don't depend on the machine's mood, so they guard the speed where time can't. A budget leaves a little
//! room above what was counted when it was set. Who needs more for a good reason raises it; who needs much less
//! lowers it.

#[path = "../benches/cni/supervise.rs"]
mod supervise;
#[path = "../benches/cni/trace.rs"]
mod trace;

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::sync::Arc;

use conformance::{
    Host, Lab, Need, Output, Pod, Program, ProxyMode, Subject, bridge, host_local, ipam_network,
    with, with_prev_result,
};
use libtest_mimic::{Arguments, Trial};
use serde_json::{Value, json};
use trace::Trace;

const TRACE: &str = "/run/trace";

/// Upper bounds of one call.
struct Budget {
    calls: usize,
    messages: usize,
}

/// bridge + host-local, the network and other containers being there.
const BRIDGE: [Budget; 2] = [
    Budget {
        calls: 124,
        messages: 10,
    },
    Budget {
        calls: 85,
        messages: 6,
    },
];

/// The same with masquerade in nftables.
const MASQUERADE: [Budget; 2] = [
    Budget {
        calls: 130,
        messages: 14,
    },
    Budget {
        // Five hand a socket over, which spares a grace period.
        calls: 97,
        // Two of them ask whether iptables has a chain of the owner's: the backend may have been changed since ADD.
        messages: 11,
    },
];

/// host-local, called as a runtime's plugin calls it.
const HOST_LOCAL: [Budget; 2] = [
    Budget {
        calls: 80,
        messages: 0,
    },
    Budget {
        calls: 95,
        messages: 0,
    },
];

/// Instructions in user space of ADD and DEL, with masquerade in nftables.
const INSTRUCTION_BUDGET: [u64; 2] = [700_000, 380_000];

const INSTRUCTIONS: &str = "instructions_in_user_space_stay_within_budget";

/// Where callgrind writes what it counted.
const COUNTED: &str = "/run/callgrind";

/// How many containers are attached at a time where many are.
const WORKERS: usize = 4;

type Test = fn(&Lab);

fn main() -> ExitCode {
    if std::env::var_os(RUN_ONE).is_some() {
        return run_one();
    }
    let arguments = Arguments::from_args();
    let lab = Arc::new(Lab::open());
    let reason = match (lab.problem(), lab.subject) {
        (Some(problem), _) => Some(problem.to_owned()),
        (None, Subject::Go) => Some("trestle's own behaviour".to_owned()),
        (None, Subject::Trestle) => trace::unavailable(),
    };
    let no_instructions = reason.clone().or_else(|| why_not_counted(&lab));
    let tests: [(&str, Test); 15] = [
        (
            "bridge_and_host_local_stay_within_budget",
            bridge_within_budget,
        ),
        ("masquerade_stays_within_budget", masquerade_within_budget),
        ("host_local_stays_within_budget", host_local_within_budget),
        (
            "a_call_does_the_same_beside_few_and_many_containers",
            flat_in_containers,
        ),
        (
            "a_call_does_the_same_with_few_and_many_addresses_allocated",
            flat_in_addresses,
        ),
        (
            "each_address_of_others_costs_the_same",
            linear_in_foreign_addresses,
        ),
        (
            "a_call_does_the_same_beside_few_and_many_services",
            flat_in_services,
        ),
        (
            "firewall_does_the_same_beside_few_and_many_containers_and_services",
            firewall_flat_in_containers,
        ),
        (
            "a_thousand_interfaces_of_a_kind_come_and_go",
            thousand_interfaces,
        ),
        (
            "sysctls_of_a_container_are_not_looked_up_below_proc",
            own_procfs,
        ),
        (
            "a_port_has_its_settings_before_it_comes_up",
            settings_before_up,
        ),
        (
            "standard_descriptors_that_are_closed_lead_nowhere",
            closed_descriptors,
        ),
        (
            "nobody_waits_until_what_a_del_removed_is_freed",
            no_grace_period,
        ),
        (
            "an_interrupted_benchmark_leaves_nothing",
            interrupted_benchmark,
        ),
        (INSTRUCTIONS, instructions_within_budget),
    ];
    let trials = tests.into_iter().map(|(name, test)| {
        let reason = if name == INSTRUCTIONS {
            &no_instructions
        } else {
            &reason
        };
        let (lab, name) = (Arc::clone(&lab), format!("budget::{name}"));
        let trial = Trial::test(name, move || {
            test(&lab);
            Ok(())
        });
        match reason {
            Some(reason) => trial
                .with_kind(format!("skipped: {reason}"))
                .with_ignored_flag(true),
            None => trial,
        }
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Not Conclusion::exit, which would leave the installed plugins lying about.
    drop(lab);
    conclusion.exit_code()
}

fn bridge_within_budget(lab: &Lab) {
    let node = Node::new(lab, bridge(ipam()));
    node.attach(2);
    assert_within(&node.counts(), &BRIDGE);
}

fn masquerade_within_budget(lab: &Lab) {
    let node = Node::new(lab, masqueraded());
    node.attach(2);
    assert_within(&node.counts(), &MASQUERADE);
}

fn host_local_within_budget(lab: &Lab) {
    let node = Node::new(lab, ipam_network(ipam()));
    node.attach(2);
    assert_within(&node.counts(), &HOST_LOCAL);
}

/// Why instructions can't be counted here, if they can't.
fn why_not_counted(lab: &Lab) -> Option<String> {
    let valgrind = std::process::Command::new("valgrind")
        .arg("--version")
        .output();
    if valgrind.is_err() {
        return Some("no valgrind on this machine: install valgrind".to_owned());
    }
    // A release build is stripped; others count for nothing.
    let binary = std::fs::read(lab.bin().join("bridge")).unwrap_or_default();
    let debug = binary.windows(7).any(|bytes| bytes == b".symtab");
    debug.then(|| "the binary under test is no release build".to_owned())
}

fn instructions_within_budget(lab: &Lab) {
    let node = Node::new(lab, masqueraded());
    node.attach(2);
    let netns = node.pod.netns();
    for verb in ["ADD", "DEL", "ADD", "DEL"] {
        node.call(verb, "warm-up", &netns, "eth0", &[]);
    }
    let output = format!("--callgrind-out-file={COUNTED}");
    let wrapper = ["valgrind", "--tool=callgrind", &output].map(str::to_owned);
    for (verb, budget) in ["ADD", "DEL"].into_iter().zip(INSTRUCTION_BUDGET) {
        node.call(verb, "counted", &netns, "eth0", &wrapper);
        let counted = node.host.read(COUNTED).expect("what callgrind counted");
        let total = counted
            .lines()
            .find_map(|line| line.strip_prefix("totals:")?.trim().parse::<u64>().ok());
        let total = total.expect("a sum");
        assert!(
            total <= budget,
            "{verb} takes {total} instructions, {budget} are allowed"
        );
    }
}

fn flat_in_containers(lab: &Lab) {
    let node = Node::new(lab, masqueraded());
    node.attach(2);
    let few = node.counts();
    node.attach(40);
    assert_same(&few, &node.counts());
}

fn flat_in_addresses(lab: &Lab) {
    let node = Node::new(lab, ipam_network(ipam()));
    node.attach(2);
    let few = node.counts();
    for number in 0..2_000 {
        let address = Ipv4Addr::from(0x0a58_8000 + number);
        let path = format!("/var/lib/cni/networks/net/{address}");
        node.host.write(&path, format!("other-{number}\r\neth0"));
    }
    assert_same(&few, &node.counts());
}

/// When somebody else has changed the state, every address file is read, and GC removes them. Each costs the same, however many
/// there are.
fn linear_in_foreign_addresses(lab: &Lab) {
    let totals = [500_u32, 2_000].map(|count| {
        let networks = with(
            ipam_network(ipam()),
            json!({"cni.dev/valid-attachments": []}),
        );
        let node = Node::new(lab, networks);
        let dir = "/var/lib/cni/networks/net";
        node.host.enter(|| {
            std::fs::create_dir_all(dir).expect("make a directory");
            for number in 0..count {
                let path = format!("{dir}/{}", Ipv4Addr::from(0x0a58_8000 + number));
                std::fs::write(path, format!("other-{number}\r\neth0")).expect("write a file");
            }
        });
        let netns = node.pod.netns();
        ["ADD", "GC"].map(|verb| node.count(verb, &netns).total())
    });
    let [few, many] = totals;
    for (few, many) in few.into_iter().zip(many) {
        assert!(
            many <= 4 * few,
            "{few} system calls for 500 files, {many} for 2,000"
        );
        assert!(many / 2_000 < 25, "{many} system calls for 2,000 files");
    }
}

/// In both of kube-proxy's modes, where nothing drops, where iptables does and where another table does: bridge, which
/// looks whether something drops, and firewall behind it.
fn flat_in_services(lab: &Lab) {
    let ipam = || host_local(&["10.88.0.0/16", "fd00:88::/64"]);
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        for guard in [
            &[][..],
            &["iptables -P FORWARD DROP", "ip6tables -P FORWARD DROP"],
            &[
                "nft add table ip own",
                "nft add chain ip own f { type filter hook forward priority 0 ; policy drop ; }",
                "nft add rule ip own f ct state invalid drop",
            ],
        ] {
            // The first is so few that their chains are listed.
            let [listed, few, many] = [10, 200, 2_000].map(|services| {
                let mut node = Node::new(lab, bridge(ipam()));
                node.host.kube_proxy_of(mode, services);
                for command in guard {
                    node.host.sh(command);
                }
                let of_bridge = node.counts();
                let plain = node.configuration.clone();
                let resident = node.host.pod("resident");
                for (container, netns) in [
                    ("resident", resident.netns()),
                    ("counted", node.pod.netns()),
                ] {
                    node.configuration = plain.clone();
                    let result = node.call("ADD", container, &netns, "eth0", &[]);
                    let firewall = with(plain.clone(), json!({"type": "firewall"}));
                    node.configuration = with_prev_result(&firewall, &result);
                    node.call("ADD", container, &netns, "eth0", &[]);
                }
                (of_bridge, node.counts())
            });
            for (listed, few, many) in [(listed.0, few.0, many.0), (listed.1, few.1, many.1)] {
                assert_same(&few, &many);
                for (listed, many) in listed.iter().zip(&many) {
                    let (less, more) = (listed.netlink_messages, many.netlink_messages);
                    assert!(
                        more <= less + 40,
                        "{mode:?}, {guard:?}: {less} and {more} messages"
                    );
                    assert_eq!(many.children, 0, "{mode:?}, {guard:?}: {many:#?}");
                }
            }
        }
    }
}

/// What a node has that is full: as many containers, beside kube-proxy's rules for as many Services.
const MANY: usize = 300;
const SERVICES: u16 = 2_000;

/// In both of kube-proxy's modes, where nothing drops and where iptables does.
fn firewall_flat_in_containers(lab: &Lab) {
    for mode in [ProxyMode::Iptables, ProxyMode::Nftables] {
        for guard in [None, Some("iptables -P FORWARD DROP")] {
            let mut node = Node::new(lab, bridge(ipam()));
            node.host.kube_proxy_of(mode, SERVICES);
            guard.into_iter().for_each(|command| {
                node.host.sh(command);
            });
            let firewall = |_: usize| with(bridge(ipam()), json!({"type": "firewall"}));
            let what = format!("{mode:?}, {guard:?}");
            flat_in_chains(&mut node, &what, &firewall);
        }
    }
}

/// How many interfaces of a kind are attached. They are in one namespace, and the host has their addresses alone.
const INTERFACES: usize = 1_000;

/// Nothing of them is left, and the last costs what the first did.
fn thousand_interfaces(lab: &Lab) {
    for kind in ["macvlan", "tap", "dummy"] {
        if let Some(reason) = (kind == "dummy")
            .then(|| lab.lacks(Need::LinkKind(kind)))
            .flatten()
        {
            eprintln!("not for {kind}: {reason}");
            continue;
        }
        let conf = with(ipam_network(ipam()), json!({"type": kind, "master": "up0"}));
        let node = Node::new(lab, conf);
        node.host.ip("link add up0 type veth peer name other0");
        node.host.ip("link set up0 up");
        let before = node.host.observe();
        let attachments = |numbers: std::ops::Range<usize>| -> Vec<_> {
            let one = |number| (format!("many-{number}"), format!("net{number}"));
            numbers.map(one).collect()
        };
        let shared = node.host.pod("many");
        node.at_once("ADD", &shared, &attachments(0..2));
        let few = node.counts();
        node.at_once("ADD", &shared, &attachments(2..INTERFACES));
        assert_same(&few, &node.counts());
        node.at_once("DEL", &shared, &attachments(0..INTERFACES));
        let left = shared.ip_json("link show");
        let left = left.as_array().expect("links").iter();
        assert_eq!(left.filter(|link| link["ifname"] != "lo").count(), 0);
        node.host.sh(&format!("rm {TRACE}"));
        node.host.assert_nothing_left(&before, &["many-"]);
    }
}

/// Counts what a chained plugin asks for beside one container and beside many, each attached by bridge and the plugin.
fn flat_in_chains(node: &mut Node<'_>, what: &str, chained: &dyn Fn(usize) -> Value) {
    let counted = node.pod.netns();
    node.attach_chains(0..1, chained);
    let result = node.call("ADD", "counted", &counted, "eth0", &[]);
    let plain = node.configuration.clone();
    let [few, many] = [1, MANY].map(|upper| {
        if upper > 1 {
            node.configuration = plain.clone();
            node.attach_chains(1..upper, chained);
        }
        node.configuration = with_prev_result(&chained(MANY), &result);
        node.counts()
    });
    for trace in few.iter().chain(&many) {
        assert_eq!(trace.children, 0, "{what}: {trace:#?}");
    }
    assert_same(&few, &many);
}

/// The host's cache of names below /proc would have an entry for the container from then on, and each look-up of a sysctl
/// would go through all of them.
fn own_procfs(lab: &Lab) {
    let both = host_local(&["10.88.0.0/16", "fd00:88::/64"]);
    let node = Node::new(lab, bridge(both));
    node.attach(1);
    let calls = node.traced("ADD", &node.pod.netns());
    let opened: Vec<&str> = calls
        .lines()
        .filter(|line| line.contains(" openat("))
        .collect();
    let has = |what: &str| opened.iter().any(|line| line.contains(what));
    let accept_ra = "sys/net/ipv6/conf/eth0/accept_ra\", O_WRONLY";
    assert!(has(&format!("\"{accept_ra}")), "{opened:#?}");
    assert!(!has("/proc/sys/net/ipv6/conf/eth0"), "{opened:#?}");
}

/// A link that is up and has no carrier yet makes the kernel go through all the host's IPv6 routes for each setting.
fn settings_before_up(lab: &Lab) {
    let node = Node::new(lab, with(bridge(ipam()), json!({"hairpinMode": true})));
    node.attach(1);
    let calls = node.traced("ADD", &node.pod.netns());
    let sent = calls.lines().filter(|line| line.contains(" sendto("));
    let messages: Vec<&str> = sent.flat_map(|line| line.split("{nlmsg_len=")).collect();
    for setting in [
        "IFLA_IFALIAS",
        "IFLA_BRPORT_MODE",
        "IFLA_INET6_ADDR_GEN_MODE",
    ] {
        let attribute = format!("nla_type={setting}");
        let message = messages.iter().find(|message| message.contains(&attribute));
        let message = message.unwrap_or_else(|| panic!("nobody sends {setting}"));
        assert!(message.contains("ifi_flags=0,"), "{message}");
    }
}

/// What is opened next would be one of them otherwise, and what is meant for stdout would go there.
fn closed_descriptors(lab: &Lab) {
    let node = Node::new(lab, ipam_network(ipam()));
    for (closed, number) in [("1>&-", 1), ("2>&-", 2)] {
        let shell = [
            "sh".to_owned(),
            "-c".to_owned(),
            format!("exec \"$@\" {closed}"),
            "sh".to_owned(),
        ];
        let wrapper: Vec<String> = shell.into_iter().chain(trace::wrapper(TRACE)).collect();
        let container = format!("closed-{number}");
        let output = node.output("ADD", &container, &node.pod.netns(), "eth0", &wrapper);
        // Nobody hears the answer of the first, which therefore is a failure.
        assert_eq!(output.ok(), number != 1, "{output:?}");
        let calls = node.host.read(TRACE).expect("a trace");
        let wanted = format!("= {number}");
        // musl opens by the one call, glibc by the other.
        let opens = |line: &str| line.contains(" openat(") || line.contains(" open(");
        let opened = calls.lines().find(|line| opens(line));
        let opened = opened.expect("something is opened");
        assert!(
            opened.contains("\"/dev/null\"") && opened.ends_with(&wanted),
            "{opened}"
        );
    }
}

/// Whoever closes a netfilter socket waits until what was removed is freed. So the process must not be the last one to close
/// its own, and the kernel has to close it soon.
fn no_grace_period(lab: &Lab) {
    let node = Node::new(lab, masqueraded());
    node.attach(2);
    let netns = node.pod.netns();
    node.call("ADD", "counted", &netns, "eth0", &[]);
    let calls = node.traced("DEL", &netns);
    let opened = calls.lines().find_map(|line| {
        let (call, descriptor) = line.rsplit_once(" = ")?;
        call.contains("NETLINK_NETFILTER").then_some(descriptor)
    });
    let opened = opened.expect("a netfilter socket");
    let handed_over = calls.lines().position(|line| {
        let sent = line.split_once("cmsg_type=SCM_RIGHTS, cmsg_data=[");
        sent.is_some_and(|(_, sent)| sent.starts_with(&format!("{opened},")))
    });
    let closed = calls
        .lines()
        .position(|line| line.contains(&format!("close({opened})")));
    let order = handed_over.zip(closed);
    assert!(order.is_some_and(|(first, then)| first < then), "{calls}");
    // NETLINK_NETFILTER is number 12.
    let is_open = || {
        let sockets = node
            .host
            .enter(|| std::fs::read_to_string("/proc/thread-self/net/netlink"));
        let sockets = sockets.expect("a list of sockets");
        sockets
            .lines()
            .filter(|line| line.split_whitespace().nth(1) == Some("12"))
            // The kernel's own has number 0.
            .any(|line| line.split_whitespace().nth(2) != Some("0"))
    };
    let begun = std::time::Instant::now();
    while is_open() {
        assert!(
            begun.elapsed().as_secs() < 30,
            "the socket stays open: {calls}"
        );
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// Set for a process that is a benchmark that never ends.
const RUN_ONE: &str = "TRESTLE_BUDGET_RUN_ONE";

/// A benchmark with a file and a process of its own, both of which it names.
fn run_one() -> ExitCode {
    if let Ok(Some(status)) = supervise::stand_by() {
        return status;
    }
    let directory = std::env::temp_dir();
    std::fs::write(directory.join("file"), "").expect("write a file");
    let sleep = std::process::Command::new("sleep").arg("1000").spawn();
    let mut sleep = sleep.expect("start a process");
    let mut line = directory.into_os_string();
    line.push(format!(" {}\n", sleep.id()));
    let written = std::io::Write::write_all(&mut std::io::stdout(), line.as_encoded_bytes());
    written.expect("tell of both");
    let _ = sleep.wait();
    ExitCode::SUCCESS
}

/// A file in the directory for temporary files, a process that it has started: both are gone when it ends.
fn interrupted_benchmark(_: &Lab) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut benchmark = std::process::Command::new(std::env::current_exe().expect("a path"))
            .env(RUN_ONE, "1")
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("start it");
        let stdout = benchmark.stdout.take().expect("a pipe");
        let mut line = String::new();
        let mut reader = std::io::BufReader::new(stdout);
        std::io::BufRead::read_line(&mut reader, &mut line).expect("a line");
        let (directory, child) = line.trim().rsplit_once(' ').expect("two words");
        let child = format!("/proc/{child}/stat");
        assert!(std::path::Path::new(directory).join("file").exists());
        assert!(std::path::Path::new(&child).exists());
        let pid = Pid::from_raw(i32::try_from(benchmark.id()).expect("a number"));
        kill(pid, signal).expect("interrupt it");
        let status = benchmark.wait().expect("wait for it");
        assert_eq!(status.code(), Some(128 + signal as i32));
        assert!(!std::path::Path::new(directory).exists(), "{directory}");
        // Nobody may have waited for it yet.
        let stat = std::fs::read_to_string(&child).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{stat}");
    }
}

fn ipam() -> Value {
    host_local(&["10.88.0.0/16"])
}

fn masqueraded() -> Value {
    let masquerade = json!({"ipMasq": true, "ipMasqBackend": "nftables"});
    with(bridge(ipam()), masquerade)
}

/// A host with one network, made by one plugin.
struct Node<'l> {
    lab: &'l Lab,
    host: Host,
    configuration: Value,
    pod: Pod,
}

impl<'l> Node<'l> {
    fn new(lab: &'l Lab, configuration: Value) -> Self {
        let host = Host::new();
        let pod = host.pod("counted");
        Self {
            lab,
            host,
            configuration,
            pod,
        }
    }

    /// Attach so many containers that stay.
    fn attach(&self, count: usize) {
        // They share a namespace, which is cheaper than one each and the same to the host.
        let netns = self.host.pod(&format!("shared-{count}")).netns();
        for number in 0..count {
            let container = format!("resident-{count}-{number}");
            self.call("ADD", &container, &netns, &format!("net{number}"), &[]);
        }
    }

    /// A verb for several attachments in one namespace, some at a time.
    fn at_once(&self, verb: &str, pod: &Pod, attachments: &[(String, String)]) {
        let netns = pod.netns();
        std::thread::scope(|scope| {
            for share in attachments.chunks(attachments.len().div_ceil(WORKERS)) {
                let netns = &netns;
                scope.spawn(move || {
                    for (container, ifname) in share {
                        self.output(verb, container, netns, ifname, &[]).succeeded();
                    }
                });
            }
        });
    }

    /// Attach containers that stay with the node's network and a plugin chained to it, several at a time.
    fn attach_chains(&self, numbers: std::ops::Range<usize>, chained: &dyn Fn(usize) -> Value) {
        let netns = self.host.pod(&format!("chains-{}", numbers.end)).netns();
        let all: Vec<_> = numbers.map(|number| (number, chained(number))).collect();
        std::thread::scope(|scope| {
            for share in all.chunks(all.len().div_ceil(WORKERS)) {
                let netns = &netns;
                scope.spawn(move || {
                    for (number, conf) in share {
                        let (container, ifname) =
                            (format!("chain-{number}"), format!("net{number}"));
                        let result = self.call("ADD", &container, netns, &ifname, &[]);
                        let conf = with_prev_result(conf, &result);
                        self.output_of(&conf, "ADD", &container, netns, &ifname, &[])
                            .succeeded();
                    }
                });
            }
        });
    }

    /// What an ADD and a DEL ask for once everything shared is there and caches are filled.
    fn counts(&self) -> [Trace; 2] {
        let netns = self.pod.netns();
        for _ in 0..2 {
            self.call("ADD", "warm-up", &netns, "eth0", &[]);
            self.call("DEL", "warm-up", &netns, "eth0", &[]);
        }
        // Somebody else's interrupted listing or a lock held elsewhere adds calls now and then, never takes any.
        let rounds = [(); 3].map(|()| ["ADD", "DEL"].map(|verb| self.count(verb, &netns)));
        let [mut add, mut del] = [Vec::new(), Vec::new()];
        for [one_add, one_del] in rounds {
            add.push(one_add);
            del.push(one_del);
        }
        [add, del].map(|traces| {
            let least = traces.into_iter().min_by_key(Trace::total);
            least.expect("three traces")
        })
    }

    fn count(&self, verb: &str, netns: &str) -> Trace {
        Trace::parse(&self.traced(verb, netns))
    }

    /// What strace wrote about a call.
    fn traced(&self, verb: &str, netns: &str) -> String {
        self.call(verb, "counted", netns, "eth0", &trace::wrapper(TRACE));
        self.host.read(TRACE).expect("a trace")
    }

    /// Gives the result of an ADD.
    fn call(
        &self,
        verb: &str,
        container: &str,
        netns: &str,
        ifname: &str,
        wrapper: &[String],
    ) -> Value {
        let output = self.output(verb, container, netns, ifname, wrapper);
        serde_json::from_str(&output.succeeded().text()).unwrap_or_default()
    }

    fn output(
        &self,
        verb: &str,
        container: &str,
        netns: &str,
        ifname: &str,
        wrapper: &[String],
    ) -> Output {
        self.output_of(&self.configuration, verb, container, netns, ifname, wrapper)
    }

    fn output_of(
        &self,
        configuration: &Value,
        verb: &str,
        container: &str,
        netns: &str,
        ifname: &str,
        wrapper: &[String],
    ) -> Output {
        let plugin = configuration["type"].as_str().expect("a type");
        let program = self.lab.bin().join(plugin).to_string_lossy().into_owned();
        let mut words = wrapper.iter().cloned().chain([program]);
        let first = words.next().expect("a program");
        let called = Program::new(first)
            .args(words)
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", netns)
            .env("CNI_IFNAME", ifname)
            .env("CNI_PATH", self.lab.bin())
            .stdin(configuration.to_string());
        self.host.run(called)
    }
}

fn assert_within(counts: &[Trace; 2], budgets: &[Budget; 2]) {
    for ((trace, budget), verb) in counts.iter().zip(budgets).zip(["ADD", "DEL"]) {
        assert_eq!(trace.children, 0, "child processes of {verb}: {trace:#?}");
        assert_eq!(trace.threads, 0, "threads of {verb}: {trace:#?}");
        let event_loop: Vec<_> = trace
            .calls
            .keys()
            .filter(|name| name.starts_with("epoll") || name.starts_with("eventfd"))
            .collect();
        assert!(
            event_loop.is_empty(),
            "{verb} runs an event loop: {event_loop:?}"
        );
        let messages = trace.netlink_messages;
        assert!(
            messages <= budget.messages,
            "{verb} sends {messages} netlink messages, {} are allowed: {trace:#?}",
            budget.messages
        );
        let calls = trace.total();
        assert!(
            calls <= budget.calls,
            "{verb} makes {calls} system calls, {} are allowed: {trace:#?}",
            budget.calls
        );
    }
}

/// Memory is asked for in steps, so a few calls more or less mean nothing.
fn assert_same(few: &[Trace; 2], many: &[Trace; 2]) {
    for ((few, many), verb) in few.iter().zip(many).zip(["ADD", "DEL"]) {
        assert_eq!(
            few.netlink_messages, many.netlink_messages,
            "netlink messages of {verb}: {few:#?} {many:#?}"
        );
        let (less, more) = (few.total(), many.total());
        assert!(
            more <= less + 8,
            "{verb} makes {less} system calls beside few, {more} beside many: {few:#?} {many:#?}"
        );
    }
}
