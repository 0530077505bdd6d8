//! Network sysctls: files under `/proc/sys/net`.
//!
//! The kernel shows each thread the settings of the namespace that it is in (net/sysctl_net.c), so
//! to reach those of a container, call this inside [`NetNs::enter`](super::netns::NetNs::enter). A
//! name is kept as a list of segments, never as a dotted string: an interface may be called
//! `eth0.10`.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use super::error::HostError;
use super::procfs::{self, Procfs};

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
    /// interfaces with `accept_ra=1` no longer accept router advertisements.
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
        Path::new("/proc").join(self.path_in_procfs())
    }

    /// The file, seen from the root of procfs.
    fn path_in_procfs(&self) -> PathBuf {
        let mut path = PathBuf::from("sys/net");
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
    /// [`HostError::Sysctl`]; [`HostError::not_found`] when the kernel has no such setting.
    pub fn read(&self) -> Result<String, HostError> {
        self.read_in(&Procfs::SHARED)
    }

    /// As [`Sysctl::read`], by a mount of one's own.
    ///
    /// # Errors
    /// As [`Sysctl::read`].
    pub fn read_in(&self, procfs: &Procfs) -> Result<String, HostError> {
        self.check()?;
        let mut value = procfs
            .open(&self.path_in_procfs(), OFlag::O_RDONLY)
            .and_then(procfs::read)
            .map_err(self.failed("read"))?;
        value.truncate(value.trim_end().len());
        Ok(value)
    }

    /// Writes the value, whatever it was.
    ///
    /// # Errors
    /// [`HostError::Sysctl`], whose remedy tells a read-only /proc/sys from a missing setting.
    pub fn write(&self, value: &str) -> Result<(), HostError> {
        self.write_in(&Procfs::SHARED, value)
    }

    /// As [`Sysctl::write`], by a mount of one's own.
    ///
    /// # Errors
    /// As [`Sysctl::write`].
    pub fn write_in(&self, procfs: &Procfs, value: &str) -> Result<(), HostError> {
        self.check()?;
        procfs
            .open(&self.path_in_procfs(), OFlag::O_WRONLY)
            .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
            .map_err(self.failed("write"))
    }

    /// Makes sure of the value: writes only when it is another one. Returns whether it wrote.
    ///
    /// Some settings have effects when written, even with the value they had, and a read-only
    /// /proc/sys is no obstacle where the value is right.
    ///
    /// # Errors
    /// As [`Sysctl::read`] and [`Sysctl::write`].
    pub fn ensure(&self, value: &str) -> Result<bool, HostError> {
        self.ensure_in(&Procfs::SHARED, value)
    }

    /// As [`Sysctl::ensure`], by a mount of one's own.
    ///
    /// # Errors
    /// As [`Sysctl::ensure`].
    pub fn ensure_in(&self, procfs: &Procfs, value: &str) -> Result<bool, HostError> {
        if self.read_in(procfs)? == value {
            return Ok(false);
        }
        self.write_in(procfs, value)?;
        Ok(true)
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
