//! A log of the calls of plugins: one line of JSON each, where a list's `logFile` or TRESTLE_LOG says.
//!
//! It is for people who look for a call that failed, or that took long. Nothing depends on it: a log that can't be written is
//! a warning on stderr, and where nobody asks for one it costs no system call.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use cni_conf::diagnostics::warn;
use cni_conf::dispatch::Served;
use cni_conf::json;
use cni_conf::request::{Attachment, Call};
use nix::fcntl::OFlag;
use serde::Deserialize;
use serde_json::{Value, json};

/// From this size on, in bytes, a file is put aside as `FILE.1` and a new one is begun.
const SIZE_MAX: u64 = 4 << 20;

/// How much of an error is kept, in characters.
const ERROR_MAX: usize = 4000;

/// How much of the end of a file is read to find the last failure, in bytes.
const TAIL: u64 = 256 << 10;

/// The variable that names a file.
const VARIABLE: &str = "TRESTLE_LOG";

/// What W3C Trace Context calls the trace of a request. libcni hands on what its caller gave.
const TRACEPARENT: &str = "TRACEPARENT";

/// The keys of a configuration.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    log_file: String,
    log_level: String,
}

/// Which calls are written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    /// `"error"`: those that fail.
    Error,
    /// `"info"`, and whatever else stands there: all.
    Info,
}

/// The file that a configuration names; none where it names none. For who reads it, and for the check of lists.
pub fn file_of(conf: &Value) -> Option<PathBuf> {
    settings(conf).map(|(file, _)| file)
}

fn settings(conf: &Value) -> Option<(PathBuf, Level)> {
    let wire: Wire = json::from_value(conf).unwrap_or_default();
    let level = match wire.log_level.as_str() {
        "error" => Level::Error,
        _ => Level::Info,
    };
    let variable = || std::env::var_os(VARIABLE).map(PathBuf::from);
    let named = Some(PathBuf::from(wire.log_file)).filter(|file| file.is_absolute());
    let file = named.or_else(variable).filter(|file| file.is_absolute())?;
    Some((file, level))
}

/// Writes a call down, if anybody wants it written down.
pub fn call(served: &Served<'_>, since: Instant) {
    let conf = served.received.map(|(request, _)| &request.conf);
    let Some((file, level)) = settings(conf.unwrap_or(&Value::Null)) else {
        return;
    };
    if level == Level::Error && served.error.is_none() {
        return;
    }
    let line = format!("{}\n", entry(served, since.elapsed()));
    if let Err(error) = append(&file, line.as_bytes()) {
        warn(format_args!("write the log {}: {error}", file.display()));
    }
}

fn entry(served: &Served<'_>, took: Duration) -> Value {
    let attachment = served.received.and_then(|(_, call)| attachment(call));
    let variable = |name: &str| std::env::var(name).ok();
    let container = attachment.map(|it| it.container.to_string());
    let error = served.error.map(|error| {
        let text = error.to_string();
        text.chars().take(ERROR_MAX).collect::<String>()
    });
    let mut entry = json!({
        "time": time(SystemTime::now()),
        "plugin": served.plugin,
        "verb": served.verb,
        "network": served.received.map(|(request, _)| request.network.as_str()),
        "container": container.or_else(|| variable("CNI_CONTAINERID")),
        "ifname": attachment.map(|it| it.ifname.as_str()),
        "ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "outcome": if error.is_some() { "error" } else { "ok" },
        "code": served.error.map(|error| error.code.number()),
        "error": error,
        "traceId": variable(TRACEPARENT).as_deref().and_then(trace_id),
    });
    if let Some(entry) = entry.as_object_mut() {
        entry.retain(|_, value| !value.is_null());
    }
    entry
}

fn attachment(call: &Call) -> Option<&Attachment> {
    match call {
        Call::Add(attachment) | Call::Del(attachment) | Call::Check(attachment) => Some(attachment),
        Call::Gc(_) | Call::Status => None,
    }
}

/// The second field of `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
fn trace_id(traceparent: &str) -> Option<String> {
    let id = traceparent.split('-').nth(1)?;
    let sound = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    sound.then(|| id.to_owned())
}

/// `2026-11-30T21:04:05.678Z`, as RFC 3339 says.
fn time(now: SystemTime) -> String {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    // Days of the Gregorian calendar in eras of 400 years that begin in March, so that the leap day is a year's last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let millis = since.subsec_millis();
    format!("{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}.{millis:03}Z")
}

/// Adds a line in one piece, so that those of several processes don't get mixed.
fn append(path: &Path, line: &[u8]) -> io::Result<()> {
    let mut file = open(path)?;
    if file.metadata()?.len() >= SIZE_MAX {
        let mut aside = path.as_os_str().to_owned();
        aside.push(".1");
        // Of two processes that do so at once the second puts an almost empty file aside: a few lines are lost.
        fs::rename(path, aside)?;
        file = open(path)?;
    }
    file.write_all(line)
}

fn open(path: &Path) -> io::Result<File> {
    // Whatever the name leads to, nobody waits for it.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(0o600);
    let file = options.custom_flags(flags.bits()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no file")),
    }
}

/// What a log tells of failures.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// How many there are in what was read of it.
    pub count: u64,
    /// The last one's line.
    pub last: Option<Value>,
}

/// Reads the end of a log.
///
/// # Errors
/// What the file system says.
pub fn failures(path: &Path) -> io::Result<Failures> {
    let mut options = OpenOptions::new();
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let mut file = options.read(true).custom_flags(flags.bits()).open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    file.seek(SeekFrom::Start(found.len().saturating_sub(TAIL)))?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text)?;
    let mut failures = Failures::default();
    for line in text.split(|byte| *byte == b'\n') {
        let Ok(entry) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        if entry["outcome"] == "error" {
            failures.count += 1;
            failures.last = Some(entry);
        }
    }
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_709_164_799, "2024-02-28T23:59:59.000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000Z"),
            (1_796_072_645, "2026-11-30T21:04:05.000Z"),
        ] {
            assert_eq!(time(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn a_trace_is_32_digits() {
        let id = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            trace_id(&format!("00-{id}-00f067aa0ba902b7-01")).as_deref(),
            Some(id)
        );
        for other in [
            "",
            "00-",
            "00-xyz-1-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473g-1-01",
        ] {
            assert_eq!(trace_id(other), None, "{other}");
        }
    }

    #[test]
    fn a_file_that_is_full_is_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        append(&path, b"one\n").unwrap();
        append(&path, b"two\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one\ntwo\n");
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(SIZE_MAX)
            .unwrap();
        append(&path, b"three\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three\n");
        assert_eq!(
            fs::metadata(dir.path().join("log.1")).unwrap().len(),
            SIZE_MAX
        );
    }

    #[test]
    fn the_last_failure_is_found_behind_garbage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let lines = "{\"outcome\": \"error\", \"n\": 1}\ngarbage\n{\"outcome\": \"error\", \"n\": 2}\n{\"outcome\": \"ok\"}\n{\"cut";
        fs::write(&path, lines).unwrap();
        let failures = failures(&path).unwrap();
        assert_eq!(
            (failures.count, &failures.last.unwrap()["n"]),
            (2, &json!(2))
        );
    }
}
