//! Kernel modules that the kernel does not load of its own accord, br_netfilter first of all.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use super::error::HostError;

const MODPROBE: &str = "modprobe";

/// Where modprobe is looked for when the kernel does not say.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Loads a module, by the program that the kernel itself would call (`/proc/sys/kernel/modprobe`).
///
/// Whether a module is there is best asked of what it brings, such as a sysctl: what is built into
/// the kernel is not a module. Loading what is loaded already succeeds.
///
/// # Errors
/// [`HostError::ProgramMissing`] without modprobe; [`HostError::ProgramFailed`] with what it said.
/// Containers mostly can't load modules.
pub fn load(name: &str) -> Result<(), HostError> {
    let operation = || format!("load kernel module {name}");
    let program = fs::read_to_string("/proc/sys/kernel/modprobe").unwrap_or_default();
    let program = match program.trim() {
        "" => MODPROBE,
        path => path,
    };
    let output = Command::new(program)
        .args(["--", name])
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(HostError::ProgramFailed {
            operation: operation(),
            program: MODPROBE,
            complaint: complaint(&output.stderr),
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(HostError::ProgramMissing {
            operation: operation(),
            program: MODPROBE,
            remedy: "Install the package kmod.",
        }),
        Err(source) => Err(HostError::System {
            operation: operation(),
            source,
        }),
    }
}

/// What the program said, or what its silence means.
fn complaint(stderr: &[u8]) -> String {
    match String::from_utf8_lossy(stderr).trim() {
        "" => "the running kernel has no such module".to_owned(),
        text => text.to_owned(),
    }
}
