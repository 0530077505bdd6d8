//! What the store writes down: whose an address is (in Go's format, one file per address) and, in files of
//! our own, what each attachment holds and where it came from.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::origin::Origin;
use crate::lease_owner::LeaseOwner;

/// Version of the format of [`Record`].
const VERSION: u32 = 1;

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
    use super::super::origin::Namespace;
    use super::*;

    fn owner(container: &str, ifname: Option<&str>) -> LeaseOwner {
        LeaseOwner {
            container: container.into(),
            ifname: ifname.map(Into::into),
        }
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
    fn the_index_is_no_record() {
        assert!(!LeaseOwner::is_record_name(Index::NAME));
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
}
