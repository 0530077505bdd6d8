//! Validated names: a value of these types can be put into a path, a netlink attribute or a comment as it is.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;

/// Why a name was refused. The message says what was wrong with which value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what} {value:?} {problem}")]
pub struct NameError {
    what: &'static str,
    value: String,
    problem: &'static str,
}

/// Longest interface name in bytes (the kernel's `IFNAMSIZ` is 16 with the terminating zero).
pub const IFNAME_MAX: usize = 15;

/// Longest network name or container ID in bytes that is accepted.
///
/// Both become parts of file names, which end at 255 bytes; the rest of the specification sets no limit.
pub const NAME_MAX: usize = 240;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(value: String) -> Result<Self, NameError> {
                match $check(&value) {
                    Ok(()) => Ok(Self(value)),
                    Err((what, problem)) => Err(NameError { what, value, problem }),
                }
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(value: &str) -> Result<Self, NameError> {
                Self::try_from(value.to_owned())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
            }
        }
    };
}

name_type!(
    /// Name of a network: a letter or digit, then letters, digits, `_`, `.` and `-` (CNI specification,
    /// "Network configuration format").
    NetworkName,
    check_network
);
name_type!(
    /// Container ID, the same pattern as [`NetworkName`] (CNI specification, "Parameters").
    ContainerId,
    check_container
);
name_type!(
    /// Interface name: 1 to 15 bytes, not `.` or `..`, no `/`, `:` or white space (the kernel's
    /// `dev_valid_name` in net/core/dev.c), and no control characters.
    IfName,
    check_ifname
);
name_type!(
    /// Name of a plugin as it stands in `type`: one file name, never a path (CVE-2021-20206).
    PluginName,
    check_plugin
);

impl IfName {
    /// Refuses a name that no interface can be given: the kernel takes `e%d` for a pattern and makes `e0` of it
    /// (`__dev_alloc_name` in net/core/dev.c), so that a result with the name that was asked for would be wrong.
    ///
    /// It is for names that an interface is to get. What is to be removed was perhaps made when this was not looked at.
    ///
    /// # Errors
    /// Where the name has a `%`.
    pub fn for_new(self) -> Result<Self, NameError> {
        if !self.0.contains('%') {
            return Ok(self);
        }
        Err(NameError {
            what: "interface name",
            value: self.0,
            problem: "may not contain '%', which the kernel replaces with a number: give the whole name",
        })
    }
}

type Check = Result<(), (&'static str, &'static str)>;

fn check_identifier(what: &'static str, value: &str) -> Check {
    let mut bytes = value.bytes();
    let Some(first) = bytes.next() else {
        return Err((what, "is empty"));
    };
    if !first.is_ascii_alphanumeric() {
        return Err((what, "must start with a letter or digit (a-z, A-Z, 0-9)"));
    }
    if !bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-')) {
        return Err((what, "may contain only letters, digits, '_', '.' and '-'"));
    }
    if value.len() > NAME_MAX {
        return Err((what, "is longer than 240 bytes"));
    }
    Ok(())
}

fn check_network(value: &str) -> Check {
    check_identifier("network name", value)
}

fn check_container(value: &str) -> Check {
    check_identifier("container ID", value)
}

fn check_ifname(value: &str) -> Check {
    const WHAT: &str = "interface name";
    match value {
        "" => return Err((WHAT, "is empty")),
        "." | ".." => return Err((WHAT, "is a directory name")),
        _ => {}
    }
    if value.len() > IFNAME_MAX {
        return Err((WHAT, "is longer than the kernel's 15 bytes"));
    }
    if value
        .chars()
        .any(|c| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control())
    {
        return Err((
            WHAT,
            "may not contain '/', ':', white space or control characters",
        ));
    }
    Ok(())
}

fn check_plugin(value: &str) -> Check {
    const WHAT: &str = "plugin type";
    match value {
        "" => Err((WHAT, "is empty")),
        "." | ".." => Err((WHAT, "is a directory name, not a plugin")),
        _ if value.contains(['/', '\0']) => Err((
            WHAT,
            "must be a plain file name that is looked up on CNI_PATH, not a path",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_names_follow_the_specification() {
        for good in ["a", "net-1", "10-bridge", "A_b.c-d", &"x".repeat(240)] {
            assert!(NetworkName::try_from(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "-a",
            "_a",
            "a/b",
            "a b",
            "ä",
            "a\n",
            &"x".repeat(241),
        ] {
            assert!(NetworkName::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn interface_names_follow_the_kernel() {
        for good in ["eth0", "a", "eth0.100", "fifteen-bytes-x", "veth@x", "ü"] {
            assert!(IfName::try_from(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "a:b",
            "a b",
            "a\tb",
            "sixteen-bytes-xx",
            "a\0",
        ] {
            assert!(IfName::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn no_interface_gets_a_name_that_the_kernel_takes_for_a_pattern() {
        let name = |text| IfName::try_from(text).unwrap().for_new();
        assert_eq!(name("e0").unwrap().as_str(), "e0");
        for pattern in ["e%d", "%d", "e%"] {
            let error = name(pattern).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "interface name {pattern:?} may not contain '%', which the kernel replaces with a number: give the \
                     whole name"
                )
            );
        }
    }

    #[test]
    fn cve_2021_20206_a_plugin_type_is_never_a_path() {
        assert!(PluginName::try_from("host-local").is_ok());
        for bad in ["", ".", "..", "../bridge", "/bin/sh", "a/b"] {
            assert!(PluginName::try_from(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_error_names_kind_value_and_rule() {
        let error = IfName::try_from("a:b").unwrap_err().to_string();
        assert_eq!(
            error,
            "interface name \"a:b\" may not contain '/', ':', white space or control characters"
        );
    }
}
