//! The ifb of an attachment, found by its owner.
//!
//! Its first name is the one that the Go plugin gives the ifb of a network and a container, so that either
//! implementation can remove what the other made. The Go plugin leaves the interface out of it; where a container is
//! attached twice to a network, the alias says whose ifb it is, and further names are derived from the whole owner.

use cni_conf::error::{Code, Error};

use crate::host::Rtnl;
use crate::host::rtnl::{Link, LinkChange};
use crate::netfilter::go_plugins::hash;
use crate::owner::{Owner, fnv1a};

/// What the kernel calls the kind of link.
pub(super) const KIND: &str = "ifb";

/// What names begin with; with the hash they fill the kernel's 15 bytes.
const PREFIX: &str = "bwp";

/// How many names an owner's ifb may have, should others be taken.
const NAMES: u32 = 3;

/// Length of its transmit queue in packets. The kernel's default of 32 would make a band that is not shaped drop.
const TX_QUEUE_LEN: u32 = 1000;

fn name(owner: &Owner, attempt: u32) -> String {
    if attempt == 0 {
        let both = format!("{}{}", owner.network, owner.container);
        return format!("{PREFIX}{}", hash(&both, 12));
    }
    let hash = fnv1a(format!("{}#{attempt}", owner.path()).as_bytes());
    format!("{PREFIX}{:012x}", hash >> 16)
}

/// Creates it, up, with the MTU of the link whose packets it is to take.
pub(super) fn create(host: &Rtnl, owner: &Owner, mtu: u32) -> Result<Link, Error> {
    for attempt in 0..NAMES {
        match host.create_ifb(&name(owner, attempt), Some(mtu), false) {
            Ok(link) => return finish(host, owner, link),
            Err(error) if error.already_exists() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::new(
        Code::Conflict,
        "every name for the attachment's ifb device is taken",
    )
    .with_details(format!(
        "see `ip link show type ifb`; the names are derived from {}",
        owner.path()
    )))
}

fn finish(host: &Rtnl, owner: &Owner, link: Link) -> Result<Link, Error> {
    let alias = owner.alias();
    let change = LinkChange {
        up: Some(true),
        alias: Some(&alias),
        tx_queue_len: Some(TX_QUEUE_LEN),
        ..LinkChange::default()
    };
    host.set_link(link.index, &change)?;
    Ok(Link {
        up: true,
        alias: Some(alias),
        ..link
    })
}

/// The owner's ifb, if there is one: by its alias, or without one by its name, as the Go plugin makes it and an ADD
/// that was killed leaves it.
pub(super) fn find(host: &Rtnl, owner: &Owner) -> Result<Option<Link>, Error> {
    let alias = owner.alias();
    for attempt in 0..NAMES {
        if let Some(link) = host.link_by_name(&name(owner, attempt))?
            && link.kind.as_deref() == Some(KIND)
            && link.alias.as_deref().is_none_or(|found| found == alias)
        {
            return Ok(Some(link));
        }
    }
    Ok(None)
}

/// Deletes it. Returns false if there is none.
pub(super) fn delete(host: &Rtnl, owner: &Owner) -> Result<bool, Error> {
    match find(host, owner)? {
        Some(link) => Ok(host.delete_link(link.index)?),
        None => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_name_is_the_go_plugins() {
        let owner = Owner {
            network: "test".try_into().unwrap(),
            container: "1234".try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
        };
        // The first 6 bytes of `printf test1234 | sha512sum`.
        assert_eq!(name(&owner, 0), "bwp2bbe0c48b91a");
        let names: std::collections::BTreeSet<_> = (0..NAMES).map(|i| name(&owner, i)).collect();
        assert_eq!(names.len(), NAMES as usize);
        assert!(names.iter().all(|name| name.len() == 15));
    }
}
