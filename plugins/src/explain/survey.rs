//! One look at a node: network lists, the runtime's cache, host-local's state and the kernel. Read-only; what can't be
//! looked at is told, and the rest goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use cni_conf::names::NetworkName;
use cni_conf::request::AttachmentId;
use ipnet::IpNet;
use serde_json::Value;

use super::cache::{self, Cached};
use super::directories::Directories;
use super::kernel::{Firewall, Kernel};
use super::list::{self, ListFile, Member, Network};
use super::network_conf::{Main, NetworkConf};
use crate::attach::ipam::HOST_LOCAL;
use crate::attach::liveness::KernelLiveness;
use crate::host::rtnl::Link;
use crate::host::{HostError, NetNs};
use crate::log::{self, Failures};
use crate::owner::Owner;

/// What a look came to: what was seen, or why nothing could be.
pub(crate) type Observed<T> = Result<T, String>;

/// What is known of a node.
pub(crate) struct Survey {
    pub(crate) directories: Directories,
    /// Every file of the directory of lists.
    pub(crate) lists: Observed<Vec<ListFile>>,
    /// The networks, in the order of their lists; of two lists with one name the first.
    pub(crate) networks: Vec<View>,
    /// Files of the runtime's cache that are no entries.
    pub(crate) unreadable: Observed<Vec<(PathBuf, String)>>,
    pub(crate) attachments: BTreeMap<Owner, Attached>,
    pub(crate) kernel: Observed<Kernel>,
    pub(crate) firewall: Observed<Firewall>,
    /// What the logs that lists name tell of failures.
    pub(crate) failures: Failures,
}

/// A network.
pub(crate) struct View {
    pub(crate) path: PathBuf,
    pub(crate) name: NetworkName,
    pub(crate) conf: NetworkConf,
    pub(crate) main: Main,
    /// What its plugins are called, in the order of the list.
    pub(crate) plugins: Vec<String>,
    pub(crate) subnets: Vec<IpNet>,
    pub(crate) pools: Vec<Pool>,
    /// Why host-local's state could not be read.
    pub(crate) state: Observed<StateOf>,
}

/// What host-local keeps for a network.
#[derive(Default)]
pub(crate) struct StateOf {
    pub(crate) directory: Option<PathBuf>,
    /// Addresses whose files tell nobody.
    pub(crate) unreadable: Vec<IpAddr>,
    /// Addresses of containers whose files name no interface.
    pub(crate) nameless: Vec<IpAddr>,
}

/// Addresses that an attachment gets one of.
pub(crate) struct Pool {
    pub(crate) ranges: String,
    pub(crate) used: u128,
    pub(crate) total: u128,
}

/// One attachment, from whatever tells of it.
#[derive(Default)]
pub(crate) struct Attached {
    pub(crate) cached: Option<Cached>,
    /// Addresses that it holds in host-local's state.
    pub(crate) held: Vec<IpAddr>,
    /// Whether what host-local wrote down says that its namespace is gone, or that the machine was started since.
    pub(crate) over: bool,
    /// The index of its end on the host.
    pub(crate) end: Option<u32>,
    /// Whether there is a network namespace at a path that the cache tells of; none where it tells none.
    pub(crate) netns: Option<bool>,
}

impl Attached {
    /// Its addresses with the length of their prefix, where that is known.
    pub(crate) fn nets(&self) -> Vec<IpNet> {
        let result = self.cached.as_ref().and_then(|it| it.result.as_ref());
        match result {
            Some(result) if !result.ips.is_empty() => {
                result.ips.iter().map(|ip| ip.address).collect()
            }
            _ => self.held.iter().copied().map(IpNet::from).collect(),
        }
    }

    pub(crate) fn addresses(&self) -> Vec<IpAddr> {
        self.nets().iter().map(IpNet::addr).collect()
    }

    /// Whether something of it is certainly there.
    pub(crate) fn lives(&self) -> bool {
        self.end.is_some() || (self.netns == Some(true) && !self.over)
    }

    /// Why it is certainly gone.
    pub(crate) fn gone(&self) -> Option<&'static str> {
        match (self.end, self.netns) {
            (Some(_), _) => None,
            (None, Some(false)) => Some("its network namespace is gone"),
            (None, _) if self.over => {
                Some("its network namespace is gone, or the machine was started since")
            }
            _ => None,
        }
    }
}

impl Survey {
    /// Looks at everything.
    pub(crate) fn take(directories: &Directories) -> Self {
        let lists = list::read_dir(&directories.conf_dir, &directories.bin_dir);
        let cache = cache::read_all(&directories.cache_dir, &|_| true);
        let (entries, unreadable) = match cache {
            Ok(cache) => (cache.entries, Ok(cache.unreadable)),
            Err(problem) => (Vec::new(), Err(problem)),
        };
        let mut survey = Self {
            directories: directories.clone(),
            networks: Vec::new(),
            lists: Ok(Vec::new()),
            unreadable,
            attachments: BTreeMap::new(),
            kernel: Kernel::look(None).map_err(|error| error.to_string()),
            firewall: Firewall::look(),
            failures: Failures::default(),
        };
        for cached in entries {
            let owner = Owner::new(&cached.network, &cached.id);
            survey.attachments.entry(owner).or_default().cached = Some(cached);
        }
        survey.add_lists(lists.as_deref().unwrap_or_default());
        survey.read_logs(lists.as_deref().unwrap_or_default());
        survey.lists = lists;
        survey
            .attachments
            .retain(|owner, _| directories.selects(owner.network.as_str()));
        survey.find_ends();
        survey.find_namespaces();
        survey
    }

    fn add_lists(&mut self, lists: &[ListFile]) {
        let mut seen = BTreeSet::new();
        for file in lists {
            let Ok(network) = &file.network else { continue };
            if seen.insert(network.name.as_str()) && self.directories.selects(network.name.as_str())
            {
                let view = self.view(&file.path, network);
                self.networks.push(view);
            }
        }
    }

    fn read_logs(&mut self, lists: &[ListFile]) {
        let networks = lists.iter().filter_map(|file| file.network.as_ref().ok());
        let members = networks.flat_map(|network| &network.members);
        let files: BTreeSet<PathBuf> = members
            .filter_map(|member| log::file_of(&member.request.conf))
            .collect();
        for failures in files.iter().filter_map(|file| log::failures(file).ok()) {
            self.failures.count += failures.count;
            let time = |entry: &Value| entry["time"].as_str().map(str::to_owned);
            let newer =
                failures.last.as_ref().and_then(time) > self.failures.last.as_ref().and_then(time);
            if newer {
                self.failures.last = failures.last;
            }
        }
    }

    fn view(&mut self, path: &Path, network: &Network) -> View {
        let conf = NetworkConf::of(network);
        let mut view = View {
            path: path.to_owned(),
            name: network.name.clone(),
            main: conf.main(network),
            conf,
            plugins: network
                .members
                .iter()
                .map(|member| member.request.plugin.to_string())
                .collect(),
            subnets: Vec::new(),
            pools: Vec::new(),
            state: Ok(StateOf::default()),
        };
        for member in &network.members {
            if is_of_host_local(member) {
                view.subnets = HOST_LOCAL.subnets(&member.request).unwrap_or_default();
                view.state = self.state(member, &mut view.pools);
            }
        }
        view
    }

    /// Reads host-local's state of a network.
    fn state(&mut self, member: &Member, pools: &mut Vec<Pool>) -> Observed<StateOf> {
        let request = &member.request;
        let snapshot = HOST_LOCAL
            .snapshot(request)
            .map_err(|error| error.to_string())?;
        let held: Vec<IpAddr> = snapshot
            .leases
            .iter()
            .flat_map(|lease| &lease.addresses)
            .chain(&snapshot.unreadable)
            .copied()
            .collect();
        for set in HOST_LOCAL.range_sets(request).unwrap_or_default() {
            pools.push(Pool {
                ranges: set.to_string(),
                used: held.iter().filter(|address| set.offers(**address)).count() as u128,
                total: set.capacity(),
            });
        }
        let mut state = StateOf {
            directory: HOST_LOCAL.directory(request).ok(),
            unreadable: snapshot.unreadable,
            nameless: Vec::new(),
        };
        for lease in snapshot.leases {
            let id = lease.owner.as_ref().and_then(|owner| {
                Some(AttachmentId {
                    container: owner.container.as_str().try_into().ok()?,
                    ifname: owner.ifname.as_deref()?.try_into().ok()?,
                })
            });
            let Some(id) = id else {
                state.nameless.extend(lease.addresses);
                continue;
            };
            let owner = Owner::new(&request.network, &id);
            let attached = self.attachments.entry(owner).or_default();
            attached.held.extend(lease.addresses);
            attached.over |= lease.origin.is_some_and(|origin| {
                origin.netns.is_some() && !origin.is_current(&KernelLiveness)
            });
        }
        Ok(state)
    }

    /// Finds the ends on the host: by their alias, and those of other plugins by what the runtime's cache says.
    fn find_ends(&mut self) {
        let Ok(kernel) = &self.kernel else { return };
        let veths = || {
            let mut links = kernel.links.iter();
            std::iter::from_fn(move || {
                links
                    .by_ref()
                    .find(|link| link.kind.as_deref() == Some("veth"))
            })
        };
        let by_alias: BTreeMap<&str, &Link> = veths()
            .filter_map(|link| Some((link.alias.as_deref()?, link)))
            .collect();
        for (owner, attached) in &mut self.attachments {
            let named = attached.cached.iter().flat_map(|it| &it.host_interfaces);
            let of_another = || {
                let mut links = named.filter_map(|name| kernel.named(name));
                links.find(|link| link.kind.as_deref() == Some("veth") && link.alias.is_none())
            };
            let own = by_alias.get(owner.alias().as_str()).copied();
            attached.end = own.or_else(of_another).map(|link| link.index);
        }
        for link in veths() {
            let owner = link.alias.as_deref().and_then(Owner::of_alias);
            if let Some(owner) = owner.filter(|it| self.directories.selects(it.network.as_str())) {
                self.attachments.entry(owner).or_default().end = Some(link.index);
            }
        }
    }

    fn find_namespaces(&mut self) {
        for attached in self.attachments.values_mut() {
            let paths = attached.cached.iter().flat_map(|it| &it.netns);
            attached.netns = paths
                .map(|path| !is_gone(path))
                .reduce(|one, other| one || other);
        }
    }

    /// The attachments to a network.
    pub(crate) fn of<'a>(
        &'a self,
        network: &'a NetworkName,
    ) -> impl Iterator<Item = (&'a Owner, &'a Attached)> {
        self.attachments
            .iter()
            .filter(move |(owner, _)| owner.network == *network)
    }

    /// Those of them that live.
    pub(crate) fn living<'a>(
        &'a self,
        network: &'a NetworkName,
    ) -> impl Iterator<Item = (&'a Owner, &'a Attached)> {
        self.of(network).filter(|(_, attached)| attached.lives())
    }

    pub(crate) fn kernel(&self) -> Observed<&Kernel> {
        self.kernel.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn firewall(&self) -> Observed<&Firewall> {
        self.firewall.as_ref().map_err(Clone::clone)
    }

    pub(crate) fn lists(&self) -> Observed<&[ListFile]> {
        self.lists.as_deref().map_err(Clone::clone)
    }

    /// The list of a network.
    pub(crate) fn list(&self, network: &NetworkName) -> Option<&Network> {
        let lists = self.lists.as_deref().unwrap_or_default();
        let mut networks = lists.iter().filter_map(|file| file.network.as_ref().ok());
        networks.find(|it| it.name == *network)
    }
}

impl View {
    /// The bridge's name, if there is one.
    pub(crate) fn bridge(&self) -> Option<&str> {
        match &self.main {
            Main::Bridge(name) => Some(name),
            _ => None,
        }
    }

    /// Whether the host is to forward what containers send.
    pub(crate) fn is_routed(&self) -> bool {
        match self.main {
            Main::Bridge(_) => self.conf.is_gateway(),
            Main::Ptp => true,
            Main::Other => false,
        }
    }

    /// The subnets of a family.
    pub(crate) fn subnet(&self, v6: bool) -> Option<IpNet> {
        let of = |net: &&IpNet| net.addr().is_ipv6() == v6;
        self.subnets.iter().find(of).copied()
    }

    pub(crate) fn has_plugin(&self, name: &str) -> bool {
        self.plugins.iter().any(|plugin| plugin == name)
    }
}

/// Whether the addresses of a plugin's containers are from host-local.
fn is_of_host_local(member: &Member) -> bool {
    member.request.conf["ipam"]["type"].as_str() == Some("host-local")
}

/// Whether there is certainly no network namespace at a path.
pub(crate) fn is_gone(path: &Path) -> bool {
    matches!(
        NetNs::open(path),
        Err(HostError::NetNsMissing { .. } | HostError::NotANetNs { .. })
    )
}
