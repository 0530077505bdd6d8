//! What needs no attachment: VERSION, and the form of errors.

use serde_json::{Value, json};

use super::{Check, Trial};
use crate::call::Call;

pub(super) fn checks() -> Vec<Check> {
    let check = Check::anywhere;
    vec![
        check(
            "version/answer",
            "VERSION succeeds without other variables, and its answer is one object with \"cniVersion\" and \"supportedVersions\"",
            version_is_answered,
        ),
        check(
            "version/supported",
            "a version that VERSION lists is not refused as incompatible",
            listed_versions_are_supported,
        ),
        check(
            "error/object",
            "a failure ends with a status other than 0 and writes one object: code, msg and perhaps details",
            failures_are_error_objects,
        ),
        check(
            "error/version",
            "an error carries the version of the configuration that was called with",
            errors_carry_the_version,
        ),
    ]
}

fn version_is_answered(trial: &Trial<'_>) -> Result<(), String> {
    let call = Call {
        verb: Some("VERSION".to_owned()),
        ..Call::default()
    };
    for input in [
        &br#"{"cniVersion": "1.0.0"}"#[..],
        br#"{"cniVersion": "0.4.0"}"#,
    ] {
        let answer = trial.call(&call, input)?;
        let object = answer.result()?;
        let list = object.get("supportedVersions").and_then(Value::as_array);
        let right = |version: &Value| version.as_str().is_some_and(is_version);
        if !list.is_some_and(|list| !list.is_empty() && list.iter().all(right)) {
            return Err(format!(
                "\"supportedVersions\" is a list of versions; {}",
                answer.describe()
            ));
        }
        if !object.get("cniVersion").is_some_and(right) {
            return Err(format!(
                "\"cniVersion\" is a version; {}",
                answer.describe()
            ));
        }
    }
    Ok(())
}

/// Three numbers with dots between.
fn is_version(text: &str) -> bool {
    let numbers: Vec<&str> = text.split('.').collect();
    numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok())
}

/// What no plugin can do, in every version: an interface in a namespace that does not exist.
fn hopeless(trial: &Trial<'_>, version: &str) -> Result<crate::answer::Answer, String> {
    let mut call = trial.attachment("ADD");
    call.netns = Some("/run/netns/nowhere".to_owned());
    // A configuration without a plugin's own keys fails as well, and that is all that is asked for.
    let mut network = trial.subject.network(version);
    if let Some(network) = network.as_object_mut() {
        network.remove("ipam");
    }
    network["dns"] = json!("no object");
    trial.call(&call, network.to_string().as_bytes())
}

fn listed_versions_are_supported(trial: &Trial<'_>) -> Result<(), String> {
    for version in trial.versions {
        let answer = hopeless(trial, version)?;
        if !answer.status.success() && answer.error() == Ok(1) {
            return Err(format!("{version} is listed; {}", answer.describe()));
        }
    }
    Ok(())
}

fn failures_are_error_objects(trial: &Trial<'_>) -> Result<(), String> {
    let call = Call {
        verb: Some("NONSENSE".to_owned()),
        ..trial.attachment("ADD")
    };
    let network = trial.subject.network(trial.newest()).to_string();
    trial.call(&call, network.as_bytes())?.error()?;
    trial
        .call(&trial.attachment("ADD"), b"no JSON")?
        .error()
        .map(drop)
}

fn errors_carry_the_version(trial: &Trial<'_>) -> Result<(), String> {
    for version in trial.versions {
        let answer = hopeless(trial, version)?;
        if answer.status.success() {
            // The plugin looks at neither; then there is no error to look at.
            continue;
        }
        answer.error()?;
        let found = answer.object()?.remove("cniVersion");
        if found.as_ref().and_then(Value::as_str) != Some(version) {
            return Err(format!("{version} was called with; {}", answer.describe()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn a_version_is_three_numbers() {
        assert!(is_version("0.3.1") && is_version("1.10.0"));
        for wrong in ["", "1", "1.0", "1.0.x", "v1.0.0", "1.0.0.0"] {
            assert!(!is_version(wrong), "{wrong}");
        }
    }
}
