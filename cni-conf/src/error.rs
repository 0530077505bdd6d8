//! The error object of the protocol.

use serde::Serialize;
use thiserror::Error;

use crate::json::FieldError;
use crate::names::NameError;
use crate::version::SpecVersion;

/// What kind of failure an [`Error`](struct@Error) reports, as the number in `code`.
///
/// 1 to 99 are the specification's ("Error", section 2.5 of CNI 1.1.0), from 100 on they are trestle's own and
/// listed in docs/errors.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// 1: the version of the configuration is not supported, or the verb does not exist in it.
    IncompatibleVersion,
    /// 2: a field of the configuration has a value that can't be honoured.
    UnsupportedField,
    /// 3: the container is unknown or gone.
    UnknownContainer,
    /// 4: an environment variable is missing or invalid; the message names it.
    InvalidEnvironment,
    /// 5: reading or writing failed.
    Io,
    /// 6: the input is not the JSON that was expected.
    Decoding,
    /// 7: the network configuration is invalid.
    InvalidConfig,
    /// 11: a passing condition; the runtime should try again.
    TryAgainLater,
    /// 50: STATUS: the plugin can't serve ADD.
    NotAvailable,
    /// 51: STATUS: the plugin can't serve ADD, and existing containers have limited connectivity.
    LimitedConnectivity,
    /// 100: the kernel refused an operation.
    Kernel,
    /// 101: no address is free, or a requested one can't be had.
    NoAddress,
    /// 102: something that is not this attachment's stands in the way.
    Conflict,
    /// 103: CHECK found that reality differs from the result of ADD.
    CheckFailed,
    /// 104: the IPAM plugin could not be found or run, or answered nonsense.
    Delegate,
    /// 105: a program that the configuration needs is not installed.
    MissingTool,
    /// 106: this kernel lacks a feature that the configuration needs.
    KernelFeature,
    /// Any other number, as another plugin reported it.
    Foreign(u32),
}

impl Code {
    /// The number in `code`.
    pub const fn number(self) -> u32 {
        match self {
            Self::IncompatibleVersion => 1,
            Self::UnsupportedField => 2,
            Self::UnknownContainer => 3,
            Self::InvalidEnvironment => 4,
            Self::Io => 5,
            Self::Decoding => 6,
            Self::InvalidConfig => 7,
            Self::TryAgainLater => 11,
            Self::NotAvailable => 50,
            Self::LimitedConnectivity => 51,
            Self::Kernel => 100,
            Self::NoAddress => 101,
            Self::Conflict => 102,
            Self::CheckFailed => 103,
            Self::Delegate => 104,
            Self::MissingTool => 105,
            Self::KernelFeature => 106,
            Self::Foreign(number) => number,
        }
    }
}

/// A failure as the protocol reports it: what happened in `msg`, what to do about it in `details`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{msg}{}{details}", if details.is_empty() { "" } else { "; " })]
pub struct Error {
    /// Kind of the failure.
    pub code: Code,
    /// One sentence: operation, object, cause.
    pub msg: String,
    /// The remedy, or empty.
    pub details: String,
}

impl Error {
    /// An error without details.
    pub fn new(code: Code, msg: impl Into<String>) -> Self {
        Self {
            code,
            msg: msg.into(),
            details: String::new(),
        }
    }

    /// An invalid network configuration ([`Code::InvalidConfig`]).
    pub fn config(msg: impl Into<String>) -> Self {
        Self::new(Code::InvalidConfig, msg)
    }

    /// The same error with the remedy in `details`; a text that is there already is kept in front.
    #[must_use]
    pub fn with_details(mut self, details: impl AsRef<str>) -> Self {
        if !self.details.is_empty() {
            self.details.push_str("; ");
        }
        self.details.push_str(details.as_ref());
        self
    }

    /// One error for several: the first one's code, all messages and details in order. `None` if there are none.
    pub fn join(errors: impl IntoIterator<Item = Error>) -> Option<Error> {
        errors.into_iter().reduce(|mut all, next| {
            all.msg.push_str("; ");
            all.msg.push_str(&next.msg);
            if next.details.is_empty() {
                all
            } else {
                all.with_details(next.details)
            }
        })
    }

    /// The JSON object for stdout.
    pub fn to_json(&self, version: SpecVersion) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Wire<'a> {
            cni_version: SpecVersion,
            code: u32,
            msg: &'a str,
            #[serde(skip_serializing_if = "str::is_empty")]
            details: &'a str,
        }
        let wire = Wire {
            cni_version: version,
            code: self.code.number(),
            msg: &self.msg,
            details: &self.details,
        };
        serde_json::to_string_pretty(&wire).unwrap_or_default()
    }
}

impl From<FieldError> for Error {
    /// A field of the configuration that does not have the type or form it must have.
    fn from(error: FieldError) -> Self {
        Self::config(error.to_string())
    }
}

impl From<NameError> for Error {
    fn from(error: NameError) -> Self {
        Self::config(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_object_has_the_protocols_shape() {
        let error = Error::config("no name").with_details("add \"name\"");
        let json: serde_json::Value =
            serde_json::from_str(&error.to_json(SpecVersion::V0_4_0)).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"cniVersion": "0.4.0", "code": 7, "msg": "no name", "details": "add \"name\""})
        );
    }

    #[test]
    fn joined_errors_keep_every_message() {
        let errors = [
            Error::config("a").with_details("do x"),
            Error::new(Code::Io, "b"),
        ];
        let joined = Error::join(errors).unwrap();
        assert_eq!(
            (joined.code, joined.msg.as_str()),
            (Code::InvalidConfig, "a; b")
        );
        assert_eq!(joined.details, "do x");
        assert_eq!(Error::join([]), None);
    }
}
