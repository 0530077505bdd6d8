//! Counting child processes: the programs that the plugin may start are found in a directory of ours first, and write
//! down that they were.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::{env, fs};

/// Says where the programs are, in the process that runs the tests.
const DIR: &str = "FIREWALL_TEST_PROGRAMS";

const NAMES: [&str; 9] = [
    "nft",
    "iptables",
    "ip6tables",
    "iptables-restore",
    "ip6tables-restore",
    "iptables-legacy",
    "ip6tables-legacy",
    "iptables-legacy-restore",
    "ip6tables-legacy-restore",
];

/// Runs this program again with such a `PATH`; none in the one that is to run the tests.
pub(crate) fn run_again() -> Option<ExitCode> {
    if env::var_os(DIR).is_some() {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    for name in NAMES {
        let real = ["/usr/sbin", "/sbin", "/usr/bin"].map(|at| Path::new(at).join(name));
        let Some(real) = real.into_iter().find(|file| file.exists()) else {
            continue;
        };
        let (file, log) = (dir.path().join(name), dir.path().join("started"));
        let script = format!(
            "#!/bin/sh\necho {name} >> {}\nexec {} \"$@\"\n",
            log.display(),
            real.display()
        );
        fs::write(&file, script).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = env::var("PATH").unwrap_or_default();
    let status = Command::new(env::current_exe().unwrap())
        .args(env::args_os().skip(1))
        .env("PATH", format!("{}:{path}", dir.path().display()))
        .env(DIR, dir.path())
        .status()
        .unwrap();
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Some(ExitCode::from(code.unwrap_or(1)))
}

/// Where the programs are found first.
pub(crate) fn dir() -> PathBuf {
    env::var_os(DIR).unwrap().into()
}

/// The programs that `work` starts. A node's own `sh` finds them there too.
pub(crate) fn started(work: impl FnOnce()) -> Vec<String> {
    let log = dir().join("started");
    let _ = fs::remove_file(&log);
    work();
    let lines = fs::read_to_string(log).unwrap_or_default();
    lines.lines().map(str::to_owned).collect()
}
