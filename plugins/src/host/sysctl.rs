//! Network sysctls: files under `/proc/sys/net`.
//!
//! The kernel shows each thread the settings of the namespace that it is in (net/sysctl_net.c), so
//! to reach those of a container, call this inside [`NetNs::enter`](super::netns::NetNs::enter). A
//! name is kept as a list of segments, never as a dotted string: an interface may be called
//! `eth0.10`.

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use nix::fcntl::{Flock, FlockArg, OFlag, open, openat};
use nix::sys::stat::Mode;

use super::error::HostError;

/// One network sysctl, by name. Making one does not touch the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    segments: Vec<String>,
}

impl Sysctl {
    /// `net.ipv4.ip_forward`: whether IPv4 packets are forwarded at all. Writing it resets
    /// `net.ipv4.conf.*.forwarding`.
    pub fn ipv4_forwarding() -> Self {
        Self::net(["ipv4", "ip_forward"])
    }

    /// `net.ipv6.conf.all.forwarding`. Writing it sets the same for every interface, after which
    /// interfaces with `accept_ra=1` no longer heed router advertisements.
    pub fn ipv6_forwarding() -> Self {
        Self::ipv6_conf("all", "forwarding")
    }

    /// `net.ipv4.conf.LINK.KEY`; `link` is an interface's name, `all` or `default`.
    pub fn ipv4_conf(link: &str, key: &str) -> Self {
        Self::net(["ipv4", "conf", link, key])
    }

    /// `net.ipv6.conf.LINK.KEY`; `link` is an interface's name, `all` or `default`.
    pub fn ipv6_conf(link: &str, key: &str) -> Self {
        Self::net(["ipv6", "conf", link, key])
    }

    /// `net.bridge.KEY`. There only while the module br_netfilter is loaded.
    pub fn bridge(key: &str) -> Self {
        Self::net(["bridge", key])
    }

    /// The sysctl whose name is `net` and these segments.
    pub fn net<'a>(segments: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            segments: segments.into_iter().map(str::to_owned).collect(),
        }
    }

    /// A name as people write it: `net.ipv4.conf.eth0.arp_notify` or
    /// `net/ipv4/conf/eth0.10/arp_notify`.
    ///
    /// As in sysctl(8), whichever of `.` and `/` comes first separates the segments, and where that
    /// is the dot, a `/` stands for a dot inside a segment.
    ///
    /// # Errors
    /// [`HostError::Invalid`] when the name does not begin with `net` or has an empty segment, `.`
    /// or `..`.
    pub fn parse(name: &str) -> Result<Self, HostError> {
        let invalid = |problem| HostError::Invalid {
            operation: format!("use sysctl {name}"),
            problem,
        };
        let by_dots = name
            .find(['.', '/'])
            .is_some_and(|at| name.as_bytes()[at] == b'.');
        let mut segments: Vec<String> = if by_dots {
            name.split('.')
                .map(|segment| segment.replace('/', "."))
                .collect()
        } else {
            name.split('/').map(str::to_owned).collect()
        };
        if segments.len() < 2 || segments.remove(0) != "net" {
            return Err(invalid(
                "only settings under net belong to a network namespace",
            ));
        }
        let sysctl = Self { segments };
        sysctl.check()?;
        Ok(sysctl)
    }

    /// The file, below /proc/sys.
    fn path(&self) -> PathBuf {
        let mut path = PathBuf::from("/proc/sys/net");
        path.extend(&self.segments);
        path
    }

    /// Refuses segments that would lead to another file than the one that was meant.
    fn check(&self) -> Result<(), HostError> {
        let harmless = |segment: &String| {
            !matches!(segment.as_str(), "" | "." | "..") && !segment.contains(['/', '\0'])
        };
        if !self.segments.is_empty() && self.segments.iter().all(harmless) {
            return Ok(());
        }
        Err(HostError::Invalid {
            operation: format!("use sysctl {self}"),
            problem: "a part of the name is empty, `.` or `..`, or contains a slash",
        })
    }

    fn failed(&self, action: &'static str) -> impl Fn(io::Error) -> HostError {
        move |source| HostError::Sysctl {
            action,
            name: self.to_string(),
            source,
        }
    }

    /// Whether the running kernel has this setting, in the namespace the thread is in.
    pub fn exists(&self) -> bool {
        self.check().is_ok() && self.path().exists()
    }

    /// The value, without the newline that the kernel appends.
    ///
    /// # Errors
    /// [`HostError::Sysctl`]; [`HostError::is_missing`] when the kernel has no such setting.
    pub fn read(&self) -> Result<String, HostError> {
        self.check()?;
        self.read_from(fs::File::open(self.path()))
    }

    fn read_from(&self, file: io::Result<fs::File>) -> Result<String, HostError> {
        let mut value = file
            .and_then(io::read_to_string)
            .map_err(self.failed("read"))?;
        value.truncate(value.trim_end().len());
        Ok(value)
    }

    /// Writes the value, whatever it was.
    ///
    /// # Errors
    /// [`HostError::Sysctl`], whose remedy tells a read-only /proc/sys from a missing setting.
    pub fn write(&self, value: &str) -> Result<(), HostError> {
        self.check()?;
        // Not fs::write, which would ask for the file to be created and truncated.
        self.write_to(fs::File::options().write(true).open(self.path()), value)
    }

    fn write_to(&self, file: io::Result<fs::File>, value: &str) -> Result<(), HostError> {
        file.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(self.failed("write"))
    }

    /// Keeps other processes of this program out that take the same lock, until the guard is dropped. For settings
    /// that are switched by who comes first and who leaves last.
    ///
    /// The lock is on the file under /proc/sys itself, so it belongs to the namespace and goes with the process.
    ///
    /// # Errors
    /// [`HostError::Sysctl`]; [`HostError::is_missing`] when the kernel has no such setting.
    pub fn lock(&self) -> Result<Flock<fs::File>, HostError> {
        self.flock(FlockArg::LockExclusive)
    }

    /// The same lock, held beside others who share it.
    ///
    /// # Errors
    /// As [`Sysctl::lock`].
    pub fn lock_shared(&self) -> Result<Flock<fs::File>, HostError> {
        self.flock(FlockArg::LockShared)
    }

    fn flock(&self, kind: FlockArg) -> Result<Flock<fs::File>, HostError> {
        self.check()?;
        let file = fs::File::open(self.path()).map_err(self.failed("lock"))?;
        Flock::lock(file, kind).map_err(|(_, errno)| self.failed("lock")(errno.into()))
    }

    /// Makes sure of the value: writes only when it is another one. Returns whether it wrote.
    ///
    /// Some settings have effects when written, even with the value they had, and a read-only
    /// /proc/sys is no obstacle where the value is right.
    ///
    /// # Errors
    /// As [`Sysctl::read`] and [`Sysctl::write`].
    pub fn ensure(&self, value: &str) -> Result<bool, HostError> {
        if self.read()? == value {
            return Ok(false);
        }
        self.write(value)?;
        Ok(true)
    }
}

/// The settings of one interface, for those who write several: its directory is looked up once. The kernel takes the
/// longer for that the more namespaces there are in which somebody has looked at such a setting: its cache has an
/// `ipv4` and an `ipv6` for each of them under one path, and goes through all (`proc_sys_compare` in
/// fs/proc/proc_sysctl.c). Beside a thousand containers that is up to a millisecond.
#[derive(Debug)]
pub struct SysctlDir {
    dir: OwnedFd,
    /// What the directory stands for.
    name: Sysctl,
}

impl SysctlDir {
    /// `net.ipv6.conf.LINK`, in the namespace that the thread is in.
    ///
    /// # Errors
    /// [`HostError::Sysctl`]; [`HostError::is_missing`] when there is no such interface, or no IPv6 on it.
    pub fn ipv6_conf(link: &str) -> Result<Self, HostError> {
        let name = Sysctl::net(["ipv6", "conf", link]);
        name.check()?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_PATH | OFlag::O_CLOEXEC;
        let dir = open(&name.path(), flags, Mode::empty())
            .map_err(|errno| name.failed("open")(errno.into()))?;
        Ok(Self { dir, name })
    }

    /// As [`Sysctl::write`].
    ///
    /// # Errors
    /// [`HostError::Sysctl`].
    pub fn write(&self, key: &str, value: &str) -> Result<(), HostError> {
        self.of(key)?
            .write_to(self.open(key, OFlag::O_WRONLY), value)
    }

    /// As [`Sysctl::ensure`].
    ///
    /// # Errors
    /// [`HostError::Sysctl`].
    pub fn ensure(&self, key: &str, value: &str) -> Result<bool, HostError> {
        if self.of(key)?.read_from(self.open(key, OFlag::O_RDONLY))? == value {
            return Ok(false);
        }
        self.write(key, value)?;
        Ok(true)
    }

    fn of(&self, key: &str) -> Result<Sysctl, HostError> {
        let mut sysctl = self.name.clone();
        sysctl.segments.push(key.to_owned());
        sysctl.check()?;
        Ok(sysctl)
    }

    fn open(&self, key: &str, access: OFlag) -> io::Result<fs::File> {
        let file = openat(&self.dir, key, access | OFlag::O_CLOEXEC, Mode::empty())?;
        Ok(file.into())
    }
}

impl fmt::Display for Sysctl {
    /// sysctl(8)'s dotted spelling, in which a dot inside a segment is written `/`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("net")?;
        self.segments
            .iter()
            .try_for_each(|segment| write!(f, ".{}", segment.replace('.', "/")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_sysctl_8_reads_them() {
        let dotted = Sysctl::ipv4_conf("eth0.10", "arp_notify");
        assert_eq!(
            Sysctl::parse("net.ipv4.conf.eth0/10.arp_notify").unwrap(),
            dotted
        );
        assert_eq!(
            Sysctl::parse("net/ipv4/conf/eth0.10/arp_notify").unwrap(),
            dotted
        );
        assert_eq!(dotted.to_string(), "net.ipv4.conf.eth0/10.arp_notify");
        assert_eq!(
            dotted.path(),
            PathBuf::from("/proc/sys/net/ipv4/conf/eth0.10/arp_notify")
        );
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in [
            "kernel.core_pattern",
            "net",
            "",
            "net/../kernel/x",
            "net..ipv4",
            "net.//.x",
        ] {
            assert!(Sysctl::parse(name).is_err(), "{name}");
        }
        for link in ["..", ".", "", "a/b", "a\0b"] {
            let error = Sysctl::ipv6_conf(link, "accept_ra").write("0").unwrap_err();
            assert!(
                matches!(error, HostError::Invalid { .. }),
                "{link:?}: {error}"
            );
        }
    }
}
