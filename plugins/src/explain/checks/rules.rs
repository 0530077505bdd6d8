//! Rules that should be there and are not, and those that should not.

use std::collections::{BTreeMap, BTreeSet};

use cni_conf::dispatch;
use cni_conf::names::NetworkName;
use cni_conf::request::Call;

use super::masquerade::is_ours;
use crate::explain::calls;
use crate::explain::report::{Finding, count};
use crate::explain::survey::{Attached, Observed, Survey, View};
use crate::host::nft::{Family, Nft, TableRef};
use crate::host::{HostError, Sysctl, module};
use crate::netfilter::elements::{self, Set};
use crate::netfilter::iptables::Version;
use crate::netfilter::table::TABLE;
use crate::owner::{Owner, Owners};
use crate::{firewall, portmap};

/// Plugins that keep rules for each attachment.
const WITH_RULES: [&str; 2] = ["portmap", "firewall"];

/// How many containers without rules are looked at one by one.
const LOOKED_AT: usize = 4;

/// Whose rules there are, of a plugin and a network.
fn owners(plugin: &str, network: &NetworkName) -> Observed<BTreeSet<String>> {
    let kept = match plugin {
        "portmap" => portmap::list(network),
        _ => firewall::list(network),
    };
    let kept = kept.map_err(|error| error.to_string())?.into_iter();
    Ok(kept.map(|kept| kept.owner).collect())
}

/// Whether an attachment is among them, in whichever spelling.
fn has(owners: &BTreeSet<String>, owner: &Owner) -> bool {
    let one = Owners::one(owner);
    owners.contains(&owner.comment()) || owners.iter().any(|comment| one.has(comment))
}

/// What is there of a network's rules, by container, is listed at once. What is missing there, and one that is not, are
/// looked at as CHECK does.
pub(super) fn missing(survey: &Survey) -> Observed<Vec<Finding>> {
    let mut findings = Vec::new();
    if !module::is_present("nf_tables") {
        return Err("nf_tables is not loaded, and is not loaded for a look".into());
    }
    for network in &survey.networks {
        for plugin in WITH_RULES.into_iter().filter(|it| network.has_plugin(it)) {
            let owners = owners(plugin, &network.name)?;
            let ours = |(_, attached): &(&Owner, &Attached)| is_ours(survey, attached.end);
            let (with, without): (Vec<_>, Vec<_>) = survey
                .living(&network.name)
                .filter(ours)
                .partition(|(owner, _)| has(&owners, owner));
            let without = without
                .into_iter()
                .filter(|(_, it)| is_concerned(plugin, it));
            let without: Vec<_> = without.collect();
            let suspects = without.iter().take(LOOKED_AT).chain(with.first());
            let wrong: Vec<String> = suspects
                .filter_map(|(owner, attached)| wrong(survey, plugin, owner, attached))
                .collect();
            if !wrong.is_empty() {
                findings.push(told(network, plugin, wrong, without.len()));
            }
        }
    }
    Ok(findings)
}

/// Whether a plugin has anything to do for an attachment.
fn is_concerned(plugin: &str, attached: &Attached) -> bool {
    let mappings = attached
        .cached
        .as_ref()
        .map(|it| &it.capabilities["portMappings"]);
    match plugin {
        "portmap" => mappings
            .and_then(|it| it.as_array())
            .is_some_and(|it| !it.is_empty()),
        _ => !attached.addresses().is_empty(),
    }
}

fn wrong(survey: &Survey, plugin: &str, owner: &Owner, attached: &Attached) -> Option<String> {
    let network = survey.list(&owner.network)?;
    let member = network
        .members
        .iter()
        .find(|it| it.request.plugin.as_str() == plugin)?;
    let (request, attachment) = calls::of(member, owner, attached)?;
    let check = Call::Check(attachment);
    let error = dispatch::call(member.built_in?.plugin, &request, &check).err()?;
    Some(format!("container {}: {}", owner.container, error.msg))
}

fn told(network: &View, plugin: &str, wrong: Vec<String>, without: usize) -> Finding {
    let name = &network.name;
    let what = match plugin {
        "portmap" => format!("host ports of {name} don't lead to their containers"),
        _ => format!("the firewall does not know the containers of {name}"),
    };
    Finding::fail("rules-missing", what)
        .of(name)
        .seen(format!("{} without rules of {plugin}", count(without, "container")))
        .seen_all(wrong)
        .because("somebody has flushed the rules since (nft flush ruleset, iptables -F, systemctl restart nftables)")
        .remedy("put the rules back; the next ADD does so too")
        .command(format!("trestle repair --conf {}", network.path.display()))
}

pub(super) fn foreign(survey: &Survey) -> Observed<Vec<Finding>> {
    let firewall = survey.firewall()?;
    let mut findings = Vec::new();
    findings.extend(of_gone_networks(survey)?);
    let of_go = |table: &str, name: &str| {
        let chain = table == "nat" || table == "filter";
        let masquerade = name.len() == 28 && name.starts_with("CNI-");
        let ports = name.starts_with("CNI-HOSTPORT-") || name.starts_with("CNI-DN-");
        matches!(table, "cni_plugins_masquerade" | "cni_hostport")
            || chain && (masquerade || ports || name == "CNI-FORWARD")
    };
    let chains: Vec<String> = firewall
        .chains
        .iter()
        .filter(|chain| of_go(&chain.table, &chain.name))
        .map(crate::explain::kernel::chain_name)
        .collect();
    // Containers that the Go plugins attached keep their rules until they are gone.
    let theirs = survey
        .attachments
        .values()
        .any(|it| it.lives() && !is_ours(survey, it.end));
    if !chains.is_empty() && !theirs {
        findings.push(
            Finding::warn("rules-foreign", "rules of the Go plugins are left behind")
                .seen(count(chains.len(), "chain"))
                .seen_all(chains)
                .because("containers whose DEL never came, or came to other plugins, left them; none that they were for lives")
                .remedy("look whether anything else here uses the Go plugins; if not, delete the chains"),
        );
    }
    Ok(findings)
}

/// Elements of networks that have no list any more.
fn of_gone_networks(survey: &Survey) -> Observed<Option<Finding>> {
    if !module::is_present("nf_tables") || survey.directories.network.is_some() {
        return Ok(None);
    }
    let lists = survey.lists()?;
    let known: Vec<Owners> = lists
        .iter()
        .filter_map(|file| Some(Owners::all(&file.network.as_ref().ok()?.name)))
        .collect();
    let text = |error: HostError| error.to_string();
    let mut nft = Nft::open().map_err(text)?;
    let mut gone: BTreeMap<String, usize> = BTreeMap::new();
    let sets = nft.sets(TABLE).map_err(text)?;
    // The elements of that one belong to rules, not to attachments.
    for set in sets.into_iter().filter(|set| set != portmap::DIGESTS) {
        for element in elements::list(&mut nft, &Set::own(set)).map_err(text)? {
            let comment = element.comment.unwrap_or_default();
            let network = comment.split('/').next().unwrap_or_default();
            // Some elements are the plugins' own.
            let is_owner = comment.contains('/') && !comment.contains(' ');
            if is_owner && !known.iter().any(|known| known.has(&comment)) {
                *gone.entry(network.to_owned()).or_default() += 1;
            }
        }
    }
    let names: Vec<&str> = gone.keys().map(String::as_str).collect();
    if names.is_empty() {
        return Ok(None);
    }
    Ok(Some(
        Finding::warn(
            "rules-foreign",
            format!("rules of networks without a list: {}", names.join(", ")),
        )
        .seen_all(gone.iter().map(|(name, many)| {
            format!(
                "table inet trestle: {} of network {name}",
                count(*many, "element")
            )
        }))
        .because(format!(
            "{} has no list of that name any more, so nobody calls DEL or GC for it",
            survey.directories.conf_dir.display()
        ))
        .remedy("bring the list back and let the containers end, or collect what is left of them")
        .command("trestle gc --all --dry-run"),
    ))
}

pub(super) fn localhost_open(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let firewall = survey.firewall()?;
    let mut open = Vec::new();
    let names = kernel
        .links
        .iter()
        .filter(|link| link.kind.as_deref() != Some("veth") || link.master.is_none());
    for name in ["all"]
        .into_iter()
        .chain(names.map(|link| link.name.as_str()))
    {
        let setting = Sysctl::ipv4_conf(name, "route_localnet");
        if crate::explain::kernel::sysctl(&setting)?.is_some_and(|value| value == "1") {
            open.push(format!("{setting} is 1"));
        }
    }
    let guarded = firewall.has_chain(Family::IPv4, "filter", "KUBE-FIREWALL") || is_guarded()?;
    if open.is_empty() || guarded {
        return Ok(Vec::new());
    }
    Ok(vec![
        Finding::fail("localhost-open", "neighbours may talk to services that listen on 127.0.0.1 alone")
            .seen_all(open)
            .seen("no rule drops what comes from outside for 127.0.0.0/8")
            .because("route_localnet lets 127.0.0.1 reach containers; the rules that guard it are gone (CVE-2020-8558)")
            .remedy("put the rules back, or switch the setting off")
            .command("trestle repair --all"),
    ])
}

/// Whether rules of ours stand between neighbours and localhost.
fn is_guarded() -> Observed<bool> {
    const COMMENT: &str = "localhost is not for neighbours";
    let text = |error: HostError| error.to_string();
    if !module::is_present("nf_tables") {
        return Ok(false);
    }
    let mut nft = Nft::open().map_err(text)?;
    for chain in nft.chains(Some(TABLE)).map_err(text)? {
        let rules = nft.rules(TABLE.object(&chain.name)).map_err(text)?;
        let guards = rules.iter().filter_map(|rule| rule.comment.as_deref());
        if guards.into_iter().any(|comment| comment.contains(COMMENT)) {
            return Ok(true);
        }
    }
    let raw = TableRef {
        family: Family::IPv4,
        name: "raw",
    };
    if nft.chain(raw.object("PREROUTING")).map_err(text)?.is_none() {
        return Ok(false);
    }
    let rules = Version::V4
        .raw_prerouting("look for what guards localhost")
        .map_err(text)?;
    Ok(rules.iter().any(|rule| rule.contains(COMMENT)))
}
