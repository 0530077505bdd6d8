//! What a plugin refuses, with the specification's code, before it does anything.

use serde_json::json;

use super::{Check, Trial, since};
use crate::call::Call;

/// Codes of the specification.
const INCOMPATIBLE: u64 = 1;
const ENVIRONMENT: u64 = 4;
const DECODING: u64 = 6;
const CONFIGURATION: u64 = 7;

pub(super) fn checks() -> Vec<Check> {
    let check = Check::anywhere;
    vec![
        check(
            "refuse/unknown-version",
            "a configuration of a version that the plugin does not know is refused with code 1",
            unknown_version,
        ),
        check(
            "refuse/verb-before-its-version",
            "CHECK before 0.4.0, GC and STATUS before 1.1.0 are refused with code 1",
            verb_before_its_version,
        ),
        check(
            "refuse/unknown-verb",
            "a CNI_COMMAND that is no verb is refused with code 4",
            unknown_verb,
        ),
        check(
            "refuse/missing-variable",
            "ADD, CHECK and DEL without CNI_CONTAINERID or CNI_IFNAME, and ADD and CHECK without CNI_NETNS, are refused with code 4, and the message names the variable",
            missing_variable,
        ),
        check(
            "refuse/invalid-container",
            "a CNI_CONTAINERID that does not begin with a letter or digit, or holds more than those, '_', '.' and '-', is refused with code 4",
            invalid_container,
        ),
        check(
            "refuse/invalid-interface",
            "a CNI_IFNAME that can be no interface's name is refused with code 4",
            invalid_interface,
        ),
        check(
            "refuse/no-json",
            "input that is no JSON is refused with code 6",
            no_json,
        ),
        check(
            "refuse/invalid-name",
            "a network without a name, or with one that could be a path, is refused with code 7",
            invalid_name,
        ),
    ]
}

/// Calls that must all be refused with that code, and leave the interfaces as they are.
fn refused(
    trial: &Trial<'_>,
    code: u64,
    calls: impl IntoIterator<Item = (String, Call, String)>,
) -> Result<(), String> {
    let interfaces = || {
        trial
            .stage
            .map(|stage| (stage.links(), stage.container_links()))
    };
    let before = interfaces();
    for (what, call, stdin) in calls {
        let answer = trial.call(&call, stdin.as_bytes())?;
        answer
            .refusal(code)
            .map_err(|how| format!("{what}: {how}"))?;
    }
    if interfaces() != before {
        return Err(format!(
            "interfaces were {before:?} and are {:?}",
            interfaces()
        ));
    }
    Ok(())
}

fn unknown_version(trial: &Trial<'_>) -> Result<(), String> {
    let call = |version: &str| {
        let mut network = trial.subject.network(trial.newest());
        network["cniVersion"] = version.into();
        (
            version.to_owned(),
            trial.attachment("ADD"),
            network.to_string(),
        )
    };
    refused(trial, INCOMPATIBLE, ["9.9.9"].map(call))
}

fn verb_before_its_version(trial: &Trial<'_>) -> Result<(), String> {
    let calls = ["CHECK", "GC", "STATUS"].into_iter().filter_map(|verb| {
        let before = trial
            .versions
            .iter()
            .rfind(|version| **version < since(verb))?;
        let network = trial.subject.network(before).to_string();
        Some((
            format!("{verb} of {before}"),
            trial.attachment(verb),
            network,
        ))
    });
    refused(trial, INCOMPATIBLE, calls)
}

fn unknown_verb(trial: &Trial<'_>) -> Result<(), String> {
    let network = trial.subject.network(trial.newest()).to_string();
    let calls =
        ["NONSENSE", "add"].map(|verb| (verb.to_owned(), trial.attachment(verb), network.clone()));
    refused(trial, ENVIRONMENT, calls)
}

fn missing_variable(trial: &Trial<'_>) -> Result<(), String> {
    type Without = fn(&mut Call);
    let variables: [(&str, Without); 3] = [
        ("CNI_CONTAINERID", |call| call.container = None),
        ("CNI_IFNAME", |call| call.ifname = None),
        ("CNI_NETNS", |call| call.netns = None),
    ];
    let network = trial.subject.network(trial.newest()).to_string();
    for (name, without) in variables {
        for verb in ["ADD", "CHECK", "DEL"] {
            // A runtime whose container's namespace is gone has none to name.
            if (verb, name) == ("DEL", "CNI_NETNS") || !trial.has(verb) {
                continue;
            }
            let mut call = trial.attachment(verb);
            without(&mut call);
            let what = format!("{verb} without {name}");
            refused(
                trial,
                ENVIRONMENT,
                [(what.clone(), call.clone(), network.clone())],
            )?;
            let answer = trial.call(&call, network.as_bytes())?;
            if !String::from_utf8_lossy(&answer.stdout).contains(name) {
                return Err(format!("{what}: no word of it; {}", answer.describe()));
            }
        }
    }
    Ok(())
}

fn invalid_container(trial: &Trial<'_>) -> Result<(), String> {
    let network = trial.subject.network(trial.newest()).to_string();
    let calls = ["-leading", "../up", "with space", "with/slash"].map(|container| {
        let mut call = trial.attachment("ADD");
        call.container = Some(container.to_owned());
        (format!("{container:?}"), call, network.clone())
    });
    refused(trial, ENVIRONMENT, calls)
}

fn invalid_interface(trial: &Trial<'_>) -> Result<(), String> {
    let network = trial.subject.network(trial.newest()).to_string();
    let names = [
        "sixteen-bytes-ab",
        ".",
        "..",
        "with/slash",
        "with:colon",
        "with space",
    ];
    let calls = names.map(|ifname| {
        let mut call = trial.attachment("ADD");
        call.ifname = Some(ifname.to_owned());
        (format!("{ifname:?}"), call, network.clone())
    });
    refused(trial, ENVIRONMENT, calls)
}

fn no_json(trial: &Trial<'_>) -> Result<(), String> {
    let network = trial.subject.network(trial.newest()).to_string();
    let inputs = ["", "name = net", &network[..network.len() / 2]];
    let calls = inputs.map(|input| {
        (
            format!("{input:?}"),
            trial.attachment("ADD"),
            input.to_owned(),
        )
    });
    refused(trial, DECODING, calls)
}

fn invalid_name(trial: &Trial<'_>) -> Result<(), String> {
    let calls = ["", "../up", "-leading", "with/slash"].map(|name| {
        let mut network = trial.subject.network(trial.newest());
        network["name"] = json!(name);
        (
            format!("{name:?}"),
            trial.attachment("ADD"),
            network.to_string(),
        )
    });
    refused(trial, CONFIGURATION, calls)
}
