//! Every system call of ADD and DEL of masqueraded networks, and of plugins that bring an interface into a container or
//! change its routes, failed with every common error and killed at.
//!
//! Which calls there are is learnt from a run without a fault. `make faults` tries all combinations, which are thousands,
//! several at a time on hosts of their own; otherwise a few are taken, the same ones each time as long as the calls are the
//! same. `TRESTLE_FAULT_SAMPLE` takes that many by chance, with a seed that is in every message and can be given again in
//! `TRESTLE_FAULT_SEED`. `TRESTLE_FAULT` is one fault to try alone, such as `openat:error=EIO:when=6`.

mod calls;
mod variants;

use std::collections::BTreeMap;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use conformance::{Call, Case, Host, Lab, Need, Output, Plugin, Snapshot, with, with_prev_result};
use serde_json::{Value, json};

use self::calls::{ERRORS, KILL, matters};
use self::variants::{VARIANTS, Variant};
use crate::common::at_once;
use crate::random::{self, Random};

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for verb in ["ADD", "DEL"] {
        for (kind, faults) in [("killed", &KILL[..]), ("failed", &ERRORS[..])] {
            for way in &VARIANTS {
                let what = format!("{verb}_{}_is_{kind}", way.name);
                // What an error is called makes little difference, and where it was looked at is the same everywhere.
                let faults = if way.thorough { faults } else { &faults[..1] };
                let walk = move |lab: &Lab, sample| {
                    let walk = Walk {
                        lab,
                        way,
                        verb,
                        faults,
                    };
                    walk.run(sample);
                };
                let full = format!("fault_walk::every_call_of_{what}");
                let mut both = vec![Case::new(full, move |lab| walk(lab, None)).slow()];
                if way.sample > 0 {
                    let sample = format!("fault_walk::a_sample_of_the_calls_of_{what}");
                    both.push(Case::new(sample, move |lab| walk(lab, Some(way.sample))));
                }
                let needs = |case: Case| match way.kernel {
                    Some(kind) => case.needs(Need::LinkKind(kind)),
                    None => case,
                };
                cases.extend(both.into_iter().map(needs));
            }
        }
    }
    cases
        .into_iter()
        .map(|case| case.ours().needs(Need::Strace))
        .collect()
}

/// The seed of a sample of that size, the same each time: a change is judged by what it does and not by chance.
const SEED: u64 = 1;

/// How many trials of a full walk go on at the same time: most of one is waiting for the kernel to take interfaces and
/// namespaces away, or for an answer that a fault has swallowed.
const WORKERS: usize = 8;

/// After how many trials a full walk says how far it is.
const REPORT: usize = 100;

fn neighbour() -> Call {
    Call::named("neighbour", Some("/run/netns/neighbour"))
}

fn pod() -> Call {
    Call::named("pod", Some("/run/netns/pod"))
}

/// A host on which a neighbour lives already, or nobody yet.
struct Scene<'l> {
    walk: Walk<'l>,
    /// The configuration for the container, and for its neighbour.
    network: Value,
    neighbours: Value,
    host: Host,
    /// Machines on the host's wire.
    _outside: Host,
    neighbour: Option<Value>,
    before: Snapshot,
}

impl<'l> Scene<'l> {
    fn new(walk: Walk<'l>, with_neighbour: bool) -> Self {
        let (host, outside) = (Host::new(), Host::new());
        // The kernel makes itself addresses in its own time, which would be taken for something left behind.
        for place in [&host, &outside] {
            place.set_sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
            place.set_sysctl("net.ipv6.conf.default.accept_dad", "0");
        }
        host.pod("pod");
        host.pod("neighbour");
        host.cable("up0", &outside, "eth0");
        for container in ["pod", "neighbour"] {
            let device = format!("of-{container}");
            host.ip(&format!("link add {device} type veth peer name {device}-x"));
        }
        let [network, neighbours] =
            [pod(), neighbour()].map(|call| walk.prepare(&host, &call, with_neighbour));
        let plugin = walk.lab.plugin(&host, walk.way.plugin);
        let neighbour = with_neighbour.then(|| plugin.add(&neighbours, &neighbour()));
        let before = host.observe();
        if walk.verb == "DEL" {
            plugin.add(&network, &pod());
        }
        Self {
            walk,
            network,
            neighbours,
            neighbour,
            before,
            host,
            _outside: outside,
        }
    }

    fn plugin(&self) -> Plugin<'_> {
        self.walk.lab.plugin(&self.host, self.walk.way.plugin)
    }

    fn left(&self) -> Vec<String> {
        let now = self.host.observe();
        let mut left = now.leftovers(&self.before);
        // The kernel makes the neighbour's local routes in its own time, which may be after the first look.
        let result = self.neighbour.as_ref();
        let interfaces = result.and_then(|result| result["interfaces"].as_array());
        for interface in interfaces.into_iter().flatten() {
            let route = format!(
                " dev {} table local ",
                interface["name"].as_str().unwrap_or("?")
            );
            left.retain(|line| !(line.starts_with("+ route ") && line.contains(&route)));
        }
        // What the plugin before has done, whose DEL comes later, is there as before.
        if self.walk.way.before.is_none() {
            left.extend(now.mentioning("\"pod").into_iter().map(str::to_owned));
        }
        left
    }

    #[track_caller]
    fn assert_clean(&self, what: &str) {
        let left = self.left();
        assert!(left.is_empty(), "{what}: left behind:\n{}", left.join("\n"));
        if let Some(result) = &self.neighbour {
            let checked = self.plugin().check(&self.neighbours, result, &neighbour());
            assert!(checked.ok(), "{what}: the neighbour suffers: {checked}");
        }
    }

    fn trace(&self) -> String {
        self.host.read("/run/strace").unwrap_or_default()
    }
}

/// How often each call was made. A fault counts the calls of each process by itself, so what counts is the process that
/// makes most.
fn count(trace: &str) -> BTreeMap<String, usize> {
    let mut by_process = BTreeMap::new();
    // A write to a sysctl that has to wait for other users of the kernel's lock begins again, time after time.
    for line in trace.lines().filter(|line| !line.contains("= ? ERESTART")) {
        // "1234  openat(AT_FDCWD, …": the number of the process, blanks, the call.
        let Some((process, call)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, _)) = call.trim_start().split_once('(') else {
            continue;
        };
        if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            *by_process.entry((process, name)).or_insert(0) += 1;
        }
    }
    let mut calls = BTreeMap::new();
    for ((_, name), count) in by_process {
        let most = calls.entry(name.to_owned()).or_insert(0);
        *most = count.max(*most);
    }
    assert!(calls.len() > 10, "the trace was understood: {calls:?}");
    calls
}

/// A plugin, a verb and what is done to its calls.
#[derive(Clone, Copy)]
struct Walk<'l> {
    lab: &'l Lab,
    way: &'static Variant,
    verb: &'static str,
    faults: &'static [&'static str],
}

impl Walk<'_> {
    /// What the plugin is called with for a container, after the plugin before has attached it. The neighbour is attached only
    /// where there is to be one.
    fn prepare(self, host: &Host, call: &Call, with_neighbour: bool) -> Value {
        let container = call.container.as_deref().unwrap_or_default();
        let named = json!({"cniVersion": "1.1.0", "name": "net", "type": self.way.plugin});
        let conf = with(named.clone(), (self.way.conf)(container));
        match self.way.before {
            Some(before) if container == "pod" || with_neighbour => {
                let before = with(named, before());
                let plugin = before["type"].as_str().expect("a type");
                let result = self.lab.plugin(host, plugin).add(&before, call);
                with_prev_result(&conf, &result)
            }
            _ => conf,
        }
    }

    /// Every combination of a call and a fault, with and without a neighbour.
    fn combinations(self) -> Vec<(bool, String)> {
        let mut trials = Vec::new();
        for with_neighbour in [false, true] {
            let scene = Scene::new(self, with_neighbour);
            let nothing = "all:delay_exit=1:when=1";
            let traced = scene
                .plugin()
                .call_with_fault(nothing, self.verb, &scene.network, &pod());
            traced.succeeded();
            let calls = count(&scene.trace()).into_iter();
            for (call, count) in calls.filter(|(call, _)| matters(call, self.faults == KILL)) {
                for n in 1..=count {
                    let faults = self.faults.iter();
                    let faults = faults.map(|fault| format!("{call}:{fault}:when={n}"));
                    trials.extend(faults.map(|fault| (with_neighbour, fault)));
                }
            }
        }
        trials
    }

    /// Those of the combinations that are to be tried.
    fn trials(self, sample: Option<usize>, seed: u64) -> Vec<(bool, String)> {
        let mut all = self.combinations();
        if let Ok(alone) = env::var("TRESTLE_FAULT") {
            all.retain(|(_, fault)| *fault == alone);
            return all;
        }
        let Some(size) = sample else { return all };
        let given = env::var("TRESTLE_FAULT_SAMPLE").ok();
        let size = given.and_then(|size| size.parse().ok()).unwrap_or(size);
        let mut random = Random::new(seed);
        (0..size)
            .map(|_| all[random.below(all.len())].clone())
            .collect()
    }

    fn run(self, sample: Option<usize>) {
        let seed = random::given("TRESTLE_FAULT_SEED").unwrap_or_else(|| {
            let more = env::var_os("TRESTLE_FAULT_SAMPLE").is_some();
            if more { random::fresh() } else { SEED }
        });
        let trials = self.trials(sample, seed);
        let next = AtomicUsize::new(0);
        let problems = Mutex::new(Vec::new());
        let workers = if sample.is_some() { 1 } else { WORKERS };
        let title = format!("{} {}", self.verb, self.way.name);
        at_once(workers, |_| {
            while let Some((with_neighbour, fault)) =
                trials.get(next.fetch_add(1, Ordering::Relaxed))
            {
                let what = format!("{title} with {fault}, neighbour {with_neighbour}, seed {seed}");
                let tried = catch_unwind(AssertUnwindSafe(|| {
                    trial(&Scene::new(self, *with_neighbour), fault, &what);
                }));
                if tried.is_err() {
                    problems.lock().expect("no panic").push(what);
                }
                let done = next.load(Ordering::Relaxed).min(trials.len());
                if sample.is_none() && done.is_multiple_of(REPORT) {
                    let faults = self.faults.join(", ");
                    eprintln!("{title} with {faults}: {done} of {}", trials.len());
                }
            }
        });
        let problems = problems.into_inner().expect("no panic");
        assert!(
            problems.is_empty(),
            "{} of {} went wrong:\n{}",
            problems.len(),
            trials.len(),
            problems.join("\n")
        );
    }
}

fn trial(scene: &Scene<'_>, fault: &str, what: &str) {
    let (plugin, network, verb) = (scene.plugin(), &scene.network, scene.walk.verb);
    let output = plugin.call_with_fault(fault, verb, network, &pod());
    verify(scene, verb, &output, what);
    plugin.del(network, &pod());
    scene.assert_clean(what);
    if scene.walk.way.before.is_some() {
        // Nobody adds a chained plugin again without an interface that is new.
        return;
    }
    let result = plugin.add(network, &pod());
    plugin.check(network, &result, &pod()).succeeded();
    plugin.del(network, &pod());
    scene.assert_clean(what);
}

/// What must be true right after the call with the fault: success, or an error object and nothing half done, or the
/// process is gone.
fn verify(scene: &Scene<'_>, verb: &str, output: &Output, what: &str) {
    let trace = scene.trace();
    let hit = trace
        .lines()
        .find(|line| line.contains("INJECTED"))
        .unwrap_or_default();
    if trace
        .lines()
        .any(|line| line.contains("INJECTED") && line.contains("eventfd"))
    {
        // The event loop wakes itself up, which never leaves the process and can't fail.
        return;
    }
    assert!(!output.stderr.contains("panicked"), "{what}: {output}");
    if output.status.code().is_none() || output.status.code() == Some(137) {
        // Killed; or there is no way on for a process that can't leave the container's namespace.
        assert!(
            trace.contains("killed by SIGKILL") || hit.contains("setns"),
            "{what}: {output}"
        );
        return;
    }
    if hit.contains("write(1<") {
        // Who can't be told how it ended calls DEL.
        return;
    }
    if !output.ok() {
        output.error();
    }
    // A program that says it has succeeded although a call of its own failed can't be seen through: iptables-restore takes
    // an error for the end of its input, and iptables prints half a list. The next DEL finds what there is.
    let process = |line: &str| line.split_once(' ').map(|(process, _)| process.to_owned());
    let only_in_plugin = trace
        .lines()
        .filter(|line| line.contains("INJECTED"))
        .all(|line| process(line) == trace.lines().next().and_then(process));
    if verb == "ADD" && output.ok() && only_in_plugin {
        let checked = scene.plugin().check(&scene.network, &output.json(), &pod());
        assert!(checked.ok(), "{what}: ADD succeeded, but {checked}");
    }
    let hits = trace
        .lines()
        .filter(|line| line.contains("INJECTED") || line.contains("killed by SIGKILL"));
    if hits.count() > 1 && output.text().contains("left behind") {
        // A program that is run counts its calls anew, so undoing has met the fault too. It says so, and DEL comes.
        return;
    }
    if verb == "ADD" && !output.ok() || verb == "DEL" && output.ok() && only_in_plugin {
        // A record that the address files contradict is debris, which the next use of the network removes.
        let left: Vec<_> = scene.left();
        let left: Vec<_> = left
            .iter()
            .filter(|line| verb == "ADD" || !line.contains("/.trestle/net/pod:eth0"))
            .collect();
        assert!(left.is_empty(), "{what}: left behind:\n{left:#?}");
    }
}
