//! Kernel modules that the kernel does not load of its own accord, br_netfilter first of all.

use std::fs;
use std::io;
use std::process::{Command, Stdio};

use super::error::HostError;

/// Where modprobe is looked for when the kernel does not say.
const SEARCH_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";

/// Loads a module, by the program that the kernel itself would call (`/proc/sys/kernel/modprobe`).
///
/// Whether a module is there is best asked of what it brings, such as a sysctl: what is built into
/// the kernel is not a module. Loading what is loaded already succeeds.
///
/// # Errors
/// [`HostError::Module`] with what the program said. Containers mostly can't load modules.
pub fn load(name: &'static str) -> Result<(), HostError> {
    let failed = |reason: String| HostError::Module { name, reason };
    let program = fs::read_to_string("/proc/sys/kernel/modprobe").unwrap_or_default();
    let program = match program.trim() {
        "" => "modprobe",
        path => path,
    };
    let output = Command::new(program)
        .args(["-q", "--", name])
        .env_clear()
        .env("PATH", SEARCH_PATH)
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let text = text.trim();
            Err(failed(match text {
                "" => format!("{program} found no such module for the running kernel"),
                text => text.to_owned(),
            }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(failed(format!("there is no program {program}")))
        }
        Err(error) => Err(failed(format!("run {program}: {error}"))),
    }
}
