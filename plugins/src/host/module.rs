//! Kernel modules that the kernel does not load of its own accord, br_netfilter first of all.

use std::fs;
use std::path::Path;

use super::error::HostError;
use super::program::Program;

const MODPROBE: Program = Program {
    name: "modprobe",
    remedy: "Install the package kmod, or load the module on the host.",
};

/// Loads a module with modprobe(8).
///
/// Whether a module is there is best asked of what it brings, such as a sysctl: what is built into
/// the kernel is not a module. Loading what is loaded already succeeds.
///
/// # Errors
/// [`HostError::ProgramMissing`] without modprobe; [`HostError::ProgramFailed`] with what it said.
/// Containers mostly can't load modules.
pub fn load(name: &str) -> Result<(), HostError> {
    MODPROBE.run(&format!("load kernel module {name}"), ["--", name], "")?;
    Ok(())
}

/// Whether there is a program that loads modules.
///
/// # Errors
/// [`HostError::ProgramMissing`].
pub fn can_load(purpose: &str) -> Result<(), HostError> {
    MODPROBE.find(purpose).map(drop)
}

/// Whether a part of the kernel is there that it would load by itself when asked, found out without having it loaded. Doubt
/// counts as "it is not".
pub fn is_present(name: &str) -> bool {
    // Without it the kernel loads no modules at all: what it has it has, and to ask for the rest does no harm.
    let Ok(loaded) = fs::read_to_string("/proc/modules") else {
        return true;
    };
    let release = nix::sys::utsname::uname()
        .map(|uname| uname.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let built_in = Path::new("/lib/modules")
        .join(release)
        .join("modules.builtin");
    let file = format!("/{name}.ko");
    loaded
        .lines()
        .any(|line| line.split(' ').next() == Some(name))
        || Path::new("/sys/module").join(name).exists()
        || fs::read_to_string(built_in)
            .is_ok_and(|list| list.lines().any(|line| line.ends_with(&file)))
}
