//! What there is to draw of a node.

use std::collections::BTreeSet;

use super::checks;
use super::report::{Finding, fullness};
use super::state::Kept;
use super::survey::{Attached, Survey, View};
use crate::host::rtnl::Link;
use crate::owner::Owner;

/// A node as a picture shows it.
pub(crate) struct Topology {
    pub(crate) node: String,
    pub(crate) uplinks: Vec<Uplink>,
    pub(crate) networks: Vec<Net>,
    /// Routes to containers of other nodes, in words.
    pub(crate) beyond: Vec<String>,
    /// Findings of no network in particular.
    pub(crate) findings: Vec<Finding>,
}

/// A way out.
pub(crate) struct Uplink {
    pub(crate) name: String,
    pub(crate) facts: Vec<String>,
}

/// A network.
pub(crate) struct Net {
    pub(crate) name: String,
    /// The bridge, or that there is none.
    pub(crate) middle: String,
    pub(crate) facts: Vec<String>,
    pub(crate) containers: Vec<Container>,
    pub(crate) findings: Vec<Finding>,
}

/// An attachment.
pub(crate) struct Container {
    pub(crate) name: String,
    pub(crate) ifname: String,
    pub(crate) end: String,
    pub(crate) addresses: Vec<String>,
    /// Host ports that lead to it.
    pub(crate) ports: Vec<String>,
    pub(crate) lives: bool,
}

/// Looks at a survey as something to draw.
pub(crate) fn of(survey: &Survey) -> Topology {
    let report = checks::run(survey);
    let kept = Kept::look(survey);
    let node = nix::sys::utsname::uname().map(|it| it.nodename().to_string_lossy().into_owned());
    let findings = |name: Option<&str>| -> Vec<Finding> {
        let of = |it: &&Finding| it.network.as_deref() == name;
        report.findings.iter().filter(of).cloned().collect()
    };
    let networks = survey.networks.iter().map(|network| Net {
        name: network.name.to_string(),
        middle: middle(network),
        facts: facts(survey, network),
        containers: survey
            .of(&network.name)
            .map(|(owner, it)| container(survey, &kept, owner, it))
            .collect(),
        findings: findings(Some(network.name.as_str())),
    });
    Topology {
        node: node.unwrap_or_default(),
        uplinks: uplinks(survey),
        networks: networks.collect(),
        beyond: beyond(survey),
        findings: findings(None),
    }
}

fn middle(network: &View) -> String {
    match network.bridge() {
        Some(name) => format!("bridge {name}"),
        None => network.plugins.first().cloned().unwrap_or_default(),
    }
}

fn facts(survey: &Survey, network: &View) -> Vec<String> {
    let mut facts = Vec::new();
    if let Some((kernel, link)) = survey
        .kernel
        .as_ref()
        .ok()
        .and_then(|it| Some((it, it.named(network.bridge()?)?)))
    {
        let own = kernel.addresses_of(link.index).map(|it| it.net);
        let global = own.filter(|net| !is_link_local(net));
        facts.extend(global.map(|net| net.to_string()));
        facts.push(format!("mtu {}", link.mtu));
    }
    facts.extend(
        network
            .pools
            .iter()
            .map(|pool| format!("pool {}", fullness(pool.used, pool.total))),
    );
    facts.push(
        if network.conf.ip_masq {
            "masqueraded"
        } else {
            "not masqueraded"
        }
        .to_owned(),
    );
    facts
}

fn is_link_local(net: &ipnet::IpNet) -> bool {
    matches!(net, ipnet::IpNet::V6(net) if net.addr().segments()[0] & 0xffc0 == 0xfe80)
}

fn container(survey: &Survey, kept: &Kept, owner: &Owner, attached: &Attached) -> Container {
    let pod = attached
        .cached
        .as_ref()
        .and_then(|it| it.arg("K8S_POD_NAME"));
    let short = owner.container.as_str();
    let end = survey
        .kernel
        .as_ref()
        .ok()
        .and_then(|it| it.link(attached.end?));
    let ports = kept.of(owner).into_iter();
    Container {
        name: pod.unwrap_or(&short[..short.len().min(12)]).to_owned(),
        ifname: owner.ifname.to_string(),
        end: end.map(|link: &Link| link.name.clone()).unwrap_or_default(),
        addresses: attached
            .addresses()
            .iter()
            .map(ToString::to_string)
            .collect(),
        ports: ports
            .filter_map(|rule| rule.strip_prefix("portmap: ").map(str::to_owned))
            .collect(),
        lives: attached.lives(),
    }
}

fn uplinks(survey: &Survey) -> Vec<Uplink> {
    let Ok(kernel) = &survey.kernel else {
        return Vec::new();
    };
    let indices: BTreeSet<u32> = [false, true]
        .into_iter()
        .flat_map(|v6| kernel.defaults(v6))
        .filter_map(|route| route.oif)
        .collect();
    let links = indices.iter().filter_map(|index| kernel.link(*index));
    links
        .map(|link| {
            let own = kernel.addresses_of(link.index).map(|it| it.net);
            let mut facts: Vec<String> = own
                .filter(|net| !is_link_local(net))
                .map(|net| net.to_string())
                .collect();
            let routes = [false, true].into_iter().flat_map(|v6| kernel.defaults(v6));
            let gateways = routes
                .filter(|route| route.oif == Some(link.index))
                .filter_map(|it| it.gateway);
            facts.extend(gateways.map(|gateway| format!("default via {gateway}")));
            facts.push(format!("mtu {}", link.mtu));
            Uplink {
                name: link.name.clone(),
                facts,
            }
        })
        .collect()
}

fn beyond(survey: &Survey) -> Vec<String> {
    let Ok(kernel) = &survey.kernel else {
        return Vec::new();
    };
    let routes = kernel.routes.iter().filter(|route| {
        let mut own = survey.networks.iter().flat_map(|network| &network.subnets);
        own.any(|own| checks::is_between_nodes(route, *own))
    });
    routes
        .map(|route| {
            let gateway = route
                .gateway
                .map(|it| format!(" via {it}"))
                .unwrap_or_default();
            let link = route
                .oif
                .map(|it| format!(" dev {}", kernel.name(it)))
                .unwrap_or_default();
            format!("{}{gateway}{link}", route.dst)
        })
        .collect()
}
