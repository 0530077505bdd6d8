//! Whether a container whose namespace's path is gone may still be there after all.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use cni_conf::names::NetworkName;

use super::record::{Origin, Owner};

/// A container of which only the records know: what a [`Liveness`] is asked about.
#[derive(Debug, Clone, Copy)]
pub struct Suspect<'a> {
    /// Name of the network.
    pub network: &'a NetworkName,
    /// Who holds the addresses.
    pub owner: &'a Owner,
    /// Where they came from.
    pub origin: &'a Origin,
    /// True if that was before the last start of the machine.
    pub earlier_boot: bool,
}

/// What only a caller with access to the kernel's network interfaces can tell.
///
/// Addresses are taken back from a container only if its namespace is gone from its path (or the machine was started
/// since) *and* nothing of it stands.
pub trait Liveness: Sync {
    /// SO_NETNS_COOKIE of the namespace at a path; `None` if it can't be known.
    fn netns_cookie(&self, netns: &Path) -> Option<u64>;

    /// For each suspect, in order, whether something of its attachment still stands on this host, such as its
    /// host veth. All are asked about at once, so that one look at the kernel serves them all.
    fn standing(&self, suspects: &[Suspect<'_>]) -> Vec<bool>;
}

/// Liveness as files show it: a namespace lives while /proc/PID/ns/net of some process, or a mount, is it.
///
/// Namespaces are compared by inode number, which the kernel uses again: a number that is in use may belong to
/// another namespace by now, and then an address is kept that could have been taken back, never the other way
/// round. A namespace that only an open file keeps alive is not seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcLiveness;

impl Liveness for ProcLiveness {
    fn netns_cookie(&self, _: &Path) -> Option<u64> {
        None
    }

    fn standing(&self, suspects: &[Suspect<'_>]) -> Vec<bool> {
        // Nothing survives a start of the machine, and inode numbers begin anew.
        if suspects.iter().all(|suspect| suspect.earlier_boot) {
            return vec![false; suspects.len()];
        }
        let living = living_namespaces();
        suspects
            .iter()
            .map(|suspect| {
                let netns = suspect.origin.netns.as_ref();
                !suspect.earlier_boot
                    && netns
                        .and_then(|netns| netns.inode)
                        .is_none_or(|(_, inode)| living.contains(&inode))
            })
            .collect()
    }
}

/// Inode numbers of the network namespaces that processes are in or that are mounted.
fn living_namespaces() -> BTreeSet<u64> {
    let mut living = BTreeSet::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        if let Ok(link) = fs::read_link(process.path().join("ns/net")) {
            living.extend(link.to_str().and_then(parse_namespace));
        }
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    living.extend(mounts.split_whitespace().filter_map(parse_namespace));
    living
}

/// The number in `net:[4026531840]`.
fn parse_namespace(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::store::record::Namespace;

    fn standing(inode: Option<(u64, u64)>, earlier_boot: bool) -> bool {
        let network = "net".try_into().unwrap();
        let owner = Owner {
            container: "c".into(),
            ifname: None,
        };
        let netns = Some(Namespace {
            path: "/gone".into(),
            inode,
            cookie: None,
        });
        let origin = Origin {
            boot: "b".into(),
            netns,
        };
        let suspect = Suspect {
            network: &network,
            owner: &owner,
            origin: &origin,
            earlier_boot,
        };
        ProcLiveness.standing(&[suspect])[0]
    }

    #[test]
    fn a_namespace_that_a_process_is_in_stands() {
        let own = fs::metadata("/proc/self/ns/net").unwrap();
        assert!(standing(Some((own.dev(), own.ino())), false));
        assert!(!standing(Some((own.dev(), 1)), false));
    }

    #[test]
    fn doubt_counts_as_standing_but_nothing_outlives_a_boot() {
        assert!(standing(None, false));
        let own = fs::metadata("/proc/self/ns/net").unwrap();
        assert!(!standing(Some((own.dev(), own.ino())), true));
    }
}
