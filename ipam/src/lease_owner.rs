//! Whose an address is, as the address's file says it: the format is that of the Go plugin.

use std::fmt;

use cni_conf::request::AttachmentId;

/// Longest file name in bytes.
const FILE_NAME_MAX: usize = 255;

/// Who holds an address, as the address's file says.
///
/// The texts are as they were found: state may have been written by anybody.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseOwner {
    /// Container ID.
    pub container: String,
    /// Interface in the container. Absent in files of old releases of the Go plugin: they belong to
    /// whichever interface of that container asks.
    pub ifname: Option<String>,
}

impl LeaseOwner {
    /// Reads the content of an address file: the container ID and, on a second line, the interface.
    pub fn parse(content: &[u8]) -> Option<Self> {
        let mut lines = std::str::from_utf8(content).ok()?.trim().lines();
        let container = lines.next()?.trim().to_owned();
        let ifname = lines.next().map(|ifname| ifname.trim().to_owned());
        let sound = !container.is_empty() && lines.next().is_none() && !content.contains(&0);
        sound.then_some(Self { container, ifname })
    }

    /// The content of an address file of this owner.
    pub(crate) fn content(&self) -> String {
        match &self.ifname {
            Some(ifname) => format!("{}\r\n{ifname}", self.container),
            None => self.container.clone(),
        }
    }

    /// The same container, without saying which interface.
    pub(crate) fn any_interface(&self) -> Self {
        Self {
            container: self.container.clone(),
            ifname: None,
        }
    }

    /// True if what an address file says may be said of that owner: it is the same, or the same container's without an
    /// interface.
    pub(crate) fn is_same_as(&self, owner: &Self) -> bool {
        self.container == owner.container && (self.ifname.is_none() || self.ifname == owner.ifname)
    }

    /// True if this is what an attachment's file says, or may say if an old release wrote it.
    pub fn matches(&self, id: &AttachmentId) -> bool {
        self.container == id.container.as_str()
            && self
                .ifname
                .as_deref()
                .is_none_or(|ifname| ifname == id.ifname.as_str())
    }

    /// Name of this owner's record: `CONTAINER:IFNAME`, since neither contains a colon. What would not make
    /// a sound file name is hashed; such a name begins with a dot, which no container ID does.
    pub(crate) fn file_name(&self) -> String {
        let name = format!(
            "{}:{}",
            self.container,
            self.ifname.as_deref().unwrap_or_default()
        );
        let sound = name.len() <= FILE_NAME_MAX
            && !name.starts_with('.')
            && !name.contains(['/', '\0'])
            && name.matches(':').count() == 1;
        if sound {
            name
        } else {
            format!(".{:032x}", fnv1a(self.content().as_bytes()))
        }
    }

    /// True if a name in our own directory is that of a record.
    pub(crate) fn is_record_name(name: &str) -> bool {
        name.contains(':') || name.starts_with('.')
    }
}

impl From<&AttachmentId> for LeaseOwner {
    fn from(id: &AttachmentId) -> Self {
        Self {
            container: id.container.as_str().to_owned(),
            ifname: Some(id.ifname.as_str().to_owned()),
        }
    }
}

impl fmt::Display for LeaseOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.ifname {
            Some(ifname) => write!(f, "container {} interface {ifname}", self.container),
            None => write!(f, "container {}", self.container),
        }
    }
}

/// The hash FNV-1a of 128 bits, which must stay the same from release to release.
pub(crate) fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(PRIME)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(container: &str, ifname: Option<&str>) -> LeaseOwner {
        LeaseOwner {
            container: container.into(),
            ifname: ifname.map(Into::into),
        }
    }

    #[test]
    fn owners_are_read_from_new_and_old_files() {
        assert_eq!(
            LeaseOwner::parse(b"abc\r\neth0"),
            Some(owner("abc", Some("eth0")))
        );
        assert_eq!(
            LeaseOwner::parse(b" abc\neth0\n"),
            Some(owner("abc", Some("eth0")))
        );
        assert_eq!(LeaseOwner::parse(b"abc\n"), Some(owner("abc", None)));
        for garbage in [&b""[..], b" \r\n", b"\xff\xfe", b"a\nb\nc"] {
            assert_eq!(LeaseOwner::parse(garbage), None, "{garbage:?}");
        }
        assert_eq!(owner("abc", Some("eth0")).content(), "abc\r\neth0");
    }

    #[test]
    fn record_names_are_sound_and_distinct() {
        assert_eq!(owner("abc", Some("eth0")).file_name(), "abc:eth0");
        assert_eq!(owner("abc", None).file_name(), "abc:");
        let odd = [
            owner(&"x".repeat(250), Some("eth0")),
            owner(&"x".repeat(250), Some("eth1")),
            owner("../..", Some("eth0")),
            owner("a", Some("b:c")),
            owner("a:b", Some("c")),
            owner("", None),
        ];
        let names: std::collections::BTreeSet<_> = odd.iter().map(LeaseOwner::file_name).collect();
        assert_eq!(names.len(), odd.len());
        assert!(
            names
                .iter()
                .all(|name| name.len() <= 255 && !name.contains('/')),
            "{names:?}"
        );
        assert!(names.iter().all(|name| LeaseOwner::is_record_name(name)));
    }

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
