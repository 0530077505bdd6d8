//! Every system call of ADD and DEL of a masqueraded network, failed with every common error and killed at.
//!
//! Which calls there are is learnt from a run without a fault. All combinations are thousands and take the better part
//! of an hour (`make faults`); otherwise a random sample is taken, whose seed is in every message and can be given
//! again in `TRESTLE_FAULT_SEED`. `TRESTLE_FAULT` is one fault to try alone, such as `openat:error=EIO:when=6`.

use std::collections::BTreeMap;
use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use conformance::{Call, Case, Host, Lab, Need, Output, Plugin, Snapshot, with};
use serde_json::{Value, json};

use crate::common::dual;

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for verb in ["ADD", "DEL"] {
        for (kind, faults) in [("killed", &KILL[..]), ("failed", &ERRORS[..])] {
            let sample = format!("fault_walk::a_sample_of_the_calls_of_{verb}_is_{kind}");
            let full = format!("fault_walk::every_call_of_{verb}_is_{kind}");
            cases.push(Case::new(sample, move |lab| {
                walk(lab, verb, faults, Some(SAMPLE))
            }));
            cases.push(Case::new(full, move |lab| walk(lab, verb, faults, None)).slow());
        }
    }
    cases
        .into_iter()
        .map(|case| case.ours().needs(Need::Strace))
        .collect()
}

const KILL: [&str; 1] = ["signal=KILL"];

const ERRORS: [&str; 5] = [
    "error=EIO",
    "error=ENOSPC",
    "error=ENOMEM",
    "error=EINTR",
    "error=EAGAIN",
];

/// How many combinations a sample has; `TRESTLE_FAULT_SAMPLE` is another number.
const SAMPLE: usize = 8;

/// Calls that can't fail by their nature, or that belong to the start of any process and to its memory: no program
/// gets on without them.
///
/// Waiting for events can be interrupted but not fail, and the event loop relies on it. The keys of the standard
/// library's hash tables come from getrandom(2), which has nothing to wait for once the machine is up.
const BEYOND_REPAIR: [&str; 29] = [
    "epoll_wait",
    "epoll_create1",
    "epoll_ctl",
    "eventfd2",
    "getrandom",
    "execve",
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "arch_prctl",
    "prctl",
    "futex",
    "set_tid_address",
    "set_robust_list",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "exit",
    "exit_group",
    "close",
    "poll",
    "sched_getaffinity",
    "gettid",
    "getpid",
];

fn network() -> Value {
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    with(dual(), json!({"ipMasq": true, "ipam": {"routes": routes}}))
}

fn neighbour() -> Call {
    Call::named("neighbour", Some("/run/netns/neighbour"))
}

fn pod() -> Call {
    Call::named("pod", Some("/run/netns/pod"))
}

/// A host on which a neighbour lives already, or nobody yet.
struct Scene<'l> {
    lab: &'l Lab,
    host: Host,
    neighbour: Option<Value>,
    before: Snapshot,
}

impl<'l> Scene<'l> {
    fn new(lab: &'l Lab, verb: &str, with_neighbour: bool) -> Self {
        let host = Host::new();
        host.pod("pod");
        host.pod("neighbour");
        let plugin = lab.plugin(&host, "bridge");
        let neighbour = with_neighbour.then(|| plugin.add(&network(), &neighbour()));
        let before = host.observe();
        if verb == "DEL" {
            plugin.add(&network(), &pod());
        }
        Self {
            lab,
            neighbour,
            before,
            host,
        }
    }

    fn plugin(&self) -> Plugin<'_> {
        self.lab.plugin(&self.host, "bridge")
    }

    fn left(&self) -> Vec<String> {
        let now = self.host.observe();
        let mut left = now.leftovers(&self.before);
        left.extend(now.mentioning("\"pod").into_iter().map(str::to_owned));
        left
    }

    #[track_caller]
    fn assert_clean(&self, what: &str) {
        let left = self.left();
        assert!(left.is_empty(), "{what}: left behind:\n{}", left.join("\n"));
        if let Some(result) = &self.neighbour {
            let checked = self.plugin().check(&network(), result, &neighbour());
            assert!(checked.ok(), "{what}: the neighbour suffers: {checked}");
        }
    }

    fn trace(&self) -> String {
        self.host.read("/run/strace").unwrap_or_default()
    }
}

/// How often a verb makes each call.
fn calls(lab: &Lab, verb: &str, with_neighbour: bool) -> BTreeMap<String, usize> {
    let scene = Scene::new(lab, verb, with_neighbour);
    let traced =
        scene
            .plugin()
            .call_with_fault("all:delay_exit=1:when=1", verb, &network(), &pod());
    traced.succeeded();
    let mut calls = BTreeMap::new();
    for line in scene.trace().lines() {
        // "1234  openat(AT_FDCWD, …": the number of the process, blanks, the call.
        let call = line
            .trim_start_matches(|c: char| c.is_ascii_digit())
            .trim_start();
        let Some((name, _)) = call.split_once('(') else {
            continue;
        };
        if !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
            *calls.entry(name.to_owned()).or_insert(0) += 1;
        }
    }
    assert!(calls.len() > 10, "the trace was understood: {calls:?}");
    calls
}

/// A small generator of numbers that are random enough to choose by (a linear congruence of Knuth's).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((self.0 >> 33) % (limit as u64)).unwrap_or_default()
    }
}

fn seed() -> u64 {
    let given = env::var("TRESTLE_FAULT_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::from(now.subsec_micros())
    })
}

fn walk(lab: &Lab, verb: &str, faults: &[&str], sample: Option<usize>) {
    let mut trials = Vec::new();
    for with_neighbour in [false, true] {
        for (call, count) in calls(lab, verb, with_neighbour) {
            let killed = faults == KILL;
            if call == "execve" || (!killed && BEYOND_REPAIR.contains(&call.as_str())) {
                continue;
            }
            for n in 1..=count {
                let faults = faults
                    .iter()
                    .map(|fault| format!("{call}:{fault}:when={n}"));
                trials.extend(faults.map(|fault| (with_neighbour, fault)));
            }
        }
    }
    let seed = seed();
    if let Ok(alone) = env::var("TRESTLE_FAULT") {
        trials.retain(|(_, fault)| *fault == alone);
    } else if let Some(size) = sample {
        let given = env::var("TRESTLE_FAULT_SAMPLE");
        let size = given
            .ok()
            .and_then(|size| size.parse().ok())
            .unwrap_or(size);
        let mut random = Random(seed);
        let all = std::mem::take(&mut trials);
        trials = (0..size)
            .map(|_| all[random.below(all.len())].clone())
            .collect();
    }
    let mut problems = Vec::new();
    for (with_neighbour, fault) in &trials {
        let what = format!("{verb} with {fault}, neighbour {with_neighbour}, seed {seed}");
        let scene = Scene::new(lab, verb, *with_neighbour);
        let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            trial(&scene, verb, fault, &what)
        }));
        if tried.is_err() {
            problems.push(what);
        }
    }
    assert!(
        problems.is_empty(),
        "{} of {} went wrong:\n{}",
        problems.len(),
        trials.len(),
        problems.join("\n")
    );
}

fn trial(scene: &Scene<'_>, verb: &str, fault: &str, what: &str) {
    let plugin = scene.plugin();
    let output = plugin.call_with_fault(fault, verb, &network(), &pod());
    judge(scene, verb, &output, what);
    plugin.del(&network(), &pod());
    scene.assert_clean(what);
    let result = plugin.add(&network(), &pod());
    plugin.check(&network(), &result, &pod()).succeeded();
    plugin.del(&network(), &pod());
    scene.assert_clean(what);
}

/// What must be true right after the call with the fault: success, or an error object and nothing half done, or the
/// process is gone.
fn judge(scene: &Scene<'_>, verb: &str, output: &Output, what: &str) {
    let trace = scene.trace();
    let hit = trace
        .lines()
        .find(|line| line.contains("INJECTED"))
        .unwrap_or_default();
    if hit.contains("eventfd") {
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
    if verb == "ADD" && output.ok() {
        let checked = scene.plugin().check(&network(), &output.json(), &pod());
        assert!(checked.ok(), "{what}: ADD succeeded, but {checked}");
    }
    if verb == "ADD" && !output.ok() || verb == "DEL" && output.ok() {
        // A record that the address files contradict is debris, which the next use of the network removes.
        let left: Vec<_> = scene.left();
        let left: Vec<_> = left
            .iter()
            .filter(|line| verb == "ADD" || !line.contains("/.trestle/net/pod:eth0"))
            .collect();
        assert!(left.is_empty(), "{what}: left behind:\n{left:#?}");
    }
}
