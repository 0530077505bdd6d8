//! Who owns a thing on the host: a network, a container and an interface name.
//!
//! This room alone knows how an attachment is written: as alias, in comments of nftables and iptables, in the names of
//! chains, links and files. And it alone answers whether what was found belongs to an attachment or to a network,
//! see [`Owners`]. Nobody else compares beginnings of comments.
//!
//! One rule holds for all of it: a name stands whole where it fits, otherwise its beginning with a hash of the whole (64
//! bits; 60 in the names of chains, where iptables leaves no room), and it is compared whole.
//!
//! Nothing is remembered about attachments apart from what the kernel and the IPAM hold, save for what restores rules
//! that somebody flushed (`attach::record`). The name of the host's
//! veth end is derived from the owner, and its alias spells the owner out, so DEL finds it with nothing else
//! given, GC can tell what belongs to whom, and a person reads it in `ip link`.

mod comment;
pub mod digest;
pub mod network;
mod owners;

use cni_conf::names::{ContainerId, IfName, NetworkName};
use cni_conf::request::{Attachment, AttachmentId, Request};

pub use self::comment::printable;
pub use self::digest::fnv1a;
pub use self::owners::Owners;

use self::digest::hash_on;

/// Longest alias in bytes: one less than the kernel allows, since netlink libraries send a terminating zero along and the
/// kernel counts it (`dev_set_alias` in net/core/dev.c).
const ALIAS_MAX: usize = 254;

/// Longest network name in bytes that always stands in full in an alias.
const READABLE_NETWORK_MAX: usize = 200;

const PREFIX: &str = "trestle:";

/// Longest name of a file in bytes (`NAME_MAX` of limits.h).
const FILE_NAME_MAX: usize = 255;

/// Owner of an attachment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The network.
    pub network: NetworkName,
    /// The container.
    pub container: ContainerId,
    /// The interface in the container.
    pub ifname: IfName,
}

impl Owner {
    /// The owner that a request speaks of.
    pub fn of(request: &Request, attachment: &Attachment) -> Self {
        Self::new(&request.network, &attachment.id())
    }

    /// The owner of one attachment to a network.
    pub fn new(network: &NetworkName, id: &AttachmentId) -> Self {
        Self {
            network: network.clone(),
            container: id.container.clone(),
            ifname: id.ifname.clone(),
        }
    }

    /// `NETWORK/CONTAINERID/IFNAME`. None of the three contains a slash.
    pub fn path(&self) -> String {
        format!("{}/{}/{}", self.network, self.container, self.ifname)
    }

    /// The alias of the host's veth end: `trestle:NETWORK/CONTAINERID/IFNAME`.
    ///
    /// Where that would not fit the kernel, it is cut and ends in `~` and a hash of the whole; a network's
    /// name that leaves no room for that is hashed itself.
    pub fn alias(&self) -> String {
        let alias = format!("{PREFIX}{}", self.path());
        if alias.len() <= ALIAS_MAX {
            return alias;
        }
        let hash = fnv1a(self.path().as_bytes());
        if self.network.as_str().len() <= READABLE_NETWORK_MAX {
            // All of it is ASCII: network and container by their pattern, and the interface's name is cut off.
            return format!("{}~{hash:016x}", &alias[..ALIAS_MAX - 17]);
        }
        format!("{}{hash:016x}", hashed_prefix(&self.network))
    }

    /// The owner that an alias spells out in full.
    pub fn of_alias(alias: &str) -> Option<Self> {
        let mut parts = alias.strip_prefix(PREFIX)?.split('/');
        let mut part = || parts.next();
        let owner = Self {
            network: part()?.try_into().ok()?,
            container: part()?.try_into().ok()?,
            ifname: part()?.try_into().ok()?,
        };
        (owner.alias() == alias).then_some(owner)
    }

    /// True if `alias` belongs to some attachment to some network.
    pub fn alias_is_ours(alias: &str) -> bool {
        alias.starts_with(PREFIX)
    }

    /// True if `alias` belongs to some attachment to `network`.
    pub fn alias_is_of(network: &NetworkName, alias: &str) -> bool {
        alias_is_of(network, alias)
    }

    /// The owner that a whole spelling `NETWORK/CONTAINERID/IFNAME` tells. None for one that is cut.
    pub fn parse(spelling: &str) -> Option<Self> {
        let mut parts = spelling.split('/');
        let (network, container, ifname) = (parts.next()?, parts.next()?, parts.next()?);
        let owner = Self {
            network: network.try_into().ok()?,
            container: container.try_into().ok()?,
            ifname: ifname.try_into().ok()?,
        };
        parts.next().is_none().then_some(owner)
    }

    /// The owner that an alias tells. None for one that is cut, and for those that are not ours.
    pub fn parse_alias(alias: &str) -> Option<Self> {
        Self::parse(alias.strip_prefix(PREFIX)?).filter(|owner| owner.alias() == alias)
    }

    /// The comment that marks what belongs to the attachment in nftables: `NETWORK/CONTAINERID/IFNAME`, cut and hashed
    /// where that would not fit, see `comment.rs`.
    pub fn comment(&self) -> String {
        comment::of(self)
    }

    /// The comment for iptables, which is the same one but for characters that mean something in the text of a rule. It
    /// has at most 144 bytes of the 255 that iptables takes, and no space.
    pub fn iptables_comment(&self) -> String {
        comment::for_iptables(self)
    }

    /// The name of a chain of the attachment's in iptables: `prefix` and 15 hexadecimal digits of a hash. With 13
    /// characters these are the 28 that it may have (`XT_EXTENSION_MAXNAMELEN`).
    pub fn chain(&self, prefix: &str) -> String {
        format!("{prefix}{:015x}", fnv1a(self.path().as_bytes()) >> 4)
    }

    /// The same by a hash of the comment, as `portmap` names its chains. Where that comment is cut, it is the one that
    /// former versions wrote, so that their chains are found.
    pub fn chain_by_comment(&self, prefix: &str) -> String {
        let comment = comment::cut(&self.path());
        format!("{prefix}{:015x}", fnv1a(comment.as_bytes()) >> 4)
    }

    /// The name of a file about the attachment: `WHAT:NETWORK:CONTAINERID:IFNAME`, cut and hashed as the comment is. None of
    /// the parts has a colon.
    pub fn file_name(&self, what: &str) -> String {
        as_file_name(what, &self.comment())
    }

    /// The name that former versions gave the file, which differs where they cut it within the network's name.
    pub fn former_file_name(&self, what: &str) -> String {
        as_file_name(what, &comment::cut(&self.path()))
    }

    /// Whether a file that [`Owner::file_name`] named is of an attachment to `network`. No says nothing of a file that a
    /// former version named.
    pub fn file_is_of(network: &NetworkName, what: &str, name: &str) -> bool {
        let owner = name
            .strip_prefix(what)
            .and_then(|rest| rest.strip_prefix(':'));
        owner.is_some_and(|owner| comment::is_of(network, &owner.replace(':', "/")))
    }

    /// The name of the host's veth end: `veth` and 8 hexadecimal digits, the form that the Go plugin uses too.
    ///
    /// Two owners may get the same name (32 bits); the alias tells them apart, and `attempt` yields others.
    pub fn host_ifname(&self, attempt: u32) -> String {
        let hash = attempted(fnv1a(self.path().as_bytes()), attempt);
        let [.., a, b, c, d] = (hash ^ (hash >> 32)).to_be_bytes();
        format!("veth{:08x}", u32::from_be_bytes([a, b, c, d]))
    }

    /// The MAC address of the host's veth end: `fe` and 40 bits of the hash that its names are made of.
    pub fn host_mac(&self) -> [u8; 6] {
        let [.., a, b, c, d, e] = fnv1a(self.path().as_bytes()).to_be_bytes();
        [0xfe, a, b, c, d, e]
    }

    /// True if a host end of this name and this MAC address may be of one owner, whichever that is, within so many attempts.
    ///
    /// The low bits of a product come from the low bits of its factors alone. So the address tells 40 bits of each
    /// attempt's hash, and those give the name's last byte.
    pub fn may_have_named(name: &str, mac: [u8; 6], attempts: u32) -> bool {
        let [0xfe, a, b, c, d, e] = mac else {
            return false;
        };
        let Some(digits) = name.strip_prefix("veth").filter(|it| it.len() == 8) else {
            return false;
        };
        let Ok(number) = u32::from_str_radix(digits, 16) else {
            return false;
        };
        let known = u64::from_be_bytes([0, 0, 0, a, b, c, d, e]);
        (0..attempts).any(|attempt| {
            let hash = attempted(known, attempt);
            (hash ^ (hash >> 32)) & 0xff == u64::from(number & 0xff)
        })
    }
}

/// The hash of an owner's path continued with the number of an attempt.
fn attempted(hash: u64, attempt: u32) -> u64 {
    hash_on(hash, format!("#{attempt}").as_bytes())
}

/// The name of the file in which `tuning` keeps what an interface was like: `CONTAINERID_IFNAME.json`, as the Go plugin
/// has it. One that is longer than a file's name may be is cut and hashed; no other can have a `#` at that place, since
/// an interface's name is shorter than a hash.
pub fn saved_file_name(id: &AttachmentId) -> String {
    const EXTENSION: &str = ".json";
    let whole = format!("{}_{}", id.container, id.ifname);
    if whole.len() + EXTENSION.len() <= FILE_NAME_MAX {
        return whole + EXTENSION;
    }
    // The container's ID is ASCII, and longer than that.
    let readable = &whole[..FILE_NAME_MAX - EXTENSION.len() - 17];
    format!("{readable}#{:016x}{EXTENSION}", fnv1a(whole.as_bytes()))
}

fn as_file_name(what: &str, comment: &str) -> String {
    format!("{what}:{}", comment.replace('/', ":"))
}

/// Whether an alias is of an attachment to `network`.
fn alias_is_of(network: &NetworkName, alias: &str) -> bool {
    let whole = alias
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_prefix(network.as_str()));
    whole.is_some_and(|rest| rest.starts_with('/')) || alias.starts_with(&hashed_prefix(network))
}

/// What stands in front of the attachment's hash in an alias; `~` can't begin a network's name.
fn hashed_prefix(network: &NetworkName) -> String {
    format!("{PREFIX}~{:016x}/", fnv1a(network.as_str().as_bytes()))
}

#[cfg(test)]
#[path = "spelling_tests.rs"]
mod spelling_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(network: &str, container: &str) -> Owner {
        Owner {
            network: network.try_into().unwrap(),
            container: container.try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
        }
    }

    #[test]
    fn host_names_fit_the_kernel_and_differ_by_owner_and_attempt() {
        let names: std::collections::BTreeSet<_> = (0..1000)
            .flat_map(|i| {
                (0..2).map(move |attempt| owner("net", &format!("c{i}")).host_ifname(attempt))
            })
            .collect();
        assert_eq!(names.len(), 2000);
        assert!(
            names
                .iter()
                .all(|name| name.len() == 12 && name.starts_with("veth"))
        );
    }

    #[test]
    fn name_and_mac_of_a_host_end_belong_together() {
        for i in 0..100 {
            let owner = owner("net", &format!("c{i}"));
            for attempt in 0..3 {
                let name = owner.host_ifname(attempt);
                assert!(Owner::may_have_named(&name, owner.host_mac(), 3));
            }
        }
        let (name, mac) = (
            owner("net", "c1").host_ifname(0),
            owner("net", "c1").host_mac(),
        );
        let mut other = mac;
        other[5] ^= 1;
        assert!(!Owner::may_have_named(&name, other, 1));
        other = mac;
        other[0] = 0xfa;
        assert!(!Owner::may_have_named(&name, other, 1));
        for name in ["eth0", "veth", "veth0", "vethxyzxyzxy", &name[..11]] {
            assert!(!Owner::may_have_named(name, mac, 3), "{name}");
        }
        // Interfaces outlive an upgrade, so these must never change.
        assert_eq!(name, "veth731e8134");
        assert_eq!(mac, [0xfe, 0xe5, 0x58, 0xd3, 0x33, 0xa3]);
    }

    #[test]
    fn the_alias_says_whose_it_is() {
        assert_eq!(owner("net", "c1").alias(), "trestle:net/c1/eth0");
    }

    #[test]
    fn an_alias_in_full_gives_the_owner_back_and_a_cut_one_nobody() {
        let own = owner("net", "c1");
        assert_eq!(Owner::of_alias(&own.alias()), Some(own));
        for alias in [
            &owner("net", &"x".repeat(240)).alias(),
            &owner(&"n".repeat(240), "c").alias(),
            "net/c1/eth0",
            "trestle:net/c1",
            "trestle:net/c1/eth0/x",
            "trestle:../c1/eth0",
        ] {
            assert_eq!(Owner::of_alias(alias), None, "{alias}");
        }
    }

    #[test]
    fn aliases_belong_to_one_network_even_when_they_are_cut() {
        let (net, other) = (
            NetworkName::try_from("net").unwrap(),
            NetworkName::try_from("net2").unwrap(),
        );
        let long = owner("net", &"x".repeat(240));
        let longer = Owner {
            network: "n".repeat(240).try_into().unwrap(),
            ..long.clone()
        };
        assert!(long.alias().len() <= ALIAS_MAX && long.alias().starts_with("trestle:net/xxx"));
        assert!(longer.alias().len() <= ALIAS_MAX && longer.alias().starts_with("trestle:~"));
        assert_ne!(
            long.alias(),
            owner("net", &format!("{}y", "x".repeat(239))).alias()
        );
        for own in [owner("net", "c1"), long] {
            assert!(Owner::alias_is_of(&net, &own.alias()));
            assert!(!Owner::alias_is_of(&other, &own.alias()));
        }
        assert!(Owner::alias_is_of(&longer.network, &longer.alias()));
        assert!(!Owner::alias_is_of(&net, "someone else's"));
    }
}
