//! Whether a container whose namespace's path is gone may still be there after all.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::origin::{Candidate, Liveness, Namespace};

/// Liveness as files show it: a namespace lives while /proc/PID/ns/net of some process, or a mount, is it.
///
/// Namespaces are compared by inode number, which the kernel uses again, the lowest that is free first: a number that is in
/// use may belong to another namespace by now. Who can read cookies tells the two apart ([`ProcLiveness::alive_by`]);
/// otherwise an address is kept that could have been taken back, never the other way round. A namespace that only an
/// open file keeps alive is not seen.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcLiveness;

impl ProcLiveness {
    /// For each candidate, whether its namespace lives. `cookie` reads SO_NETNS_COOKIE of the namespace at a path.
    pub fn alive_by(
        candidates: &[Candidate<'_>],
        cookie: impl Fn(&Path) -> Option<u64>,
    ) -> Vec<bool> {
        // Nothing survives a start of the machine, and inode numbers begin anew.
        if candidates.iter().all(|candidate| candidate.earlier_boot) {
            return vec![false; candidates.len()];
        }
        let living = living_namespaces();
        let lives = |netns: &Namespace| {
            let Some((_, inode)) = netns.inode else {
                return true;
            };
            let Some(path) = living.get(&inode) else {
                return false;
            };
            let another = netns
                .cookie
                .is_some_and(|then| cookie(path).is_some_and(|now| now != then));
            !another
        };
        candidates
            .iter()
            .map(|candidate| {
                !candidate.earlier_boot && candidate.origin.netns.as_ref().is_none_or(lives)
            })
            .collect()
    }
}

impl Liveness for ProcLiveness {
    fn netns_cookie(&self, _: &Path) -> Option<u64> {
        None
    }

    fn alive(&self, candidates: &[Candidate<'_>]) -> Vec<bool> {
        Self::alive_by(candidates, |_| None)
    }
}

/// The network namespaces that processes are in or that are mounted: their inode numbers, and a path to each.
pub fn living_namespaces() -> BTreeMap<u64, PathBuf> {
    let mut living = BTreeMap::new();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    for mount in mounts.lines() {
        // "36 35 0:4 net:[4026532193] /run/netns/a rw …": what of the file system is mounted, and where.
        let mut words = mount.split(' ').skip(3);
        if let (Some(root), Some(at)) = (words.next(), words.next())
            && let Some(inode) = parse_namespace(root)
        {
            living.insert(inode, PathBuf::from(at));
        }
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let path = process.path().join("ns/net");
        if let Ok(link) = fs::read_link(&path)
            && let Some(inode) = link.to_str().and_then(parse_namespace)
        {
            living.insert(inode, path);
        }
    }
    living
}

/// The number in `net:[4026531840]`.
fn parse_namespace(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::super::origin::Origin;
    use super::*;
    use crate::lease_owner::LeaseOwner;

    fn alive(inode: Option<(u64, u64)>, earlier_boot: bool) -> bool {
        alive_with_cookies(inode, earlier_boot, None, None)
    }

    fn alive_with_cookies(
        inode: Option<(u64, u64)>,
        earlier_boot: bool,
        then: Option<u64>,
        now: Option<u64>,
    ) -> bool {
        let network = "net".try_into().unwrap();
        let owner = LeaseOwner {
            container: "c".into(),
            ifname: None,
        };
        let netns = Some(Namespace {
            path: "/gone".into(),
            inode,
            cookie: then,
        });
        let origin = Origin {
            boot: "b".into(),
            netns,
        };
        let candidate = Candidate {
            network: &network,
            owner: &owner,
            origin: &origin,
            earlier_boot,
        };
        ProcLiveness::alive_by(&[candidate], |_| now)[0]
    }

    #[test]
    fn a_namespace_that_a_process_is_in_stands() {
        let own = fs::metadata("/proc/self/ns/net").unwrap();
        assert!(alive(Some((own.dev(), own.ino())), false));
        assert!(!alive(Some((own.dev(), 1)), false));
    }

    #[test]
    fn a_number_that_is_used_again_is_told_by_the_cookie() {
        let own = fs::metadata("/proc/self/ns/net").unwrap();
        let inode = Some((own.dev(), own.ino()));
        assert!(!alive_with_cookies(inode, false, Some(1), Some(2)));
        for (then, now) in [(Some(1), Some(1)), (Some(1), None), (None, Some(2))] {
            assert!(alive_with_cookies(inode, false, then, now));
        }
    }

    #[test]
    fn doubt_counts_as_standing_but_nothing_outlives_a_boot() {
        assert!(alive(None, false));
        let own = fs::metadata("/proc/self/ns/net").unwrap();
        assert!(!alive(Some((own.dev(), own.ino())), true));
    }
}
