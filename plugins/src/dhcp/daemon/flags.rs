//! The daemon's arguments, which are those of the Go plugins' daemon: Go's flags, with one hyphen or two, and durations like `1m2s`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::super::conf::SOCKET;
use super::super::machine::{Millis, Patience};
use super::super::store::DIR;

/// What `dhcp daemon -h` says.
pub(super) const USAGE: &str = "\
Usage: dhcp daemon [FLAGS]
Holds leases of containers that have addresses by the IPAM plugin dhcp.

  -socketpath PATH        where to listen (default /run/cni/dhcp.sock)
  -pidfile PATH           where to write the process ID
  -hostprefix PATH        what to put in front of the paths of network namespaces
  -broadcast              ask servers to broadcast their answers
  -timeout DURATION       wait so long for the answer to a message (default 10s)
  -resendmax DURATION     wait at most so long between two messages (default 1m2s)
  -resendtimeout DURATION
                          give up after so long without a lease (default 3m28s)
  -statedir PATH          where leases are kept (default /var/lib/cni/dhcp)
";

/// The arguments, with their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) socket: PathBuf,
    pub(super) pidfile: Option<PathBuf>,
    pub(super) hostprefix: OsString,
    pub(super) broadcast: bool,
    pub(super) patience: Patience,
    pub(super) state: PathBuf,
}

impl Default for Flags {
    fn default() -> Self {
        Self {
            socket: SOCKET.into(),
            pidfile: None,
            hostprefix: OsString::new(),
            broadcast: false,
            patience: Patience {
                answer: 10_000,
                between: 62_000,
                whole: 208_000,
            },
            state: DIR.into(),
        }
    }
}

/// Why there are no flags: help was asked for (none), or what is wrong.
pub(super) type Unread = Option<String>;

impl Flags {
    /// Reads what follows `daemon`.
    pub(super) fn read(arguments: impl Iterator<Item = OsString>) -> Result<Self, Unread> {
        let mut flags = Self::default();
        let mut arguments = arguments.map(|argument| {
            let text = argument.into_string();
            text.map_err(|argument| Some(format!("{argument:?} is no text")))
        });
        while let Some(argument) = arguments.next() {
            let argument = argument?;
            let dashed = argument
                .strip_prefix("--")
                .or_else(|| argument.strip_prefix('-'));
            let Some(flag) = dashed.filter(|flag| !flag.is_empty()) else {
                return Err(Some(format!("{argument:?} is no flag")));
            };
            let (name, value) = match flag.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (flag, None),
            };
            match name {
                "h" | "help" => return Err(None),
                "broadcast" => flags.broadcast = truth(value.as_deref().unwrap_or("true"))?,
                _ => {
                    let value = match value {
                        Some(value) => Some(value),
                        None => arguments.next().transpose()?,
                    };
                    flags.set(name, value)?;
                }
            }
        }
        Ok(flags)
    }

    fn set(&mut self, name: &str, value: Option<String>) -> Result<(), Unread> {
        let place = match name {
            "socketpath" => &mut self.socket,
            "statedir" => &mut self.state,
            "pidfile" => self.pidfile.insert(PathBuf::new()),
            "hostprefix" => {
                self.hostprefix = needed(name, value)?.into();
                return Ok(());
            }
            "timeout" => return duration(name, value, &mut self.patience.answer),
            "resendmax" => return duration(name, value, &mut self.patience.between),
            "resendtimeout" => return duration(name, value, &mut self.patience.whole),
            _ => return Err(Some(format!("there is no flag -{name}"))),
        };
        *place = needed(name, value)?.into();
        match place.is_absolute() {
            true => Ok(()),
            false => Err(Some(format!(
                "-{name} is no absolute path: {}",
                place.display()
            ))),
        }
    }
}

fn needed(name: &str, value: Option<String>) -> Result<String, Unread> {
    value.ok_or_else(|| Some(format!("-{name} needs a value")))
}

fn truth(text: &str) -> Result<bool, Unread> {
    match text {
        "true" | "1" | "t" | "T" | "TRUE" | "True" => Ok(true),
        "false" | "0" | "f" | "F" | "FALSE" | "False" => Ok(false),
        _ => Err(Some(format!("-broadcast is true or false, not {text:?}"))),
    }
}

fn duration(name: &str, value: Option<String>, place: &mut Millis) -> Result<(), Unread> {
    let text = needed(name, value)?;
    match millis(&text) {
        Some(found @ 1..) => *place = found,
        _ => {
            return Err(Some(format!(
                "-{name} is a duration like 10s or 1m2s, not {text:?}"
            )));
        }
    }
    Ok(())
}

/// A duration as Go writes it: numbers, which may have a fraction, each with its unit.
fn millis(text: &str) -> Option<Millis> {
    let mut rest = text;
    let mut sum = 0.0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        let after = &rest[end..];
        let units = [
            ("ns", 1e-6),
            ("us", 1e-3),
            ("µs", 1e-3),
            ("ms", 1.0),
            ("s", 1e3),
            ("m", 60e3),
            ("h", 3600e3),
        ];
        let (unit, factor) = units.iter().find(|(unit, _)| after.starts_with(unit))?;
        sum += number * factor;
        rest = &after[unit.len()..];
    }
    // Out of range it is the nearest that there is.
    (!text.is_empty() && sum < 1e12).then_some(sum as Millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Result<Flags, Unread> {
        Flags::read(words.iter().map(OsString::from))
    }

    #[test]
    fn flags_are_written_as_in_go() {
        assert_eq!(read(&[]), Ok(Flags::default()));
        let flags = read(&[
            "-socketpath",
            "/a",
            "--pidfile=/b",
            "-hostprefix",
            "/host",
            "-broadcast",
            "-timeout=1m2.5s",
            "-resendmax",
            "500ms",
            "--resendtimeout",
            "1h",
        ])
        .unwrap();
        assert_eq!((flags.socket.to_str(), flags.broadcast), (Some("/a"), true));
        assert_eq!(flags.pidfile, Some("/b".into()));
        assert_eq!(flags.hostprefix, "/host");
        let Patience {
            answer,
            between,
            whole,
        } = flags.patience;
        assert_eq!((answer, between, whole), (62_500, 500, 3_600_000));
        assert!(!read(&["-broadcast=false"]).unwrap().broadcast);
        assert_eq!(read(&["-help"]), Err(None));
    }

    #[test]
    fn what_is_no_flag_is_told() {
        for (words, problem) in [
            (&["x"][..], "is no flag"),
            (&["-"], "is no flag"),
            (&["-port", "7"], "no flag -port"),
            (&["-timeout"], "needs a value"),
            (&["-timeout", "10"], "a duration"),
            (&["-timeout", "-1s"], "a duration"),
            (&["-timeout", "0s"], "a duration"),
            (&["-timeout", "1e9h"], "a duration"),
            (&["-timeout", ""], "a duration"),
            (&["-socketpath", "a"], "no absolute path"),
            (&["-broadcast=maybe"], "true or false"),
        ] {
            let error = read(words).unwrap_err().unwrap();
            assert!(error.contains(problem), "{words:?}: {error}");
        }
    }
}
