//! What the store writes down: whose an address is (in Go's format, one file per address) and, in files of
//! our own, what each attachment holds and where it came from.

use std::fmt;
use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use cni_conf::request::AttachmentId;
use serde::{Deserialize, Serialize};

use super::liveness::Liveness;

/// Version of the format of [`Record`].
const VERSION: u32 = 1;
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
    pub(super) fn content(&self) -> String {
        match &self.ifname {
            Some(ifname) => format!("{}\r\n{ifname}", self.container),
            None => self.container.clone(),
        }
    }

    /// The same container, without saying which interface.
    pub(super) fn any_interface(&self) -> Self {
        Self {
            container: self.container.clone(),
            ifname: None,
        }
    }

    /// True if what an address file says may be said of that owner: it is the same, or the same container's without an
    /// interface.
    pub(super) fn is_same_as(&self, owner: &Self) -> bool {
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
    pub(super) fn file_name(&self) -> String {
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
    pub(super) fn is_record_name(name: &str) -> bool {
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
pub(super) fn fnv1a(bytes: &[u8]) -> u128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
    bytes.iter().fold(OFFSET, |hash, byte| {
        (hash ^ u128::from(*byte)).wrapping_mul(PRIME)
    })
}

/// A network namespace as it was seen when an address was given to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// Its path, from CNI_NETNS.
    pub path: String,
    /// Device and inode number of the path. The kernel uses a number again once the namespace is gone.
    pub inode: Option<(u64, u64)>,
    /// SO_NETNS_COOKIE, which the kernel never uses again within a boot.
    pub cookie: Option<u64>,
}

impl Namespace {
    /// Looks at the namespace at `path`.
    pub fn observe(path: &Path, liveness: &dyn Liveness) -> Option<Self> {
        Some(Self {
            path: path.to_str()?.to_owned(),
            inode: inode(path),
            cookie: liveness.netns_cookie(path),
        })
    }

    /// True if the path does not lead to this namespace any more. Doubt counts as "it still does".
    pub(super) fn is_gone(&self, liveness: &dyn Liveness) -> bool {
        let path = Path::new(&self.path);
        match fs::metadata(path) {
            Err(error) => matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ),
            Ok(now) => {
                let other_inode = self
                    .inode
                    .is_some_and(|then| then != (now.dev(), now.ino()));
                other_inode
                    || self.cookie.is_some_and(|then| {
                        liveness.netns_cookie(path).is_some_and(|now| then != now)
                    })
            }
        }
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    fs::metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Under which boot of the machine, and for which namespace, addresses were given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// /proc/sys/kernel/random/boot_id; empty for a boot that is over and of which no more is known.
    pub boot: String,
    /// The namespace, if ADD was told one.
    pub netns: Option<Namespace>,
}

impl Origin {
    /// The origin of what was given before the power was lost, by a record that did not reach the disk.
    pub(super) fn lost() -> Self {
        Self {
            boot: String::new(),
            netns: None,
        }
    }

    /// The origin of what is given now. `None` if the kernel does not tell the boot.
    pub fn now(netns: Option<&Path>, liveness: &dyn Liveness) -> Option<Self> {
        Some(Self {
            boot: current_boot()?,
            netns: netns.and_then(|path| Namespace::observe(path, liveness)),
        })
    }

    /// True if the machine has not been started since, and the namespace is still at its path. Of an origin without a
    /// namespace nothing is known.
    pub fn is_current(&self, liveness: &dyn Liveness) -> bool {
        let there = self.netns.as_ref();
        there.is_some_and(|netns| !netns.is_gone(liveness))
            && current_boot().as_ref() == Some(&self.boot)
    }
}

/// The ID of this boot of the machine.
pub(super) fn current_boot() -> Option<String> {
    // A UUID and a newline, which procfs hands out at once.
    let mut text = [0; 64];
    let mut file = fs::File::open("/proc/sys/kernel/random/boot_id").ok()?;
    let length = file.read(&mut text).ok()?;
    let boot = std::str::from_utf8(&text[..length]).ok()?.trim();
    (!boot.is_empty()).then(|| boot.to_owned())
}

/// What one owner holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) owner: LeaseOwner,
    pub(super) addresses: Vec<IpAddr>,
    /// `None` for what another program gave: nothing is guessed about it.
    pub(super) origin: Option<Origin>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    version: u32,
    container: String,
    ifname: Option<String>,
    addresses: Vec<IpAddr>,
    origin: Option<Origin>,
}

impl Record {
    /// Reads a record; `None` if it is none that this release understands.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(content).ok()?;
        (wire.version == VERSION).then_some(Self {
            owner: LeaseOwner {
                container: wire.container,
                ifname: wire.ifname,
            },
            addresses: wire.addresses,
            origin: wire.origin,
        })
    }

    /// The text of the record.
    pub(super) fn content(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Wire {
            version: VERSION,
            container: self.owner.container.clone(),
            ifname: self.owner.ifname.clone(),
            addresses: self.addresses.clone(),
            origin: self.origin.clone(),
        })
    }
}

/// The state of a whole network: when its directory was last changed by us, and under which boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Index {
    version: u32,
    /// The time that the last change of ours gave to the network's directory.
    pub(super) modified: (i64, i64),
    /// The boot after whose beginning addresses of earlier boots were taken back.
    pub(super) boot: Option<String>,
}

impl Index {
    /// Name of the file.
    pub(super) const NAME: &str = "index";

    /// The index of a directory with this modification time.
    pub(super) fn new(modified: (i64, i64), boot: Option<String>) -> Self {
        Self {
            version: VERSION,
            modified,
            boot,
        }
    }

    /// Reads an index; `None` if it is none that this release understands.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        serde_json::from_slice(content)
            .ok()
            .filter(|index: &Self| index.version == VERSION)
    }
}

/// The file name of an address: its canonical text, as Go writes it.
pub(super) fn address_name(address: IpAddr) -> String {
    address.to_string()
}

/// The address that a file stands for; `None` if its name is not the canonical text of one.
pub(super) fn parse_address_name(name: &str) -> Option<IpAddr> {
    name.parse()
        .ok()
        .filter(|address: &IpAddr| address_name(*address) == name)
}

/// Name of the file with the address that was last given out of the range set with this index.
pub(super) fn last_reserved_name(set: usize) -> String {
    format!("last_reserved_ip.{set}")
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
        assert!(!LeaseOwner::is_record_name(Index::NAME));
    }

    #[test]
    fn records_read_back_and_garbage_does_not() {
        let record = Record {
            owner: owner("abc", Some("eth0")),
            addresses: vec!["10.1.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            origin: Some(Origin {
                boot: "b".into(),
                netns: Some(Namespace {
                    path: "/run/netns/a".into(),
                    inode: Some((4, 7)),
                    cookie: None,
                }),
            }),
        };
        let content = record.content().unwrap();
        assert_eq!(Record::parse(&content), Some(record));
        assert_eq!(Record::parse(&content[1..]), None);
        let text = String::from_utf8(content).unwrap();
        assert_eq!(Record::parse(text.replace(":1,", ":2,").as_bytes()), None);
        assert_eq!(
            Record::parse(text.replace("\"boot\"", "\"boat\"").as_bytes()),
            None
        );
    }

    #[test]
    fn address_names_are_canonical() {
        assert_eq!(
            parse_address_name("fd00::1"),
            Some("fd00::1".parse().unwrap())
        );
        for other in [
            "fd00:0::1",
            "lock",
            "last_reserved_ip.0",
            "10.1.0.1~",
            "FD00::1",
            "",
        ] {
            assert_eq!(parse_address_name(other), None, "{other}");
        }
    }

    #[test]
    fn the_hash_is_fnv1a() {
        assert_eq!(fnv1a(b""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(fnv1a(b"a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
    }
}
