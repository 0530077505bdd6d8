mod basics;
mod faults;
mod power_loss;
mod reclaim;

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::sync::Mutex;

use cni_conf::request::AttachmentId;
use ipnet::IpNet;
use tempfile::TempDir;

use super::*;
use crate::ranges::{Range, RangeSet};

/// What a test says about the host.
#[derive(Default)]
struct Host {
    cookies: Mutex<HashMap<PathBuf, u64>>,
    alive: Mutex<Vec<String>>,
}

impl Liveness for Host {
    fn netns_cookie(&self, netns: &Path) -> Option<u64> {
        self.cookies.lock().unwrap().get(netns).copied()
    }

    fn alive(&self, candidates: &[Candidate<'_>]) -> Vec<bool> {
        let alive = self.alive.lock().unwrap();
        candidates
            .iter()
            .map(|candidate| alive.contains(&candidate.owner.container))
            .collect()
    }
}

struct Setup {
    temp: TempDir,
    host: Host,
}

impl Setup {
    fn new() -> Self {
        Self {
            temp: tempfile::tempdir().unwrap(),
            host: Host::default(),
        }
    }

    fn store(&self) -> Store<'_> {
        Store::new(
            &self.temp.path().join("data"),
            &"net".try_into().unwrap(),
            &self.host,
        )
        .with_lock_limit(Duration::from_millis(50))
    }

    fn dir(&self) -> PathBuf {
        self.store().directory()
    }

    fn own(&self, name: &str) -> PathBuf {
        self.temp.path().join("data/.trestle/net").join(name)
    }

    fn netns(&self, name: &str) -> PathBuf {
        let path = self.temp.path().join(name);
        fs::write(&path, "").unwrap();
        path
    }

    fn add(&self, container: &str, sets: &[&RangeSet]) -> Result<Vec<String>, Error> {
        self.add_from(&self.store(), container, sets, None)
    }

    fn add_in(&self, container: &str, set: &RangeSet, netns: &Path) -> Vec<String> {
        let origin = Origin::now(Some(netns), &self.host);
        self.add_from(&self.store(), container, &[set], origin)
            .unwrap()
    }

    fn add_from(
        &self,
        store: &Store<'_>,
        container: &str,
        sets: &[&RangeSet],
        origin: Option<Origin>,
    ) -> Result<Vec<String>, Error> {
        let wants: Vec<Want<'_>> = sets
            .iter()
            .enumerate()
            .map(|(index, set)| Want {
                index,
                set,
                requested: None,
            })
            .collect();
        let origin = origin.or_else(|| Origin::now(None, &self.host));
        let addresses = store.lock()?.reserve(&id(container), origin, &wants)?;
        Ok(addresses.iter().map(IpAddr::to_string).collect())
    }

    fn request(&self, container: &str, set: &RangeSet, address: &str) -> Result<(), Error> {
        let requested = Some(address.parse().unwrap());
        let want = Want {
            index: 0,
            set,
            requested,
        };
        let origin = Origin::now(None, &self.host);
        self.store()
            .lock()?
            .reserve(&id(container), origin, &[want])
            .map(drop)
    }

    fn del(&self, container: &str) -> Vec<String> {
        match self.store().lock_existing().unwrap() {
            Some(mut session) => session.release(&id(container)).unwrap(),
            None => Vec::new(),
        }
        .iter()
        .map(IpAddr::to_string)
        .collect()
    }

    fn held(&self, container: &str) -> Vec<String> {
        let held = self
            .store()
            .lock()
            .unwrap()
            .held_by(&id(container))
            .unwrap();
        held.iter().map(IpAddr::to_string).collect()
    }

    /// Names of the address files.
    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir()).into_iter().flatten();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.parse::<IpAddr>().is_ok())
            .collect();
        names.sort();
        names
    }

    /// Writes an address file as another program would.
    fn foreign(&self, address: &str, content: &str) {
        fs::create_dir_all(self.dir()).unwrap();
        fs::write(self.dir().join(address), content).unwrap();
    }

    fn is_stamped(&self) -> bool {
        let metadata = fs::metadata(self.dir()).unwrap();
        let index = fs::read(self.own("index"))
            .ok()
            .and_then(|c| record::Index::parse(&c));
        index.is_some_and(|i| i.modified == (metadata.mtime(), metadata.mtime_nsec()))
    }
}

fn id(container: &str) -> AttachmentId {
    AttachmentId {
        container: container.try_into().unwrap(),
        ifname: "eth0".try_into().unwrap(),
    }
}

fn set(subnet: &str) -> RangeSet {
    let subnet: IpNet = subnet.parse().unwrap();
    RangeSet::new(vec![Range::new(subnet, None, None, None).unwrap()]).unwrap()
}
