//! What a plugin answered: status, standard output and standard error of one call, held against the specification.

use std::process::ExitStatus;

use serde_json::{Map, Value};

/// Keys that the specification gives an error.
const ERROR_KEYS: [&str; 4] = ["cniVersion", "code", "msg", "details"];

/// The output of one call.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Answer {
    /// Standard output as the one JSON object that it has to be.
    pub(crate) fn object(&self) -> Result<Map<String, Value>, String> {
        match serde_json::from_slice(&self.stdout) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(other) => Err(format!("standard output holds {other} and no object")),
            Err(_) if self.stdout.trim_ascii().is_empty() => {
                Err(format!("nothing on standard output; {}", self.describe()))
            }
            Err(error) => Err(format!(
                "standard output is not one JSON object ({error}); {}",
                self.describe()
            )),
        }
    }

    /// The object of a call that succeeded.
    pub(crate) fn result(&self) -> Result<Map<String, Value>, String> {
        if self.status.success() {
            return self.object();
        }
        Err(format!("should have succeeded; {}", self.describe()))
    }

    /// A call that succeeded and had nothing to say.
    pub(crate) fn silence(&self) -> Result<(), String> {
        if !self.status.success() {
            return Err(format!("should have succeeded; {}", self.describe()));
        }
        if !self.stdout.trim_ascii().is_empty() {
            return Err(format!(
                "should have written nothing to standard output; {}",
                self.describe()
            ));
        }
        Ok(())
    }

    /// A call that failed as the specification has it: a status other than 0 and an error object, whose code is returned.
    pub(crate) fn error(&self) -> Result<u64, String> {
        if self.status.success() {
            return Err(format!("should have failed; {}", self.describe()));
        }
        let error = self.object()?;
        if let Some(strange) = error.keys().find(|key| !ERROR_KEYS.contains(&key.as_str())) {
            return Err(format!(
                "an error has no key {strange:?}; {}",
                self.describe()
            ));
        }
        if error
            .get("msg")
            .and_then(Value::as_str)
            .is_none_or(str::is_empty)
        {
            return Err(format!("an error has a text \"msg\"; {}", self.describe()));
        }
        let code = error.get("code").and_then(Value::as_u64);
        code.filter(|&code| code > 0)
            .ok_or_else(|| format!("an error has a number \"code\"; {}", self.describe()))
    }

    /// Such an error with this code.
    pub(crate) fn refusal(&self, code: u64) -> Result<(), String> {
        match self.error()? {
            found if found == code => Ok(()),
            found => Err(format!(
                "code {found} instead of {code}; {}",
                self.describe()
            )),
        }
    }

    /// What the plugin wrote, cut where it is long.
    pub(crate) fn describe(&self) -> String {
        let stdout = String::from_utf8_lossy(&self.stdout);
        format!(
            "{}, standard output {:?}, standard error {:?}",
            self.status,
            short(&stdout),
            short(&self.stderr)
        )
    }
}

fn short(text: &str) -> String {
    const LONGEST: usize = 300;
    let text = text.trim();
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{} …", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    fn answer(status: i32, stdout: &str) -> Answer {
        Answer {
            status: ExitStatus::from_raw(status << 8),
            stdout: stdout.into(),
            stderr: String::new(),
        }
    }

    #[test]
    fn what_stands_before_or_after_the_object_is_an_error() {
        let object = r#"{"cniVersion": "1.0.0", "code": 7, "msg": "no"}"#;
        assert_eq!(answer(1, &format!("\n{object}\n")).error(), Ok(7));
        for wrong in [
            format!("starting\n{object}"),
            format!("{object}{object}"),
            format!("[{object}]"),
        ] {
            answer(1, &wrong).error().expect_err(&wrong);
        }
    }

    #[test]
    fn an_error_has_a_status_a_code_and_a_message() {
        let object = r#"{"cniVersion": "1.0.0", "code": 7, "msg": "no", "details": "why"}"#;
        assert_eq!(answer(2, object).refusal(7), Ok(()));
        assert!(
            answer(2, object)
                .refusal(4)
                .is_err_and(|how| how.contains("instead of 4"))
        );
        answer(0, object).error().expect_err("status 0");
        for wrong in [
            "",
            r#"{"cniVersion": "1.0.0", "code": 0, "msg": "no"}"#,
            r#"{"cniVersion": "1.0.0", "code": "7", "msg": "no"}"#,
            r#"{"cniVersion": "1.0.0", "code": 7, "msg": ""}"#,
            r#"{"cniVersion": "1.0.0", "code": 7, "msg": "no", "message": "no"}"#,
        ] {
            answer(1, wrong).error().expect_err(wrong);
        }
    }

    #[test]
    fn silence_is_success_without_a_word() {
        assert_eq!(answer(0, " \n").silence(), Ok(()));
        answer(0, "{}").silence().expect_err("an object");
        answer(1, "").silence().expect_err("status 1");
    }
}
