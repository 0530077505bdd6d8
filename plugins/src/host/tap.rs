//! TAP devices that stay when nobody has them open.
//!
//! The kernel makes them by calls to /dev/net/tun alone (`tun_validate` in drivers/net/tun.c refuses route netlink), in the
//! network namespace that the calling thread is in. See Documentation/networking/tuntap.rst.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;

use super::child::{self, End};
use super::error::HostError;

/// What creates them.
const DEVICE: &str = "/dev/net/tun";

/// Where a thread says in which SELinux context the program that it executes next runs; see selinux(8).
const EXEC_CONTEXT: &str = "/proc/thread-self/attr/exec";

/// The base name of `argv[0]` by which the program creates one device and does nothing else.
pub const HELPER: &str = "trestle-make-tap";

/// How long the program may take to create one.
const LIMIT: Duration = Duration::from_secs(30);

/// A device to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTap {
    /// Its name.
    pub name: String,
    /// Several may have it open at once, each with a queue of its own.
    pub multi_queue: bool,
    /// The user who may open it; nobody but root if none.
    pub owner: Option<u32>,
    /// The group that may.
    pub group: Option<u32>,
}

/// Fails where no device can be created.
///
/// # Errors
/// [`HostError::Unsupported`].
pub fn require() -> Result<(), HostError> {
    open("make TAP devices".to_owned()).map(drop)
}

pub(super) fn open(operation: String) -> Result<File, HostError> {
    let mut options = File::options();
    options
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(|source| match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOENT | Errno::ENODEV | Errno::ENXIO) => HostError::Unsupported {
                operation,
                remedy: "Load the kernel's module tun (CONFIG_TUN): `modprobe tun`; /dev/net/tun is missing.",
            },
            _ => HostError::System {
                operation: format!("{operation}: open {DEVICE}"),
                source,
            },
        })
}

impl NewTap {
    /// Creates the device in the namespace that the calling thread is in, all or nothing.
    ///
    /// # Errors
    /// [`HostError::Unsupported`] where there are none; [`HostError::System`] with `EBUSY` when the name is taken.
    pub fn create(&self) -> Result<(), HostError> {
        let operation = || format!("create TAP device {}", self.name);
        let file = open(operation())?;
        let failed = |errno: Errno| HostError::System {
            operation: operation(),
            source: errno.into(),
        };
        // One that is not made to stay goes when the file is closed.
        set_interface(&file, self).map_err(failed)?;
        let settings = [
            (libc::TUNSETOWNER, self.owner),
            (libc::TUNSETGROUP, self.group),
            (libc::TUNSETPERSIST, Some(1)),
        ];
        for (request, value) in settings {
            if let Some(value) = value {
                set(&file, request, value).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Creates the device by a process that runs in this SELinux context, so that the device has it.
    ///
    /// # Errors
    /// As [`NewTap::create`], told by the other process; [`HostError::System`] where the context can't be taken.
    pub fn create_in_context(&self, context: &str) -> Result<(), HostError> {
        let operation = format!("create TAP device {} in context {context}", self.name);
        let failed = |source| HostError::System {
            operation: operation.clone(),
            source,
        };
        fs::write(EXEC_CONTEXT, context).map_err(failed)?;
        let mut helper = Command::new("/proc/self/exe");
        helper.arg0(HELPER).args(self.arguments());
        let end = child::run(helper.stderr(Stdio::piped()), &[], LIMIT);
        // What else this process executes is not meant. It has just been written to, so it can be.
        let _ = fs::write(EXEC_CONTEXT, "");
        let output = match end.map_err(failed)? {
            End::Exited { output, .. } if output.status.success() => return Ok(()),
            End::Exited { output, .. } => output,
            End::Killed => {
                return Err(HostError::ProgramHung {
                    operation,
                    program: HELPER,
                    waited: LIMIT,
                });
            }
        };
        Err(HostError::ProgramFailed {
            operation,
            program: HELPER,
            complaint: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }

    fn arguments(&self) -> Vec<String> {
        let number = |value: Option<u32>| value.map_or_else(String::new, |value| value.to_string());
        vec![
            self.name.clone(),
            self.multi_queue.to_string(),
            number(self.owner),
            number(self.group),
        ]
    }

    /// What [`HELPER`] was called with; none if it is not that.
    pub fn from_arguments(arguments: &[String]) -> Option<Self> {
        let [name, multi_queue, owner, group] = arguments else {
            return None;
        };
        let number = |text: &str| match text {
            "" => Some(None),
            text => text.parse().ok().map(Some),
        };
        Some(Self {
            name: name.clone(),
            multi_queue: multi_queue.parse().ok()?,
            owner: number(owner)?,
            group: number(group)?,
        })
    }
}

/// TUNSETIFF: makes the device, or fails with `EBUSY` where there is one. Returns its name, in which a number stands for `%d`.
#[expect(unsafe_code, reason = "ioctl(2) has no safe wrapper")]
pub(super) fn set_interface(file: &File, new: &NewTap) -> Result<String, Errno> {
    // SAFETY: an all-zero `ifreq` is a valid value of that plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if new.name.is_empty() || new.name.len() >= request.ifr_name.len() {
        return Err(Errno::EINVAL);
    }
    for (to, from) in request.ifr_name.iter_mut().zip(new.name.bytes()) {
        *to = from as libc::c_char;
    }
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL;
    if new.multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    // The flags are the low 16 bits, of which the last one is the sign here.
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: TUNSETIFF reads and writes the structure, which lives for the duration of the call; its name ends with a
    // zero, as it is shorter than the field. The descriptor is open.
    let answer = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) };
    Errno::result(answer)?;
    let name = request.ifr_name.iter().take_while(|byte| **byte != 0);
    let name: Vec<u8> = name.map(|byte| *byte as u8).collect();
    Ok(String::from_utf8_lossy(&name).into_owned())
}

#[expect(unsafe_code, reason = "ioctl(2) has no safe wrapper")]
fn set(file: &File, request: impl Into<libc::Ioctl>, value: u32) -> Result<(), Errno> {
    // SAFETY: TUNSETOWNER, TUNSETGROUP and TUNSETPERSIST take a number and touch no memory of this process; the descriptor is
    // open for the duration of the call.
    let answer =
        unsafe { libc::ioctl(file.as_raw_fd(), request.into(), libc::c_ulong::from(value)) };
    Errno::result(answer).map(drop)
}

/// Whether the name was taken.
pub fn is_taken(error: &HostError) -> bool {
    error.errno() == Some(Errno::EBUSY)
}

/// Creates the device that [`HELPER`] was asked for.
///
/// # Errors
/// As [`NewTap::create`]; arguments that are none.
pub fn help(arguments: &[String]) -> Result<(), HostError> {
    let invalid = || HostError::System {
        operation: format!("{HELPER} {}", arguments.join(" ")),
        source: io::Error::from(Errno::EINVAL),
    };
    NewTap::from_arguments(arguments)
        .ok_or_else(invalid)?
        .create()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_is_told_everything() {
        for (owner, group) in [(None, None), (Some(0), Some(107)), (Some(u32::MAX), None)] {
            let new = NewTap {
                name: "eth0".into(),
                multi_queue: owner.is_some(),
                owner,
                group,
            };
            assert_eq!(NewTap::from_arguments(&new.arguments()), Some(new));
        }
        let texts = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| (*text).to_owned())
                .collect::<Vec<_>>()
        };
        for wrong in [&["a"][..], &["a", "yes", "", ""], &["a", "true", "-1", ""]] {
            assert_eq!(NewTap::from_arguments(&texts(wrong)), None, "{wrong:?}");
        }
    }
}
