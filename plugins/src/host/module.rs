//! Kernel modules that the kernel does not load of its own accord, br_netfilter first of all.

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
