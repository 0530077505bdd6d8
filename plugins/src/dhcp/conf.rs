//! The section `ipam`, as it comes and as it is understood.

use std::path::PathBuf;

use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::request::{CniArgs, Request};
use serde::{Deserialize, Serialize};

use super::options;

/// Where the daemon listens unless the list says otherwise.
pub(super) const SOCKET: &str = "/run/cni/dhcp.sock";

/// What fits an option, in bytes.
const VALUE_MAX: usize = 255;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wire {
    ipam: Section,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Section {
    daemon_socket_path: String,
    priority: i64,
    provide: Vec<Provide>,
    request: Vec<Wanted>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Provide {
    option: String,
    value: String,
    from_arg: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wanted {
    skip_default: bool,
    option: String,
}

/// What the daemon is told of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wishes {
    /// Options that every message has, with their values.
    pub(super) provide: Vec<(u8, Vec<u8>)>,
    /// Options that the server is asked for.
    pub(super) request: Vec<u8>,
    /// The metric of all routes.
    pub(super) priority: Option<u32>,
}

/// The configuration, validated and complete.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) socket: PathBuf,
    pub(super) wishes: Wishes,
}

/// Where the daemon listens, for verbs that must work when the rest is invalid by now.
pub(super) fn socket(request: &Request) -> PathBuf {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Wire {
        ipam: Section,
    }
    #[derive(Default, Deserialize)]
    #[serde(default, rename_all = "camelCase")]
    struct Section {
        daemon_socket_path: String,
    }
    let wire: Wire = json::from_value(&request.conf).unwrap_or_default();
    path(wire.ipam.daemon_socket_path)
}

fn path(text: String) -> PathBuf {
    match text.as_str() {
        "" => SOCKET.into(),
        _ => text.into(),
    }
}

impl Settings {
    /// Reads the section; `args` are those of the call, where it has any.
    pub(super) fn read(request: &Request, args: Option<&CniArgs>) -> Result<Self, Error> {
        let Wire { ipam } = json::from_value(&request.conf)?;
        let mut provide = Vec::new();
        for (index, wire) in ipam.provide.iter().enumerate() {
            let path = format!("ipam.provide[{index}]");
            provide.extend(provided(&path, wire, args)?);
        }
        Ok(Self {
            socket: path(ipam.daemon_socket_path),
            wishes: Wishes {
                provide,
                request: requested(&ipam.request)?,
                priority: priority(ipam.priority)?,
            },
        })
    }
}

fn option(path: &str, text: &str) -> Result<u8, FieldError> {
    options::parse(text).ok_or_else(|| {
        FieldError::new(
            format!("{path}.option"),
            format!("{text:?}"),
            "expected the number of an option, or a name such as host-name",
        )
    })
}

/// The value of an option: a text of the list, or the one that an argument of the call has. None without either.
fn provided(
    path: &str,
    wire: &Provide,
    args: Option<&CniArgs>,
) -> Result<Option<(u8, Vec<u8>)>, FieldError> {
    let code = option(path, &wire.option)?;
    if options::OWN.contains(&code) {
        return Err(FieldError::new(
            format!("{path}.option"),
            format!("{:?}", wire.option),
            "the protocol sets this option itself",
        ));
    }
    let given = args.and_then(|args| args.get(&wire.from_arg));
    let value = given.unwrap_or(&wire.value);
    if value.len() > VALUE_MAX {
        let place = if given.is_some() { "fromArg" } else { "value" };
        return Err(FieldError::new(
            format!("{path}.{place}"),
            format!("{} bytes long", value.len()),
            "an option has room for 255 bytes",
        ));
    }
    Ok((!value.is_empty()).then(|| (code, value.as_bytes().to_vec())))
}

fn requested(wanted: &[Wanted]) -> Result<Vec<u8>, FieldError> {
    let mut codes = Vec::new();
    if !wanted.iter().any(|wanted| wanted.skip_default) {
        codes.extend(options::DEFAULT);
    }
    for (index, wanted) in wanted.iter().enumerate() {
        if wanted.option.is_empty() {
            continue;
        }
        let code = option(&format!("ipam.request[{index}]"), &wanted.option)?;
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    Ok(codes)
}

fn priority(number: i64) -> Result<Option<u32>, FieldError> {
    match u32::try_from(number) {
        Ok(0) => Ok(None),
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(FieldError::new(
            "ipam.priority",
            number,
            "a metric is a number from 0 to 4294967295",
        )),
    }
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn read(ipam: Value, args: &str) -> Result<Settings, Error> {
        let request = Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "dhcp".try_into().unwrap(),
            conf: json!({"ipam": ipam}),
            cni_path: Vec::new(),
            prev_result: None,
        };
        Settings::read(&request, Some(&CniArgs::parse(args).unwrap()))
    }

    #[test]
    fn everything_may_be_left_out() {
        let settings = read(json!({}), "").unwrap();
        assert_eq!(settings.socket.to_str(), Some(SOCKET));
        assert_eq!(settings.wishes.request, options::DEFAULT);
        assert_eq!(settings.wishes.priority, None);
    }

    #[test]
    fn options_are_provided_by_the_list_or_by_an_argument_of_the_call() {
        let ipam = json!({"provide": [
            {"option": "host-name", "fromArg": "K8S_POD_NAME", "value": "nobody"},
            {"option": "60", "value": "class"},
            {"option": "77", "fromArg": "MISSING"},
        ]});
        let provided = read(ipam.clone(), "K8S_POD_NAME=web-0").unwrap();
        let expected = [(12, b"web-0".to_vec()), (60, b"class".to_vec())];
        assert_eq!(provided.wishes.provide, expected);
        let provided = read(ipam, "").unwrap().wishes.provide;
        assert_eq!(provided[0], (12, b"nobody".to_vec()));
    }

    #[test]
    fn the_default_requests_can_be_left_out() {
        let ipam =
            json!({"request": [{"skipDefault": true}, {"option": "42"}, {"option": "routers"}]});
        assert_eq!(read(ipam, "").unwrap().wishes.request, [42, 3]);
        let ipam = json!({"request": [{"option": "42"}, {"option": "3"}]});
        let request = read(ipam, "").unwrap().wishes.request;
        assert_eq!(request[..12], options::DEFAULT);
        assert_eq!(request[12..], [42]);
    }

    #[test]
    fn bad_values_are_named() {
        let long = "x".repeat(256);
        for (ipam, args, field) in [
            (
                json!({"provide": [{"option": "hostname"}]}),
                "",
                "ipam.provide[0].option",
            ),
            (
                json!({"provide": [{"option": "53", "value": "x"}]}),
                "",
                "ipam.provide[0].option",
            ),
            (
                json!({"provide": [{"option": "12", "value": long}]}),
                "",
                "ipam.provide[0].value",
            ),
            (
                json!({"provide": [{"option": "12", "fromArg": "A"}]}),
                &format!("A={}", "x".repeat(256)),
                "ipam.provide[0].fromArg",
            ),
            (
                json!({"request": [{"option": "256"}]}),
                "",
                "ipam.request[0].option",
            ),
            (json!({"priority": -1}), "", "ipam.priority"),
        ] {
            let error = read(ipam.clone(), args).unwrap_err();
            assert!(error.msg.contains(field), "{ipam}: {error}");
        }
    }
}
