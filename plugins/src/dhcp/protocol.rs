//! What the plugin and the daemon say to each other: one line of JSON each way on a connection of its own.
//!
//! Both are this binary, but a daemon may be of another release than the plugin, until it is started again: hence a version.

use std::path::PathBuf;

use cni_conf::error::{Code, Error};
use cni_conf::json;
use cni_conf::names::{ContainerId, IfName, NetworkName};
use cni_conf::request::AttachmentId;
use cni_conf::result::{CniResult, Dns, IpConfig, Route};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::conf::Wishes;
use crate::owner::Owner;

/// The version of this protocol.
pub(super) const VERSION: u32 = 1;

/// The longest line, in bytes. A GC names every attachment of a network.
pub(super) const LINE_MAX: usize = 16 << 20;

/// A question.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    pub(super) network: NetworkName,
    pub(super) verb: Verb,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Verb {
    /// A lease for an interface.
    Add {
        who: Who,
        netns: PathBuf,
        wishes: Wishes,
    },
    /// To give it back.
    Del { who: Who },
    /// What is held.
    Check { who: Who },
    /// To give back what is held for anybody else.
    Gc { valid: Vec<Who> },
    /// Whether anybody is there.
    Status,
}

/// A question as it is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct AskWire {
    version: u32,
    verb: String,
    network: Option<NetworkName>,
    who: Option<Who>,
    netns: PathBuf,
    wishes: Wishes,
    valid: Vec<Who>,
}

impl Ask {
    /// The question as a line, without its end.
    pub(super) fn write(&self) -> String {
        let mut wire = AskWire {
            version: VERSION,
            network: Some(self.network.clone()),
            ..AskWire::default()
        };
        let verb = match &self.verb {
            Verb::Add { who, netns, wishes } => {
                wire.who = Some(who.clone());
                wire.netns = netns.clone();
                wire.wishes = wishes.clone();
                "add"
            }
            Verb::Del { who } => {
                wire.who = Some(who.clone());
                "del"
            }
            Verb::Check { who } => {
                wire.who = Some(who.clone());
                "check"
            }
            Verb::Gc { valid } => {
                wire.valid = valid.clone();
                "gc"
            }
            Verb::Status => "status",
        };
        verb.clone_into(&mut wire.verb);
        line(&wire)
    }

    /// Reads a line; what is wrong with it otherwise.
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        let wire: AskWire = read(line)?;
        if wire.version != VERSION {
            return Err(format!("it is of version {}", wire.version));
        }
        let verb = match (wire.verb.as_str(), wire.who) {
            ("add", Some(who)) => Verb::Add {
                who,
                netns: wire.netns,
                wishes: wire.wishes,
            },
            ("del", Some(who)) => Verb::Del { who },
            ("check", Some(who)) => Verb::Check { who },
            ("gc", _) => Verb::Gc { valid: wire.valid },
            ("status", _) => Verb::Status,
            (verb, _) => return Err(format!("{verb:?} is no verb, or something is missing")),
        };
        let network = wire.network.ok_or("it names no network")?;
        Ok(Self { network, verb })
    }
}

fn line(wire: &impl Serialize) -> String {
    serde_json::to_value(wire).unwrap_or_default().to_string()
}

fn read<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    let value: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    json::from_value(&value).map_err(|error| error.to_string())
}

/// An attachment within its network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Who {
    container: ContainerId,
    ifname: IfName,
}

impl From<&AttachmentId> for Who {
    fn from(id: &AttachmentId) -> Self {
        Self {
            container: id.container.clone(),
            ifname: id.ifname.clone(),
        }
    }
}

impl Who {
    /// The attachment in full.
    pub(super) fn owner(&self, network: &NetworkName) -> Owner {
        Owner {
            network: network.clone(),
            container: self.container.clone(),
            ifname: self.ifname.clone(),
        }
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is done.
    Done,
    /// This is what is held.
    Leased {
        ips: Vec<IpConfig>,
        routes: Vec<Route>,
        dns: Dns,
    },
    /// It can't be done.
    Failed {
        code: u32,
        msg: String,
        details: String,
    },
}

/// An answer as it is written. Without a code it is that of success.
#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct AnswerWire {
    version: u32,
    code: u32,
    msg: String,
    details: String,
    ips: Vec<IpConfig>,
    routes: Vec<Route>,
    dns: Dns,
}

impl From<Error> for Answer {
    fn from(error: Error) -> Self {
        Self::Failed {
            code: error.code.number(),
            msg: error.msg,
            details: error.details,
        }
    }
}

impl Answer {
    /// The answer as a line, without its end.
    pub(super) fn write(&self) -> String {
        let mut wire = AnswerWire {
            version: VERSION,
            ..AnswerWire::default()
        };
        match self.clone() {
            Self::Done => {}
            Self::Leased { ips, routes, dns } => {
                wire = AnswerWire {
                    ips,
                    routes,
                    dns,
                    ..wire
                }
            }
            Self::Failed { code, msg, details } => {
                wire = AnswerWire {
                    code,
                    msg,
                    details,
                    ..wire
                }
            }
        }
        line(&wire)
    }

    /// Reads a line; what is wrong with it otherwise.
    pub(super) fn read(line: &[u8]) -> Result<Self, String> {
        let wire: AnswerWire = read(line)?;
        Ok(match wire {
            AnswerWire { version, .. } if version != VERSION => {
                return Err(format!("it is of version {version}"));
            }
            AnswerWire {
                code: 0,
                ips,
                routes,
                dns,
                ..
            } => Self::Leased { ips, routes, dns },
            AnswerWire {
                code, msg, details, ..
            } => Self::Failed { code, msg, details },
        })
    }

    /// The result in an answer, empty where there is none to give.
    pub(super) fn into_result(self) -> Result<CniResult, Error> {
        match self {
            Self::Done => Ok(CniResult::default()),
            Self::Leased { ips, routes, dns } => Ok(CniResult {
                ips,
                routes,
                dns,
                ..CniResult::default()
            }),
            Self::Failed { code, msg, details } => Err(Error {
                code: Code::Foreign(code),
                msg,
                details,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who() -> Who {
        Who {
            container: "c".try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
        }
    }

    #[test]
    fn questions_come_out_as_they_went_in() {
        let wishes = Wishes {
            provide: vec![(12, b"web".to_vec())],
            request: vec![1, 3],
            priority: Some(5),
        };
        let netns = PathBuf::from("/run/netns/c");
        for verb in [
            Verb::Add {
                who: who(),
                netns,
                wishes,
            },
            Verb::Del { who: who() },
            Verb::Check { who: who() },
            Verb::Gc { valid: vec![who()] },
            Verb::Status,
        ] {
            let network = "net".try_into().unwrap();
            let ask = Ask { network, verb };
            let read = Ask::read(ask.write().as_bytes()).unwrap();
            assert_eq!(format!("{read:?}"), format!("{ask:?}"));
        }
    }

    #[test]
    fn answers_come_out_as_they_went_in() {
        let failed = Answer::from(Error::config("no").with_details("do"));
        assert_eq!(Answer::read(failed.write().as_bytes()), Ok(failed));
        let done = Answer::read(Answer::Done.write().as_bytes()).unwrap();
        assert_eq!(done.into_result(), Ok(CniResult::default()));
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for (line, problem) in [
            ("", "EOF"),
            ("{}", "version 0"),
            (r#"{"version": 2, "verb": "fly"}"#, "version 2"),
            (r#"{"version": 1, "verb": "fly"}"#, "\"fly\" is no verb"),
            (r#"{"version": 1, "verb": "del"}"#, "something is missing"),
            (r#"{"version": 1, "verb": "status"}"#, "no network"),
            (r#"{"version": 1, "network": "../x"}"#, "network"),
            (r#"{"version": 1, "who": {"container": "c"}}"#, "ifname"),
        ] {
            let error = Ask::read(line.as_bytes()).unwrap_err();
            assert!(error.contains(problem), "{line}: {error}");
        }
    }
}
