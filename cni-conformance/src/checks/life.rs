//! The life of an attachment: ADD, CHECK, GC, STATUS and DEL, in every version that the plugin supports.

use serde_json::{Map, Value, json};

use super::{Check, Need, Trial, since};
use crate::shape;
use crate::stage::NETNS;
use crate::subject::{HOST_END, MACS};

/// Checks that a version may pass and another fail.
const EACH_VERSION: [&str; 5] = [
    "add/result",
    "add/previous-result",
    "check/after-add",
    "del/takes-away",
    "del/twice",
];

pub(super) fn checks() -> Vec<Check> {
    let check = |name, rule, need, run| Check {
        name,
        rule,
        need,
        each_version: EACH_VERSION.contains(&name),
        run,
    };
    use Need::{Chained, Configuration, First};
    vec![
        check(
            "add/result",
            "ADD answers with a result in the shape of the version that was asked for",
            Configuration,
            add_in_every_version,
        ),
        check(
            "add/interface",
            "an interface that ADD made in the container is in its result, with the namespace as sandbox",
            First,
            made_interface_is_told,
        ),
        check(
            "add/previous-result",
            "a chained plugin passes on interfaces and addresses of the previous result",
            Chained,
            previous_result_is_passed_on,
        ),
        check(
            "add/without-previous-result",
            "a chained plugin without a previous result fails with an error",
            Chained,
            previous_result_is_asked_for,
        ),
        check(
            "add/unknown-keys",
            "keys that the plugin does not know are ignored",
            Configuration,
            unknown_keys_are_ignored,
        ),
        check(
            "add/failure-leaves-nothing",
            "an ADD that fails leaves no interface",
            Configuration,
            failed_add_leaves_nothing,
        ),
        check(
            "check/after-add",
            "CHECK succeeds after ADD, and says nothing",
            Configuration,
            check_succeeds,
        ),
        check(
            "check/interface-gone",
            "CHECK fails when the container's interface is gone",
            First,
            check_notices,
        ),
        check(
            "del/takes-away",
            "DEL says nothing and takes away the interfaces that ADD made",
            Configuration,
            del_takes_away,
        ),
        check(
            "del/twice",
            "a second DEL succeeds",
            Configuration,
            del_twice,
        ),
        check(
            "del/never-added",
            "DEL of an attachment that never was succeeds",
            Configuration,
            del_of_nothing,
        ),
        check(
            "del/namespace-gone",
            "DEL succeeds when the container's namespace is gone, whether CNI_NETNS names it or is absent",
            Configuration,
            del_without_namespace,
        ),
        check(
            "status/ready",
            "STATUS succeeds where ADD does, and says nothing",
            Configuration,
            status_succeeds,
        ),
        check(
            "gc/keeps",
            "GC keeps an attachment that is listed as valid",
            Configuration,
            gc_keeps,
        ),
        check(
            "gc/removes",
            "after GC that lists no attachment as valid, no interface of it is left on the host, and DEL succeeds",
            Configuration,
            gc_removes,
        ),
    ]
}

/// ADD that must succeed; its result.
fn add(trial: &Trial<'_>, version: &str) -> Result<Map<String, Value>, String> {
    let network = trial.subject.network(version);
    let result = trial
        .verb("ADD", &network)
        .and_then(|answer| answer.result());
    result.map_err(|how| format!("ADD of {version}: {how}"))
}

/// What a runtime hands to verbs after ADD.
fn after(trial: &Trial<'_>, result: &Map<String, Value>, version: &str) -> Value {
    let mut network = trial.subject.network(version);
    network["prevResult"] = Value::Object(result.clone());
    network
}

/// A verb that must succeed and say nothing.
fn silent(trial: &Trial<'_>, verb: &str, network: &Value) -> Result<(), String> {
    let silence = trial
        .verb(verb, network)
        .and_then(|answer| answer.silence());
    silence.map_err(|how| format!("{verb} of {}: {how}", network["cniVersion"]))
}

fn del(trial: &Trial<'_>, result: &Map<String, Value>, version: &str) -> Result<(), String> {
    silent(trial, "DEL", &after(trial, result, version))
}

fn add_in_every_version(trial: &Trial<'_>) -> Result<(), String> {
    for version in trial.versions {
        let result = add(trial, version)?;
        shape::check(&result, version).map_err(|how| format!("{version}: {how}"))?;
        del(trial, &result, version)?;
    }
    Ok(())
}

fn made_interface_is_told(trial: &Trial<'_>) -> Result<(), String> {
    let version = trial.newest();
    if version < "0.3.0" {
        return Ok(());
    }
    let before = trial.stage()?.container_links();
    let result = add(trial, version)?;
    let mut made = trial.stage()?.container_links();
    made.retain(|name| !before.contains(name));
    for name in made {
        let interfaces = result.get("interfaces").and_then(Value::as_array);
        let told = |interface: &Value| interface["name"] == *name && interface["sandbox"] == NETNS;
        if !interfaces.is_some_and(|interfaces| interfaces.iter().any(told)) {
            return Err(format!(
                "{name} was made; the result is {}",
                Value::Object(result)
            ));
        }
    }
    Ok(())
}

fn previous_result_is_passed_on(trial: &Trial<'_>) -> Result<(), String> {
    for version in trial.versions {
        let result = Value::Object(add(trial, version)?);
        let passed = if *version < "0.3.0" {
            result["ip4"]["ip"] == "10.1.0.2/24"
        } else {
            let interface = |name: &str| {
                let interfaces = result["interfaces"].as_array();
                interfaces.is_some_and(|all| all.iter().any(|interface| interface["name"] == name))
            };
            interface(HOST_END) && interface("eth0") && result["ips"][0]["address"] == "10.1.0.2/24"
        };
        if !passed {
            return Err(format!(
                "{version}: {HOST_END} ({}), eth0 ({}) and 10.1.0.2/24 were in prevResult; the result is {result}",
                MACS[0], MACS[1]
            ));
        }
        silent(trial, "DEL", &{
            let mut network = trial.subject.network(version);
            network["prevResult"] = result;
            network
        })?;
    }
    Ok(())
}

fn previous_result_is_asked_for(trial: &Trial<'_>) -> Result<(), String> {
    let mut network = trial.subject.network(trial.newest());
    if let Some(network) = network.as_object_mut() {
        network.remove("prevResult");
    }
    trial.verb("ADD", &network)?.error().map(drop)
}

fn unknown_keys_are_ignored(trial: &Trial<'_>) -> Result<(), String> {
    let mut network = trial.subject.network(trial.newest());
    network["x-of-somebody-else"] = json!({"deep": [1, null, "text"]});
    trial.verb("ADD", &network)?.result().map(drop)
}

fn failed_add_leaves_nothing(trial: &Trial<'_>) -> Result<(), String> {
    let stage = trial.stage()?;
    let before = (stage.links(), stage.container_links());
    let mut call = trial.attachment("ADD");
    call.netns = Some("/run/netns/nowhere".to_owned());
    let network = trial.subject.network(trial.newest()).to_string();
    // An IPAM plugin has no business with the namespace, and succeeds.
    trial.call(&call, network.as_bytes())?;
    let left = (stage.links(), stage.container_links());
    if left != before {
        return Err(format!("interfaces were {before:?} and are {left:?}"));
    }
    Ok(())
}

fn check_succeeds(trial: &Trial<'_>) -> Result<(), String> {
    for version in trial
        .versions
        .iter()
        .filter(|version| **version >= since("CHECK"))
    {
        let result = add(trial, version)?;
        silent(trial, "CHECK", &after(trial, &result, version))?;
        del(trial, &result, version)?;
    }
    Ok(())
}

fn check_notices(trial: &Trial<'_>) -> Result<(), String> {
    let (stage, version) = (trial.stage()?, trial.newest());
    let before = stage.container_links();
    let result = add(trial, version)?;
    let mut made = stage.container_links();
    made.retain(|name| !before.contains(name));
    if made.is_empty() || !trial.has("CHECK") {
        return Ok(());
    }
    for name in made {
        stage.sh(&format!("ip -n pod link del {name}"))?;
    }
    let answer = trial.verb("CHECK", &after(trial, &result, version))?;
    answer.error().map(drop)
}

fn del_takes_away(trial: &Trial<'_>) -> Result<(), String> {
    let stage = trial.stage()?;
    for version in trial.versions {
        let before = (stage.links(), stage.container_links());
        let result = add(trial, version)?;
        del(trial, &result, version)?;
        let left = (stage.links(), stage.container_links());
        if left != before {
            return Err(format!(
                "{version}: interfaces were {before:?} and are {left:?}"
            ));
        }
    }
    Ok(())
}

fn del_twice(trial: &Trial<'_>) -> Result<(), String> {
    for version in trial.versions {
        let result = add(trial, version)?;
        del(trial, &result, version)?;
        del(trial, &result, version).map_err(|how| format!("the second: {how}"))?;
    }
    Ok(())
}

fn del_of_nothing(trial: &Trial<'_>) -> Result<(), String> {
    silent(trial, "DEL", &trial.subject.network(trial.newest()))
}

fn del_without_namespace(trial: &Trial<'_>) -> Result<(), String> {
    let version = trial.newest();
    let result = add(trial, version)?;
    trial.stage()?.lose_container()?;
    let network = after(trial, &result, version).to_string();
    let mut call = trial.attachment("DEL");
    for netns in [None, Some(NETNS.to_owned())] {
        let what = match &netns {
            Some(path) => format!("CNI_NETNS={path}"),
            None => "without CNI_NETNS".to_owned(),
        };
        call.netns = netns;
        let answer = trial.call(&call, network.as_bytes())?;
        answer.silence().map_err(|how| format!("{what}: {how}"))?;
    }
    Ok(())
}

fn status_succeeds(trial: &Trial<'_>) -> Result<(), String> {
    if !trial.has("STATUS") {
        return Ok(());
    }
    let mut call = trial.attachment("STATUS");
    (call.container, call.netns, call.ifname) = (None, None, None);
    let network = trial.subject.network(since("STATUS")).to_string();
    trial.call(&call, network.as_bytes())?.silence()
}

/// GC of the network, with these attachments.
fn gc(trial: &Trial<'_>, valid: Value) -> Result<(), String> {
    let mut call = trial.attachment("GC");
    (call.container, call.netns, call.ifname) = (None, None, None);
    let mut network = trial.subject.network(since("GC"));
    network["cni.dev/valid-attachments"] = valid;
    if let Some(network) = network.as_object_mut() {
        network.remove("prevResult");
    }
    let answer = trial.call(&call, network.to_string().as_bytes())?;
    answer.silence().map_err(|how| format!("GC: {how}"))
}

fn gc_keeps(trial: &Trial<'_>) -> Result<(), String> {
    if !trial.has("GC") {
        return Ok(());
    }
    let result = add(trial, since("GC"))?;
    let attachment = trial.attachment("GC");
    gc(
        trial,
        json!([{"containerID": attachment.container, "ifname": attachment.ifname}]),
    )?;
    silent(trial, "CHECK", &after(trial, &result, since("GC")))
}

fn gc_removes(trial: &Trial<'_>) -> Result<(), String> {
    if !trial.has("GC") {
        return Ok(());
    }
    let stage = trial.stage()?;
    let before = stage.links();
    let result = add(trial, since("GC"))?;
    gc(trial, json!([]))?;
    let left = stage.links();
    if left != before {
        return Err(format!(
            "interfaces of the host were {before:?} and are {left:?}"
        ));
    }
    del(trial, &result, since("GC"))
}
