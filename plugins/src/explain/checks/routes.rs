//! Ways to containers and to other machines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::explain::kernel::{Kernel, sysctl};
use crate::explain::network_conf::Main;
use crate::explain::report::Finding;
use crate::explain::survey::{Attached, Observed, Survey, View};
use crate::host::rtnl::{Link, Route};
use crate::host::{Rtnl, Sysctl};
use crate::owner::Owner;

/// The interface that an attachment's packets come in by.
fn entrance<'a>(network: &View, attached: &Attached, kernel: &'a Kernel) -> Option<&'a Link> {
    let end = kernel.link(attached.end?)?;
    let vlan = network.conf.vlan;
    match &network.main {
        Main::Bridge(name) if vlan > 0 => kernel.named(&format!("{name}.{vlan}")),
        Main::Bridge(name) => kernel.named(name),
        Main::Ptp => Some(end),
        Main::Other => None,
    }
}

/// Addresses of living containers to which the host has another way than the one they came by, or none: with the
/// interface they came by and the way.
type Misrouted<'a> = Vec<(&'a Owner, IpAddr, &'a Link, Option<u32>)>;

fn misrouted<'a>(
    survey: &'a Survey,
    network: &'a View,
    kernel: &'a Kernel,
) -> Observed<Misrouted<'a>> {
    let rtnl = Rtnl::new().map_err(|error| error.to_string())?;
    let mut found = Vec::new();
    let mut asked = BTreeSet::new();
    for (owner, attached) in survey.living(&network.name) {
        let Some(link) = entrance(network, attached, kernel) else {
            continue;
        };
        for net in attached.nets() {
            // On a bridge one address stands for its subnet.
            let what = match network.main {
                Main::Bridge(_) => IpNet::new(net.trunc().addr(), net.prefix_len()).unwrap_or(net),
                _ => net,
            };
            if !asked.insert((link.index, what)) {
                continue;
            }
            let towards = rtnl
                .link_towards(net.addr())
                .map_err(|error| error.to_string())?;
            if towards != Some(link.index) {
                found.push((owner, net.addr(), link, towards));
            }
        }
    }
    Ok(found)
}

pub(super) fn missing(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let mut findings = Vec::new();
    for network in survey.networks.iter().filter(|it| it.is_routed()) {
        let mut lost = misrouted(survey, network, kernel)?;
        lost.retain(|(_, _, link, towards)| towards.is_none() || !is_strict(link));
        if lost.is_empty() {
            continue;
        }
        let evidence = lost.iter().map(|(owner, address, link, towards)| {
            let way = match towards {
                Some(other) => format!("goes to {}", kernel.name(*other)),
                None => "goes nowhere".to_owned(),
            };
            format!(
                "container {}: {address} is behind {}, but what is sent there {way}",
                owner.container, link.name
            )
        });
        let (_, address, link, _) = &lost[0];
        let command = match network.main {
            Main::Ptp => format!("ip route replace {address} dev {}", link.name),
            _ => match gateway_of(survey, network, *address) {
                Some(gateway) => format!("ip address add {gateway} dev {}", link.name),
                None => format!("ip route replace {address} dev {}", link.name),
            },
        };
        findings.push(
            Finding::fail("route-missing", format!("nobody has a way to containers of {}", network.name))
                .of(&network.name)
                .seen_all(evidence)
                .because("the address of the gateway, or the route to the container, has been removed or replaced since ADD")
                .remedy("put it back; the next ADD on a bridge does so too")
                .command(command),
        );
    }
    Ok(findings)
}

/// The gateway's address with the length of the subnet, as the container's result tells it.
fn gateway_of(survey: &Survey, network: &View, address: IpAddr) -> Option<IpNet> {
    let mut results = survey
        .living(&network.name)
        .filter_map(|(_, it)| it.cached.as_ref()?.result.as_ref());
    results.find_map(|result| {
        let ip = result.ips.iter().find(|ip| ip.address.contains(&address))?;
        IpNet::new(ip.gateway?, ip.address.prefix_len()).ok()
    })
}

/// Whether the kernel drops what comes in by a link from a source that it would send elsewhere.
fn is_strict(link: &Link) -> bool {
    let value = |name: &str| {
        let value = sysctl(&Sysctl::ipv4_conf(name, "rp_filter")).ok().flatten();
        value
            .and_then(|value| value.parse::<u8>().ok())
            .unwrap_or(0)
    };
    value("all").max(value(&link.name)) == 1
}

pub(super) fn reverse_path_filter(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let mut findings = Vec::new();
    for network in survey.networks.iter().filter(|it| it.is_routed()) {
        for (owner, address, link, towards) in misrouted(survey, network, kernel)? {
            let Some(other) = towards.filter(|_| address.is_ipv4() && is_strict(link)) else {
                continue;
            };
            findings.push(
                Finding::fail("reverse-path-filter", format!("the host drops what containers of {} send", network.name))
                    .of(&network.name)
                    .seen(format!("container {}: {address} comes in by {}, but the way back leads to {}", owner.container, link.name, kernel.name(other)))
                    .seen(format!("net.ipv4.conf.{}.rp_filter is strict", link.name))
                    .because("the kernel drops packets whose source it would answer by another interface; a route or an address there overlaps the network's subnet")
                    .remedy("remove the other route, or give the network another subnet; loose filtering (2) lets the packets in, but answers still go the other way")
                    .command(format!("ip route get {address}")),
            );
            break;
        }
    }
    Ok(findings)
}

pub(super) fn next_hop(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let failed: BTreeSet<(u32, IpAddr)> = kernel
        .neighbours
        .iter()
        .filter(|neighbour| neighbour.failed)
        .map(|neighbour| (neighbour.link, neighbour.address))
        .collect();
    let concerned = |route: &&Route| {
        let default = route.dst.prefix_len() == 0;
        let beside = survey.networks.iter().any(|network| {
            let mut own = network.subnets.iter();
            own.any(|own| super::masquerade::is_between_nodes(route, *own))
        });
        default || beside
    };
    let mut findings = Vec::new();
    for route in kernel.routes.iter().filter(concerned) {
        let (Some(link), Some(gateway)) = (route.oif.and_then(|it| kernel.link(it)), route.gateway)
        else {
            continue;
        };
        let evidence = match () {
            () if !link.up => format!("{} is down", link.name),
            () if failed.contains(&(link.index, gateway)) => {
                format!(
                    "{gateway} did not answer on {} (ip neigh: FAILED)",
                    link.name
                )
            }
            () => continue,
        };
        let to = match route.dst.prefix_len() {
            0 => "what is beyond this network".to_owned(),
            _ => format!("containers in {}", route.dst),
        };
        findings.push(
            Finding::fail("next-hop-unreachable", format!("there is no way to {to}"))
                .seen(format!("route {} via {gateway} dev {}", route.dst, link.name))
                .seen(evidence)
                .because("the router, or the other node, is off, or on another network than this host believes")
                .remedy("bring it back, or correct the route")
                .command(format!("ping -c 3 {gateway}")),
        );
    }
    Ok(findings)
}

pub(super) fn overlap(survey: &Survey) -> Observed<Vec<Finding>> {
    let mut findings = between_lists(survey);
    let kernel = survey.kernel()?;
    let services = survey.firewall()?.services.as_ref();
    for network in &survey.networks {
        for subnet in &network.subnets {
            findings.extend(with_host(survey, network, *subnet, kernel));
            let inside = services.iter().flat_map(|it| &it.addresses);
            let inside: Vec<String> = inside
                .filter(|address| subnet.contains(*address))
                .map(|address| format!("Service {address}"))
                .collect();
            if !inside.is_empty() {
                findings.push(
                    clash(network, *subnet, "Services of the cluster")
                        .seen_all(inside)
                        .because("pods and Services must have ranges of their own: whichever rule comes first wins"),
                );
            }
        }
    }
    Ok(findings)
}

fn clash(network: &View, subnet: IpNet, with: &str) -> Finding {
    Finding::fail(
        "subnet-overlap",
        format!("the addresses of {} are also those of {with}", network.name),
    )
    .of(&network.name)
    .seen(format!("{}: subnet {subnet}", network.path.display()))
    .remedy("give the network a subnet that nobody else has, and start its containers anew")
}

fn overlaps(one: IpNet, other: IpNet) -> bool {
    one.contains(&other) || other.contains(&one)
}

fn between_lists(survey: &Survey) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, network) in survey.networks.iter().enumerate() {
        for other in &survey.networks[..index] {
            let pairs = network
                .subnets
                .iter()
                .flat_map(|one| other.subnets.iter().map(move |two| (one, two)));
            for (one, two) in pairs.filter(|(one, two)| overlaps(**one, **two)) {
                findings.push(
                    clash(network, *one, &format!("network {}", other.name))
                        .seen(format!("{}: subnet {two}", other.path.display()))
                        .because("both lists give out the same addresses, each without knowing of the other"),
                );
            }
        }
    }
    findings
}

/// Overlaps with what the host itself is connected to, or routes elsewhere.
fn with_host(survey: &Survey, network: &View, subnet: IpNet, kernel: &Kernel) -> Option<Finding> {
    let own = own_links(survey, kernel);
    let is_foreign = |index: u32| !own.contains(&index);
    let mut evidence = Vec::new();
    for address in kernel.addresses.iter().filter(|it| is_foreign(it.link)) {
        // A single address of the subnet is how overlay networks name this node.
        let single = address.net.prefix_len() == address.net.max_prefix_len();
        if !single && overlaps(address.net.trunc(), subnet.trunc()) {
            evidence.push(format!("{} has {}", kernel.name(address.link), address.net));
        }
    }
    for route in &kernel.routes {
        let single = route.dst.prefix_len() == route.dst.max_prefix_len();
        let narrower = !single && subnet.trunc().contains(&route.dst);
        let Some(link) = route.oif.filter(|link| narrower && is_foreign(*link)) else {
            continue;
        };
        let on_link = evidence.iter().any(|it| it.starts_with(kernel.name(link)));
        if !on_link {
            evidence.push(format!(
                "route {} leads to {}",
                route.dst,
                kernel.name(link)
            ));
        }
    }
    if evidence.is_empty() {
        return None;
    }
    Some(
        clash(network, subnet, "a network of this host")
            .seen_all(evidence)
            .because(
                "containers don't reach those machines, or the host does not reach its containers",
            ),
    )
}

/// Links that networks of the lists have their addresses on.
fn own_links(survey: &Survey, kernel: &Kernel) -> BTreeSet<u32> {
    let mut own = BTreeSet::new();
    for network in &survey.networks {
        let name = network.bridge();
        own.extend(
            name.and_then(|name| kernel.named(name))
                .map(|link| link.index),
        );
        let gateway = name.map(|name| format!("{name}.{}", network.conf.vlan));
        own.extend(
            gateway
                .and_then(|name| kernel.named(&name))
                .map(|link| link.index),
        );
    }
    own.extend(survey.attachments.values().filter_map(|it| it.end));
    let loopback = kernel.links.iter().filter(|link| link.loopback);
    own.extend(loopback.map(|link| link.index));
    own
}

pub(super) fn twice(survey: &Survey) -> Observed<Vec<Finding>> {
    let kernel = survey.kernel()?;
    let mut holders: BTreeMap<IpAddr, Vec<String>> = BTreeMap::new();
    for network in &survey.networks {
        for (owner, attached) in survey.living(&network.name) {
            let domain = network.bridge().unwrap_or_default();
            for address in attached.addresses() {
                let holder = format!(
                    "container {} of {} ({})",
                    owner.container, network.name, domain
                );
                holders.entry(address).or_default().push(holder);
            }
        }
    }
    for address in &kernel.addresses {
        if let Some(holders) = holders.get_mut(&address.net.addr()) {
            holders.push(format!("{} of this host", kernel.name(address.link)));
        }
    }
    let twice = holders.into_iter().filter(|(_, who)| who.len() > 1);
    let mut findings: Vec<Finding> = twice
        .map(|(address, who)| {
            Finding::fail("address-twice", format!("{address} is given twice"))
                .seen_all(who)
                .because("two networks or IPAM plugins give out the same addresses, or somebody chose it by hand")
                .remedy("start one of the two anew, after the lists have subnets of their own")
        })
        .collect();
    for address in kernel.addresses.iter().filter(|it| it.is_duplicate()) {
        let name = kernel.name(address.link);
        findings.push(
            Finding::fail(
                "address-twice",
                format!("{} is somebody else's too", address.net.addr()),
            )
            .seen(format!(
                "{name} has {}: duplicate address detection failed",
                address.net
            ))
            .because("another machine answered for it")
            .remedy("give one of the two another address"),
        );
    }
    Ok(findings)
}
