//! `trestle gc`: removes what containers left behind that are gone, for runtimes that don't call the verb GC.
//!
//! The verb is told by the runtime which attachments are valid and removes all others, while the runtime keeps from
//! making new ones. Nobody keeps a runtime from doing that here. So it goes the other way round: only attachments
//! that are known to be gone are removed, each by DEL of every plugin of the list, and a container that starts
//! meanwhile is not touched. An attachment is gone if
//! - host-local remembers under which boot or for which network namespace it gave its address, and that is over, or
//! - the runtime's cache tells its network namespace, and there is none at that path, or
//! - nothing but rules is left of it, where host-local would have an address of every attachment;
//!
//! and in any case none of its interfaces stands on the host. With `"reclaim": false` what holds an address stays.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ::ipam::store::DEFAULT_DATA_DIR;
use cni_conf::dispatch;
use cni_conf::error::{Code, Error};
use cni_conf::names::NetworkName;
use cni_conf::request::{Attachment, AttachmentId, Call, CniArgs, Request};
use cni_conf::version::SpecVersion;
use serde_json::json;

use super::{CliError, GcArgs, file};
use crate::attach::masquerade;
use crate::attach::{ipam, veth};
use crate::explain::cache::{self, Cached};
use crate::explain::directories;
use crate::explain::list::{self, ListError, Network};
use crate::host::{HostError, NetNs, Rtnl};
use crate::owner::{Owner, Owners};
use crate::{firewall, portmap};

/// What is known of one attachment.
#[derive(Default)]
struct Evidence {
    addresses: Vec<IpAddr>,
    /// Whether host-local says that nothing of it is left.
    dead_in_ipam: bool,
    cached: Option<Cached>,
    /// Rules and elements of the firewall, in words.
    rules: Vec<String>,
}

enum Verdict {
    /// Nothing of it is left; why that is known.
    Gone(String),
    Alive,
    /// Nothing tells.
    Unknown,
}

/// What is known of a network.
struct Inventory {
    attachments: BTreeMap<AttachmentId, Evidence>,
    /// Whether addresses may be taken back.
    reclaim: bool,
    /// Whether every attachment that lives holds an address of host-local.
    all_have_addresses: bool,
    /// What is kept for nobody who could be named.
    nameless: Vec<String>,
}

pub(super) fn gc(args: &GcArgs, out: &mut impl Write) -> Result<(), CliError> {
    if args.all {
        return all(args, out);
    }
    let (network, guessed) = network(args)?;
    collect(args, &network, guessed, out)
}

/// Every network. What is wrong with one does not keep the others from being collected.
fn all(args: &GcArgs, out: &mut impl Write) -> Result<(), CliError> {
    let bin_dir = bin_dir(args)?;
    let dir = &args.conf_dir;
    let files = list::read_dir(dir, &bin_dir).map_err(|problem| ListError {
        path: dir.clone(),
        problem,
    })?;
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files {
        let outcome = match file.network {
            Ok(network) if seen.insert(network.name.clone()) => collect(args, &network, false, out),
            Ok(_) => Ok(()),
            Err(problem) => Err(CliError::from(ListError {
                path: file.path,
                problem,
            })),
        };
        errors.extend(outcome.err());
    }
    let remembered = cache::read_all(&args.cache_dir, &|_| true).unwrap_or_default();
    for cached in remembered.entries {
        if seen.insert(cached.network.clone()) {
            let outcome = by_name(args, &cached.network, &bin_dir)
                .and_then(|(network, guessed)| collect(args, &network, guessed, out));
            errors.extend(outcome.err());
        }
    }
    match errors.len() {
        0 => Ok(()),
        _ => Err(CliError::Several(errors)),
    }
}

fn collect(
    args: &GcArgs,
    network: &Network,
    guessed: bool,
    out: &mut impl Write,
) -> Result<(), CliError> {
    for member in network.members.iter().filter(|it| it.built_in.is_none()) {
        let plugin = &member.request.plugin;
        writeln!(
            out,
            "plugin {plugin} is not of trestle: what it keeps stays"
        )?;
    }
    let mut inventory = inventory(network, &args.cache_dir)?;
    if guessed {
        // Another IPAM plugin may have given the addresses. Then that there is none of host-local tells nothing.
        inventory.all_have_addresses &= Path::new(DEFAULT_DATA_DIR)
            .join(network.name.as_str())
            .is_dir();
    }
    let host = Rtnl::new().map_err(Error::from)?;
    let mut errors = Vec::new();
    let (mut gone, mut alive) = (0, 0);
    for (id, evidence) in &inventory.attachments {
        let whose = format!("container {}, interface {}", id.container, id.ifname);
        match judge(&host, network, id, evidence, &inventory)? {
            Verdict::Alive => alive += 1,
            Verdict::Unknown => {
                alive += 1;
                let held = evidence.listed().join(", ");
                writeln!(
                    out,
                    "{whose}: kept, because nothing tells whether it lives ({held})"
                )?;
            }
            Verdict::Gone(why) => {
                gone += 1;
                writeln!(out, "{whose}: {why}")?;
                if args.dry_run {
                    for line in evidence.listed() {
                        writeln!(out, "  would remove {line}")?;
                    }
                    writeln!(out, "  would call DEL of {}", plugins(network))?;
                } else {
                    remove(network, id, evidence, &mut errors, out)?;
                }
            }
        }
    }
    conclude(args, network, &inventory, (gone, alive), out)?;
    Error::join(errors).map_or(Ok(()), |error| Err(error.into()))
}

fn conclude(
    args: &GcArgs,
    network: &Network,
    inventory: &Inventory,
    (gone, alive): (usize, usize),
    out: &mut impl Write,
) -> Result<(), CliError> {
    for what in &inventory.nameless {
        writeln!(out, "{what}: kept, because it names no container")?;
    }
    let did = if args.dry_run {
        "would be removed"
    } else {
        "removed"
    };
    writeln!(
        out,
        "network {}: {gone} attachments {did}, {alive} kept",
        network.name
    )?;
    Ok(())
}

/// The network that is meant, and whether its plugins had to be guessed.
fn network(args: &GcArgs) -> Result<(Network, bool), CliError> {
    let bin_dir = bin_dir(args)?;
    if let Some(conf) = &args.conf {
        let text = fs::read(conf).map_err(file("read", conf))?;
        return Ok((Network::parse(conf, &text, &bin_dir)?, false));
    }
    let name = args.network.as_deref().unwrap_or_default();
    let name = NetworkName::try_from(name)
        .map_err(|error| Error::new(Code::InvalidConfig, format!("--network: {error}")))?;
    by_name(args, &name, &bin_dir)
}

/// A network without a configuration.
fn by_name(args: &GcArgs, name: &NetworkName, bin_dir: &Path) -> Result<(Network, bool), CliError> {
    let remembered = cache::read(&args.cache_dir, name)
        .into_iter()
        .filter_map(|cached| Some((cached.config?, cached.path)));
    for (text, path) in remembered {
        if let Ok(network) = Network::parse(&path, &text, bin_dir)
            && network.name == *name
        {
            return Ok((network, false));
        }
    }
    let path = Path::new("--network");
    Ok((Network::parse(path, &by_default(name), bin_dir)?, true))
}

/// A list of every plugin that keeps something on the host, each with its defaults: enough for DEL, which finds things by
/// their owner.
fn by_default(network: &NetworkName) -> Vec<u8> {
    let list = json!({
        "cniVersion": SpecVersion::LATEST,
        "name": network.as_str(),
        "plugins": [
            {"type": "bridge", "ipam": {"type": "host-local"}},
            {"type": "portmap"},
            {"type": "firewall"},
            {"type": "bandwidth"},
            {"type": "tuning"},
        ],
    });
    list.to_string().into_bytes()
}

/// Where plugins delegate to: the directory that this binary was installed in.
fn bin_dir(args: &GcArgs) -> Result<PathBuf, CliError> {
    if let Some(dir) = &args.bin_dir {
        return Ok(dir.clone());
    }
    directories::own_bin_dir().map_err(file("read", Path::new("/proc/self/exe")))
}

impl Evidence {
    /// What is left of the attachment, in words.
    fn listed(&self) -> Vec<String> {
        let addresses = self.addresses.iter();
        addresses
            .map(|address| format!("address {address}"))
            .chain(self.rules.iter().cloned())
            .collect()
    }
}

fn plugins(network: &Network) -> String {
    let ours = network.members.iter().rev().filter_map(|it| it.built_in);
    ours.map(|built_in| built_in.name)
        .collect::<Vec<_>>()
        .join(", ")
}

/// Collects what is known. Rules and addresses come first, interfaces and namespaces later ([`judge`]): ADD makes
/// them in another order, so that what is half done now looks alive.
fn inventory(network: &Network, cache_dir: &Path) -> Result<Inventory, CliError> {
    let mut inventory = Inventory {
        attachments: BTreeMap::new(),
        reclaim: true,
        all_have_addresses: false,
        nameless: Vec::new(),
    };
    let rules = rules(network)?;
    for member in &network.members {
        if let Some(held) = ipam::store_state(&member.request)? {
            inventory.all_have_addresses = true;
            inventory.add_addresses(held);
        }
    }
    for cached in cache::read(cache_dir, &network.name) {
        let evidence = inventory.attachments.entry(cached.id.clone()).or_default();
        evidence.cached = Some(cached);
    }
    for (owner, what) in rules {
        inventory.add_rule(network, &owner, what);
    }
    Ok(inventory)
}

impl Inventory {
    fn add_addresses(&mut self, held: ::ipam::StoreState) {
        self.reclaim &= held.reclaim;
        let dead: BTreeSet<_> = held.dead.into_iter().collect();
        for lease in held.leases {
            let dead = lease
                .owner
                .as_ref()
                .is_some_and(|owner| dead.contains(owner));
            let id = lease.owner.as_ref().and_then(|owner| {
                Some(AttachmentId {
                    container: owner.container.as_str().try_into().ok()?,
                    ifname: owner.ifname.as_deref()?.try_into().ok()?,
                })
            });
            let Some(id) = id else {
                let addresses = lease.addresses.iter();
                self.nameless
                    .extend(addresses.map(|address| format!("address {address}")));
                continue;
            };
            let evidence = self.attachments.entry(id).or_default();
            evidence.addresses.extend(lease.addresses);
            evidence.dead_in_ipam |= dead;
        }
    }

    fn add_rule(&mut self, network: &Network, text: &str, what: String) {
        let spelt = Owner::parse(text).filter(|owner| owner.network == network.name);
        if let Some(owner) = spelt {
            let id = AttachmentId {
                container: owner.container,
                ifname: owner.ifname,
            };
            self.attachments.entry(id).or_default().rules.push(what);
            return;
        }
        // One that is cut, or has an interface's name that iptables would not take.
        let is_whose = |id: &AttachmentId| Owners::one(&Owner::new(&network.name, id)).has(text);
        match self.attachments.iter_mut().find(|(id, _)| is_whose(id)) {
            Some((_, evidence)) => evidence.rules.push(what),
            None => self.nameless.push(what),
        }
    }
}

/// What masquerade, portmap and firewall keep: the text of its owner, and what it is in words.
fn rules(network: &Network) -> Result<Vec<(String, String)>, Error> {
    let masquerade = masquerade::list(&network.name)?.into_iter();
    let portmap = portmap::list(&network.name)?.into_iter();
    let firewall = firewall::list(&network.name)?.into_iter();
    Ok(masquerade
        .map(|kept| (kept.owner, kept.what))
        .chain(portmap.map(|kept| (kept.owner, format!("port mapping {}", kept.what))))
        .chain(firewall.map(|kept| (kept.owner, kept.what)))
        .collect())
}

fn judge(
    host: &Rtnl,
    network: &Network,
    id: &AttachmentId,
    evidence: &Evidence,
    inventory: &Inventory,
) -> Result<Verdict, Error> {
    if stands(host, &Owner::new(&network.name, id), evidence)? {
        return Ok(Verdict::Alive);
    }
    if evidence.dead_in_ipam {
        return Ok(Verdict::Gone(
            "its network namespace is gone, or the machine was started since".into(),
        ));
    }
    if !inventory.reclaim && !evidence.addresses.is_empty() {
        return Ok(Verdict::Alive);
    }
    let Some(cached) = &evidence.cached else {
        let only_rules = inventory.all_have_addresses && evidence.addresses.is_empty();
        return Ok(match only_rules {
            true => Verdict::Gone("nothing but rules is left of it".into()),
            false => Verdict::Unknown,
        });
    };
    if cached.netns.is_empty() {
        return Ok(Verdict::Unknown);
    }
    Ok(match cached.netns.iter().all(|path| is_gone(path)) {
        true => {
            let paths: Vec<_> = cached
                .netns
                .iter()
                .map(|it| it.display().to_string())
                .collect();
            Verdict::Gone(format!(
                "there is no network namespace {}",
                paths.join(", ")
            ))
        }
        false => Verdict::Alive,
    })
}

/// Whether an interface of the attachment stands on the host. A veth goes with the namespace of its other end.
fn stands(host: &Rtnl, owner: &Owner, evidence: &Evidence) -> Result<bool, Error> {
    if veth::find(host, owner)?.is_some() {
        return Ok(true);
    }
    let names = evidence.cached.iter().flat_map(|it| &it.host_interfaces);
    for name in names {
        // Another kind is a bridge, which stays for others.
        if let Some(link) = host.link_by_name(name)?
            && link.kind.as_deref() == Some("veth")
            && link.alias.is_none_or(|alias| alias == owner.alias())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether there is certainly no network namespace at a path.
fn is_gone(path: &Path) -> bool {
    matches!(
        NetNs::open(path),
        Err(HostError::NetNsMissing { .. } | HostError::NotANetNs { .. })
    )
}

/// DEL of every plugin of the list, last one first. Carries on after an error.
fn remove(
    network: &Network,
    id: &AttachmentId,
    evidence: &Evidence,
    errors: &mut Vec<Error>,
    out: &mut impl Write,
) -> Result<(), CliError> {
    let attachment = Attachment {
        container: id.container.clone(),
        ifname: id.ifname.clone(),
        netns: None,
        args: CniArgs::default(),
        netns_override: false,
    };
    let before = errors.len();
    for member in network.members.iter().rev() {
        let Some(built_in) = member.built_in else {
            continue;
        };
        let request = Request {
            prev_result: evidence.cached.as_ref().and_then(|it| it.result.clone()),
            ..member.request.clone()
        };
        let called = dispatch::call(built_in.plugin, &request, &Call::Del(attachment.clone()));
        errors.extend(called.err());
    }
    let did = if errors.len() == before {
        "removed"
    } else {
        "tried to remove"
    };
    if errors.len() == before {
        // As libcni after its DEL of a list. Left there, the next call would find the attachment once more.
        if let Some(cached) = &evidence.cached {
            fs::remove_file(&cached.path)
                .or_else(|error| match error.kind() {
                    ErrorKind::NotFound => Ok(()),
                    _ => Err(error),
                })
                .map_err(file("remove", &cached.path))?;
        }
    }
    for line in evidence.listed() {
        writeln!(out, "  {did} {line}")?;
    }
    writeln!(out, "  called DEL of {}", plugins(network))?;
    Ok(())
}
