//! One change of shared firewall rules at a time.
//!
//! What cannot be done in one transaction of the kernel, such as looking at rules with one program and changing them
//! with another, is done by one process of ours at a time. Others who change the same tables don't know of the lock.

use crate::host::{HostError, Sysctl};

/// Waits until no other process of ours has the lock, in the calling thread's network namespace, and holds it until the
/// returned value is dropped. Not to be taken twice by one process.
///
/// It is a lock on a file that every namespace has and nobody else locks; whose setting that is does not matter.
///
/// # Errors
/// What the kernel says, as where /proc is not mounted.
pub fn take() -> Result<impl Drop, HostError> {
    Sysctl::ipv4_forwarding().lock()
}

/// The same beside others who share it: for those who only add what is their own.
///
/// # Errors
/// As [`take`].
pub fn share() -> Result<impl Drop, HostError> {
    Sysctl::ipv4_forwarding().lock_shared()
}
