//! What every call of a plugin must keep to, whatever it was given.

use conformance::Output;
use serde_json::Value;

/// Nothing is said that the specification doesn't know: one object or nothing on standard output, and the status that
/// belongs to it.
pub(super) fn protocol(verb: &str, output: &Output) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{verb}: {what}: {output}"));
    if [
        "panicked",
        "overflowed its stack",
        "RUST_BACKTRACE",
        "AddressSanitizer",
    ]
    .iter()
    .any(|word| output.stderr.contains(word))
    {
        return wrong("panic");
    }
    let said = if output.stdout.iter().all(u8::is_ascii_whitespace) {
        None
    } else {
        match serde_json::from_slice::<Value>(&output.stdout) {
            Ok(value) if value.is_object() => Some(value),
            Ok(_) => return wrong("stdout is no object"),
            Err(error) => return wrong(&format!("stdout is no JSON ({error})")),
        }
    };
    match (output.status.code(), said) {
        (Some(0), Some(result)) if matches!(verb, "ADD" | "VERSION") => {
            if result["cniVersion"].is_string() {
                Ok(())
            } else {
                wrong("a result without a version")
            }
        }
        (Some(0), None) if !matches!(verb, "ADD" | "VERSION") => Ok(()),
        (Some(1), Some(error)) => {
            let message = error["msg"].as_str().is_some_and(|text| !text.is_empty());
            let code = error["code"].as_u64().is_some_and(|code| code > 0);
            if message && code {
                Ok(())
            } else {
                wrong("an error without code or msg")
            }
        }
        _ => wrong("status and stdout don't fit"),
    }
}
