//! How an attachment is: whether what ADD reported is still there.

use std::collections::BTreeMap;
use std::path::Path;

use cni_conf::names::NetworkName;
use ipnet::IpNet;

use super::survey::{Attached, Survey};
use crate::attach::masquerade;
use crate::host::{NetNs, Rtnl, module};
use crate::owner::{Owner, Owners};
use crate::{firewall, portmap};

/// In one word or two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ok,
    NoNamespace,
    NoInterface,
    NoAddress,
    RulesMissing,
    /// Neither the runtime's cache nor the kernel tells of its namespace.
    Unknown,
}

impl State {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::NoNamespace => "no namespace",
            Self::NoInterface => "no interface",
            Self::NoAddress => "no address",
            Self::RulesMissing => "rules missing",
            Self::Unknown => "unknown",
        }
    }
}

/// Whose rules there are, by network and plugin.
pub(crate) struct Kept(BTreeMap<(NetworkName, &'static str), BTreeMap<String, Vec<String>>>);

/// The parts that keep rules for attachments.
const PARTS: [&str; 3] = ["masquerade", "portmap", "firewall"];

impl Kept {
    /// Lists the rules of every network. What can't be listed counts as there.
    pub(crate) fn look(survey: &Survey) -> Self {
        let mut kept = BTreeMap::new();
        if !module::is_present("nf_tables") {
            return Self(kept);
        }
        for network in &survey.networks {
            for part in PARTS {
                let concerned = match part {
                    "masquerade" => network.conf.ip_masq,
                    part => network.has_plugin(part),
                };
                if let Some(owners) = concerned.then(|| list(part, &network.name)).flatten() {
                    kept.insert((network.name.clone(), part), owners);
                }
            }
        }
        Self(kept)
    }

    /// How many rules there are, by network and part.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&NetworkName, &'static str, usize)> {
        let count = |owners: &BTreeMap<String, Vec<String>>| owners.values().map(Vec::len).sum();
        self.0
            .iter()
            .map(move |((network, part), owners)| (network, *part, count(owners)))
    }

    /// The rules of an attachment, in words.
    pub(crate) fn of(&self, owner: &Owner) -> Vec<String> {
        let parts = PARTS
            .iter()
            .filter_map(|part| self.0.get(&(owner.network.clone(), part)));
        parts
            .filter_map(|owners| find(owners, owner))
            .flatten()
            .cloned()
            .collect()
    }

    /// The parts that should have rules for an attachment and have none.
    pub(crate) fn lacking(&self, owner: &Owner, attached: &Attached) -> Vec<&'static str> {
        let mappings = attached
            .cached
            .as_ref()
            .map(|it| &it.capabilities["portMappings"]);
        let mapped = mappings
            .and_then(|it| it.as_array())
            .is_some_and(|it| !it.is_empty());
        let lacks = |part: &&&'static str| {
            let owners = self.0.get(&(owner.network.clone(), **part));
            owners.is_some_and(|owners| match **part {
                "portmap" => mapped && find(owners, owner).is_none(),
                // On a host where nothing is dropped it has nothing to do.
                "firewall" => !owners.is_empty() && find(owners, owner).is_none(),
                _ => !attached.addresses().is_empty() && find(owners, owner).is_none(),
            })
        };
        PARTS.iter().filter(lacks).copied().collect()
    }
}

/// What an attachment has, in whichever spelling of it.
fn find<'a>(owners: &'a BTreeMap<String, Vec<String>>, owner: &Owner) -> Option<&'a Vec<String>> {
    owners.get(&owner.comment()).or_else(|| {
        let one = Owners::one(owner);
        let mut kept = owners.iter();
        kept.find(|(comment, _)| one.has(comment))
            .map(|(_, what)| what)
    })
}

fn list(part: &str, network: &NetworkName) -> Option<BTreeMap<String, Vec<String>>> {
    let kept: Vec<(String, String)> = match part {
        "masquerade" => {
            let kept = masquerade::list(network).ok()?.into_iter();
            kept.map(|it| (it.owner, format!("masquerade: {}", it.what)))
                .collect()
        }
        "portmap" => {
            let kept = portmap::list(network).ok()?.into_iter();
            kept.map(|it| (it.owner, format!("portmap: {}", it.what)))
                .collect()
        }
        _ => {
            let kept = firewall::list(network).ok()?.into_iter();
            kept.map(|it| (it.owner, format!("firewall: {}", it.what)))
                .collect()
        }
    };
    let mut owners: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (owner, what) in kept {
        owners.entry(owner).or_default().push(what);
    }
    Some(owners)
}

/// The path of an attachment's namespace, if there is one at a path that is known.
pub(crate) fn netns(attached: &Attached) -> Option<&Path> {
    let mut paths = attached.cached.iter().flat_map(|it| &it.netns);
    paths
        .find(|path| !super::survey::is_gone(path))
        .map(|path| path.as_path())
}

/// Looks into the attachment's namespace.
pub(crate) fn of(survey: &Survey, kept: &Kept, owner: &Owner, attached: &Attached) -> State {
    let path = netns(attached);
    if attached.netns == Some(false) || (path.is_none() && attached.over) {
        return State::NoNamespace;
    }
    let Some(path) = path else {
        return match attached.end {
            // Its end stands, and goes with the other one.
            Some(_) if kept.lacking(owner, attached).is_empty() => State::Ok,
            Some(_) => State::RulesMissing,
            None => State::Unknown,
        };
    };
    let missing = match inside(path, owner) {
        Ok(Some(has)) => {
            let wanted = attached.cached.as_ref().and_then(|it| it.result.as_ref());
            let ips = wanted.iter().flat_map(|result| &result.ips);
            let mut own = ips.filter(|ip| is_inside(wanted, ip.interface, owner));
            own.any(|ip| !has.contains(&ip.address))
        }
        Ok(None) => return State::NoInterface,
        Err(()) => return State::NoNamespace,
    };
    match () {
        () if missing => State::NoAddress,
        () if super::checks::is_ours(survey, attached.end)
            && !kept.lacking(owner, attached).is_empty() =>
        {
            State::RulesMissing
        }
        () => State::Ok,
    }
}

/// Whether an address of a result is on the attachment's own interface.
fn is_inside(
    result: Option<&cni_conf::result::CniResult>,
    interface: Option<usize>,
    owner: &Owner,
) -> bool {
    let Some(interface) = interface else {
        return true;
    };
    let interface = result.and_then(|it| it.interfaces.get(interface));
    interface.is_none_or(|it| it.name == owner.ifname.as_str())
}

/// The addresses of the attachment's interface; none where there is no such interface.
fn inside(path: &Path, owner: &Owner) -> Result<Option<Vec<IpNet>>, ()> {
    let netns = NetNs::open(path).map_err(drop)?;
    let rtnl = Rtnl::in_netns(&netns).map_err(drop)?;
    let Some(link) = rtnl.link_by_name(owner.ifname.as_str()).map_err(drop)? else {
        return Ok(None);
    };
    let addresses = rtnl.addresses(link.index).map_err(drop)?;
    Ok(Some(addresses.into_iter().map(|it| it.net).collect()))
}
