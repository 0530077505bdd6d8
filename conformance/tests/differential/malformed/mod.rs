//! Malformed and unusual input, put to ours and to the Go plugins: both refuse it or both take it, or the table
//! says why not. Whatever ours refuses leaves nothing behind. A module for each plugin.

mod bandwidth;
mod bridge;
mod environment;
mod firewall;
mod host_local;
mod input;
mod portmap;
mod ptp;
mod routes;
mod static_ipam;
mod tuning;
mod verbs;

use std::collections::BTreeSet;

use conformance::{
    Call, Case, Host, Lab, Need, Output, Plugin, host_local as ranges, layer2, with,
};
use serde_json::{Value, json};

use crate::common::plain;

/// How a call ended: 0 when it succeeded, else the code of the error.
type Outcome = u64;

/// The Go plugin's code for nearly everything.
const GENERIC: Outcome = 999;

/// What stands for the code of one that ended without an error object.
const CRASHED: Outcome = u64::MAX;

/// What is put in.
enum Input {
    /// ADD of that plugin's plain network with these keys changed.
    Keys(&'static str, Value),
    /// ADD to the plain bridge network with these `CNI_ARGS`.
    Args(&'static str),
    /// ADD to the plain bridge network with another value of one variable.
    Variable(&'static str, Option<&'static str>),
    /// ADD with these bytes on standard input.
    Bytes(&'static str),
    /// A verb with the plain bridge network and these keys changed.
    Verb(&'static str, Value),
}
use Input::{Args, Bytes, Keys, Variable, Verb};

/// One line of the table.
struct Row {
    /// What is wrong.
    what: &'static str,
    input: Input,
    /// Ours, the Go plugin's.
    outcome: (Outcome, Outcome),
    /// The heading in `docs/differences.md` if one takes what the other refuses, else empty.
    reason: &'static str,
}

fn row(what: &'static str, input: Input, outcome: (Outcome, Outcome), reason: &'static str) -> Row {
    Row {
        what,
        input,
        outcome,
        reason,
    }
}

/// Both take it.
fn taken(what: &'static str, input: Input) -> Row {
    row(what, input, (0, 0), "")
}

/// Both refuse it, ours with this code.
fn refused(what: &'static str, input: Input, code: Outcome) -> Row {
    row(what, input, (code, GENERIC), "")
}

/// Both refuse it with the same code.
fn refused_alike(what: &'static str, input: Input, code: Outcome) -> Row {
    row(what, input, (code, code), "")
}

/// Ours refuses it.
fn refused_by_ours(what: &'static str, input: Input, code: Outcome) -> Row {
    row(what, input, (code, 0), "refused-before-anything-happens")
}

/// The Go plugins refuse it.
fn taken_by_ours(what: &'static str, input: Input) -> Row {
    row(
        what,
        input,
        (0, GENERIC),
        "taken-where-the-go-plugins-refuse",
    )
}

/// A table: its name and its rows.
type Table = (&'static str, fn() -> Vec<Row>);

const TABLES: [Table; 12] = [
    ("bridge", bridge::rows),
    ("ptp", ptp::rows),
    ("routes", routes::rows),
    ("host_local", host_local::rows),
    ("static_ipam", static_ipam::rows),
    ("tuning", tuning::rows),
    ("portmap", portmap::rows),
    ("firewall", firewall::rows),
    ("bandwidth", bandwidth::rows),
    ("environment", environment::rows),
    ("verbs", verbs::rows),
    ("input", input::rows),
];

pub(super) fn cases() -> Vec<Case> {
    let case = |(name, rows): Table| {
        let name = format!("differential::malformed::{name}");
        let case = Case::new(name, move |lab| judge(lab, rows()));
        case.needs(Need::GoPlugins).ours()
    };
    TABLES.into_iter().map(case).collect()
}

/// The headings in `docs/differences.md` that a row is the proof of.
pub(super) fn reasons() -> BTreeSet<&'static str> {
    let rows = TABLES.iter().flat_map(|(_, rows)| rows());
    rows.map(|row| row.reason)
        .filter(|reason| !reason.is_empty())
        .collect()
}

fn judge(lab: &Lab, rows: Vec<Row>) {
    let mut wrong = Vec::new();
    for row in rows {
        let seen = (
            put(lab.bin(), &row.input, true),
            put(&lab.go_plugins(), &row.input, false),
        );
        let what = row.what;
        if seen != row.outcome {
            wrong.push(format!("{what}: {:?} expected, but {seen:?}", row.outcome));
        }
        let agree = (row.outcome.0 == 0) == (row.outcome.1 == 0);
        if agree != row.reason.is_empty() {
            wrong.push(format!(
                "{what}: one is taken, one refused: needs a reason, has {:?}",
                row.reason
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The outcome on a new host.
fn put(bin: &std::path::Path, input: &Input, ours: bool) -> Outcome {
    let host = Host::new();
    let call = Call::of(&host.pod("pod"));
    let before = host.observe();
    let plugin = |name: &str| Plugin {
        host: &host,
        program: bin.join(name),
        path: bin.to_string_lossy().into_owned(),
    };
    let bridge = plugin("bridge");
    let output = match input {
        Keys(name, more) => {
            let call = if *name == "loopback" {
                call.ifname("lo")
            } else {
                call
            };
            let conf = with(network(name), more.clone());
            let program = if *name == "layer2" { "bridge" } else { name };
            plugin(program).call("ADD", &conf, &call)
        }
        Args(args) => bridge.call("ADD", &plain(), &call.args(args)),
        Variable(name, value) => bridge.call("ADD", &plain(), &changed(call, name, *value)),
        Bytes(bytes) => bridge.call_raw("ADD", bytes.as_bytes(), &call),
        Verb(verb, more) => bridge.call(verb, &with(plain(), more.clone()), &call),
    };
    if ours && !output.ok() {
        host.assert_nothing_left(&before, &["pod"]);
    }
    outcome(&output)
}

fn outcome(output: &Output) -> Outcome {
    match output.status.code() {
        Some(0) => 0,
        Some(1) => output.error()["code"].as_u64().unwrap_or(CRASHED),
        _ => CRASHED,
    }
}

fn changed(mut call: Call, name: &str, value: Option<&str>) -> Call {
    let place = match name {
        "CNI_CONTAINERID" => &mut call.container,
        "CNI_NETNS" => &mut call.netns,
        "CNI_IFNAME" => &mut call.ifname,
        _ => &mut call.args,
    };
    *place = value.map(str::to_owned);
    call
}

/// The plain network of a plugin.
fn network(plugin: &str) -> Value {
    let named = json!({"cniVersion": "1.1.0", "name": "net", "type": plugin});
    let attached = json!({"prevResult": {
        "cniVersion": "1.1.0", "interfaces": [{"name": "lo", "sandbox": "/run/netns/pod"}],
        "ips": [{"address": "10.1.0.2/24", "interface": 0}]
    }});
    match plugin {
        "bridge" => plain(),
        "layer2" => layer2(),
        "ptp" | "host-local" => with(named, json!({"ipam": ranges(&["10.1.0.0/24"])})),
        "static" => with(named, json!({"ipam": {"type": "static"}})),
        "loopback" => named,
        _ => with(named, attached),
    }
}
