//! System calls that fail, and processes that are killed, at every step of ADD and DEL.
//!
//! `strace` makes the n-th call of a kind fail, or kills the process at it, for n = 1, 2, … until the plugin gets
//! through untouched. Whatever the step, ADD either succeeds or leaves nothing, and DEL cleans up after a crash.

use conformance::{Call, Case, Host, Lab, Need, Output, Plugin, Snapshot, with};
use serde_json::{Value, json};

use crate::common::{dual, mac};

/// What is made to fail, and how. Answers of the kernel are lost as well, after it has done what was asked.
const ERRORS: [(&str, &str); 9] = [
    ("sendto", "ENOBUFS"),
    ("recvfrom", "ENOBUFS"),
    ("openat", "EIO"),
    ("write", "EIO"),
    ("linkat,renameat,renameat2,rename", "ENOSPC"),
    ("mkdir,mkdirat", "ENOSPC"),
    ("unlinkat,unlink,utimensat", "EIO"),
    ("setns,socket", "ENOMEM"),
    ("flock", "ENOLCK"),
];

/// At which calls the process is killed: all that change something outside of it.
const KILLS: [&str; 4] = [
    "sendto",
    "write",
    "linkat,renameat,renameat2,rename,unlinkat,unlink,utimensat",
    "mkdir,mkdirat,setns,flock",
];

/// More than any call is made; a loop that reaches it never got through.
const LIMIT: usize = 400;

pub(crate) fn cases() -> Vec<Case> {
    let errors = ERRORS.iter().map(|&(calls, error)| {
        let name = format!("faults::add_survives_or_undoes_when_{}_fails", first(calls));
        Case::new(name, move |lab| errors_in_add(lab, calls, error))
    });
    let kills = KILLS.iter().map(|&calls| {
        let name = format!(
            "faults::del_cleans_up_after_add_was_killed_at_{}",
            first(calls)
        );
        Case::new(name, move |lab| kills_in_add(lab, calls))
    });
    let del = KILLS.iter().map(|&calls| {
        let name = format!(
            "faults::a_second_del_finishes_what_was_killed_at_{}",
            first(calls)
        );
        Case::new(name, move |lab| kills_in_del(lab, calls))
    });
    let cases = errors.chain(kills).chain(del);
    cases.map(|case| case.ours().needs(Need::Strace)).collect()
}

fn first(calls: &str) -> &str {
    calls.split(',').next().unwrap_or(calls)
}

fn network() -> Value {
    let routes = json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]);
    with(
        dual(),
        json!({"hairpinMode": true, "ipam": {"routes": routes}}),
    )
}

/// How a verb ended that had a fault.
enum Ended {
    /// There are fewer calls than that.
    Untouched,
    /// The call was one that doesn't matter.
    Meaningless,
    /// So it did with the fault.
    Touched(Output),
}

/// One try: a host on which the n-th call was touched. Every host looks the same before.
struct Trial<'l> {
    lab: &'l Lab,
    host: Host,
    what: String,
}

impl<'l> Trial<'l> {
    fn new(lab: &'l Lab, what: String) -> Self {
        let host = Host::new();
        host.pod("pod");
        Self { lab, host, what }
    }

    fn plugin(&self) -> Plugin<'_> {
        self.lab.plugin(&self.host, "bridge")
    }

    fn call() -> Call {
        Call::named("pod", Some("/run/netns/pod"))
    }

    /// Run a verb with the fault.
    fn run(&self, fault: &str, verb: &str) -> Ended {
        let output = self
            .plugin()
            .call_with_fault(fault, verb, &network(), &Self::call());
        let log = self.host.read("/run/strace").unwrap_or_default();
        let mut touched = log.lines().filter(|line| line.contains("INJECTED"));
        let killed = log.contains("killed by SIGKILL");
        match touched
            .next()
            .or(killed.then(|| log.lines().nth_back(1)).flatten())
        {
            None => Ended::Untouched,
            // The runtime's own wake-ups never leave the process and can't fail. And who can't be told how ADD
            // ended calls DEL.
            Some(line) if line.contains("eventfd") || line.contains("write(1<") => {
                Ended::Meaningless
            }
            Some(_) => Ended::Touched(output),
        }
    }

    fn assert_nothing_left(&self, before: &Snapshot) {
        let now = self.host.observe();
        let left = now.leftovers(before);
        assert!(
            left.is_empty(),
            "{}: left behind:\n{}",
            self.what,
            left.join("\n")
        );
        let known = now.mentioning("\"pod");
        assert_eq!(
            known.len(),
            0,
            "{}: the container is still known",
            self.what
        );
    }

    /// The attachment can be made, as if nothing had happened, and be taken away again.
    fn assert_usable(&self, before: &Snapshot) {
        let result = self.plugin().add(&network(), &Self::call());
        self.plugin()
            .check(&network(), &result, &Self::call())
            .succeeded();
        assert!(!mac(&self.host, "cni0").is_empty());
        self.plugin().del(&network(), &Self::call());
        self.assert_nothing_left(before);
    }
}

fn pristine(lab: &Lab) -> Snapshot {
    Trial::new(lab, String::new()).host.observe()
}

fn errors_in_add(lab: &Lab, calls: &str, error: &str) {
    let before = pristine(lab);
    for call in calls.split(',') {
        for n in 1..LIMIT {
            let trial = Trial::new(lab, format!("{error} at {call} number {n} of ADD"));
            let output = match trial.run(&format!("{call}:error={error}:when={n}"), "ADD") {
                Ended::Untouched => break,
                Ended::Meaningless => continue,
                Ended::Touched(output) => output,
            };
            assert!(
                !output.stderr.contains("panicked"),
                "{}: {output}",
                trial.what
            );
            if output.ok() {
                let checked = trial
                    .plugin()
                    .check(&network(), &output.json(), &Trial::call());
                assert!(checked.ok(), "{}: ADD succeeded, but {checked}", trial.what);
                trial.plugin().del(&network(), &Trial::call());
                trial.assert_nothing_left(&before);
                continue;
            }
            if output.status.code().is_none() && call == "setns" {
                // There is no way on for a process that can't leave the container's namespace.
                trial.plugin().del(&network(), &Trial::call());
            } else {
                output.error();
            }
            trial.assert_nothing_left(&before);
            trial.assert_usable(&before);
        }
    }
}

fn kills_in_add(lab: &Lab, calls: &str) {
    let before = pristine(lab);
    for call in calls.split(',') {
        for n in 1..LIMIT {
            let trial = Trial::new(lab, format!("killed at {call} number {n} of ADD"));
            let fault = format!("{call}:signal=KILL:when={n}");
            if matches!(trial.run(&fault, "ADD"), Ended::Untouched) {
                break;
            }
            trial.plugin().del(&network(), &Trial::call());
            trial.assert_nothing_left(&before);
            trial.assert_usable(&before);
        }
    }
}

fn kills_in_del(lab: &Lab, calls: &str) {
    let before = pristine(lab);
    for call in calls.split(',') {
        for n in 1..LIMIT {
            let trial = Trial::new(lab, format!("killed at {call} number {n} of DEL"));
            trial.plugin().add(&network(), &Trial::call());
            let fault = format!("{call}:signal=KILL:when={n}");
            if matches!(trial.run(&fault, "DEL"), Ended::Untouched) {
                break;
            }
            trial.plugin().del(&network(), &Trial::call());
            trial.assert_nothing_left(&before);
            trial.assert_usable(&before);
        }
    }
}
