//! Addresses that the outside does not know.

use std::collections::BTreeSet;

use ipnet::IpNet;

use crate::attach::masquerade;
use crate::explain::kernel::{Firewall, Kernel};
use crate::explain::network_conf::is_private;
use crate::explain::report::Finding;
use crate::explain::survey::{Observed, Survey, View};
use crate::host::nft::Chain;
use crate::host::rtnl::Route;
use crate::owner::Owners;

/// The number of the hook behind routing (`NF_INET_POST_ROUTING`).
const POSTROUTING: u32 = 4;

pub(super) fn missing(survey: &Survey) -> Observed<Vec<Finding>> {
    let (kernel, firewall) = (survey.kernel()?, survey.firewall()?);
    let mut findings = Vec::new();
    for network in survey.networks.iter().filter(|it| it.is_routed()) {
        if network.conf.ip_masq {
            findings.extend(lost(survey, network)?);
        } else {
            findings.extend(not_asked_for(survey, network, kernel, firewall));
        }
    }
    Ok(findings)
}

/// Containers whose masquerading is gone.
fn lost(survey: &Survey, network: &View) -> Observed<Option<Finding>> {
    let kept = masquerade::list(&network.name).map_err(|error| error.to_string())?;
    let owners: BTreeSet<&str> = kept.iter().map(|kept| kept.owner.as_str()).collect();
    let without: Vec<String> = survey
        .living(&network.name)
        .filter(|(_, attached)| is_ours(survey, attached.end))
        .filter(|(owner, attached)| {
            let one = Owners::one(owner);
            let has = owners.contains(owner.comment().as_str())
                || owners.iter().any(|comment| one.has(comment));
            !attached.addresses().is_empty() && !has
        })
        .map(|(owner, attached)| {
            let addresses: Vec<String> = attached
                .addresses()
                .iter()
                .map(ToString::to_string)
                .collect();
            format!("container {}: {}", owner.container, addresses.join(", "))
        })
        .collect();
    if without.is_empty() {
        return Ok(None);
    }
    let summary = format!(
        "containers of {} leave this host with their own address",
        network.name
    );
    Ok(Some(
        Finding::fail("masquerade-missing", summary)
            .of(&network.name)
            .seen_all(without)
            .because("the list says \"ipMasq\", and somebody has flushed the rules since (nft flush ruleset, iptables -t nat -F)")
            .remedy("put the rules back; the next ADD does so too")
            .command(format!("trestle repair --conf {}", network.path.display())),
    ))
}

/// Whether the end on the host is one of ours: other plugins keep their own rules.
pub(crate) fn is_ours(survey: &Survey, end: Option<u32>) -> bool {
    let kernel = survey.kernel.as_ref().ok();
    let link = end.and_then(|end| kernel?.link(end));
    link.is_some_and(|link| link.alias.is_some())
}

fn not_asked_for(
    survey: &Survey,
    network: &View,
    kernel: &Kernel,
    firewall: &Firewall,
) -> Option<Finding> {
    survey.living(&network.name).next()?;
    let v4 = network.subnets.iter().find(|net| net.addr().is_ipv4())?;
    let uplink = kernel.uplink(false)?;
    let leads_out = network.conf.leads_out(false) || network.bridge().is_none();
    if !leads_out || !is_private(v4.addr()) || others_translate(firewall) {
        return None;
    }
    // A router that has the pods' addresses in its tables tells them by a routing protocol, whose daemon has routes here.
    let learned = kernel
        .routes
        .iter()
        .any(|route| is_between_nodes(route, *v4));
    if learned {
        return None;
    }
    Some(
        Finding::warn("masquerade-missing", format!("nobody outside knows the addresses of {}", network.name))
            .of(&network.name)
            .seen(format!("containers have private addresses ({v4}) and leave by {}", uplink.name))
            .seen("no rule of nftables or iptables translates the source of anything that leaves")
            .because(format!("{} has no \"ipMasq\"", network.path.display()))
            .remedy("add \"ipMasq\": true to the first plugin, or a route to these addresses on the router of this host; new containers get it"),
    )
}

/// Whether somebody else has a chain that may translate sources. Those of kube-proxy do so for Services alone.
fn others_translate(firewall: &Firewall) -> bool {
    let chain = |chain: &Chain| {
        let base = chain.base.as_ref();
        let nat = base.is_some_and(|base| base.kind == "nat" && base.hook == POSTROUTING);
        let known = matches!(chain.table.as_str(), "trestle" | "kube-proxy");
        nat && !known
    };
    // iptables' own chain says nothing; the chains beside it do.
    let native = firewall
        .chains
        .iter()
        .any(|it| chain(it) && it.table != "nat");
    let in_iptables = firewall.chains.iter().any(|it| {
        let kube = it.name.starts_with("KUBE-") || it.name.starts_with("TRESTLE-");
        let built_in = it.base.is_some();
        it.table == "nat" && !kube && !built_in
    });
    let by_rule = firewall
        .chains
        .iter()
        .any(|it| it.table == "nat" && it.name == "POSTROUTING" && it.uses > of_kube(firewall, it));
    native || in_iptables || by_rule || firewall.legacy.iter().any(|it| it.starts_with("nat"))
}

/// How many rules of POSTROUTING lead to chains that are known.
fn of_kube(firewall: &Firewall, postrouting: &Chain) -> u32 {
    let known = |name: &str| {
        firewall
            .chains
            .iter()
            .any(|it| it.family == postrouting.family && it.table == "nat" && it.name == name)
    };
    u32::from(known("KUBE-POSTROUTING"))
}

/// Whether a route leads to the pods of another node, seen from a node with the pods of `own`: a subnet beside it, of the
/// same size, by way of a router.
pub(crate) fn is_between_nodes(route: &Route, own: IpNet) -> bool {
    let length = own.prefix_len();
    let beside = length
        .checked_sub(8)
        .and_then(|length| IpNet::new(own.addr(), length).ok());
    route.gateway.is_some()
        && route.dst.prefix_len() == length
        && route.dst.trunc() != own.trunc()
        && beside.is_some_and(|beside| beside.contains(&route.dst))
}

pub(super) fn between_nodes(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let mut findings = Vec::new();
    for network in survey.networks.iter().filter(|it| it.conf.ip_masq) {
        let spared = network.conf.non_masquerade();
        let forgotten: Vec<&Route> = kernel
            .routes
            .iter()
            .filter(|route| {
                network
                    .subnets
                    .iter()
                    .any(|own| is_between_nodes(route, *own))
            })
            .filter(|route| !spared.iter().any(|net| net.contains(&route.dst)))
            .collect();
        let Some(first) = forgotten.first() else {
            continue;
        };
        let summary = format!(
            "containers of other nodes see this node's address, not those of {}",
            network.name
        );
        findings.push(
            Finding::warn("masquerade-between-nodes", summary)
                .of(&network.name)
                .seen_all(forgotten.iter().map(|route| {
                    let gateway = route.gateway.map(|it| it.to_string()).unwrap_or_default();
                    format!("route {} via {gateway}: masqueraded on its way", route.dst)
                }))
                .because("\"ipMasq\" translates everything that leaves the subnet, save for \"nonMasqueradeCIDRs\"; network policies and logs of the others see the node")
                .remedy(format!("add the pods of the whole cluster to {}, such as \"nonMasqueradeCIDRs\": [\"{}\"]", network.path.display(), first.dst)),
        );
    }
    Ok(findings)
}
