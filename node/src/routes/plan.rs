//! Which routes there should be, from what the nodes announce and where packets leave this host. A pure function.
//!
//! Whoever may write a Node object chooses what is announced there, so nothing is believed that would take traffic away from
//! somebody else: the host's networks, routers and addresses, the subnets and addresses of other nodes, and, where the cluster's
//! prefixes are configured, everything outside of these. Of two nodes with overlapping subnets the older object has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use super::claims::{Claims, number, span};
use super::host::{HostView, Way};
use crate::cluster::Facts;

/// The shortest prefixes that a node's subnet may have where the cluster's prefixes are not configured.
const WIDEST_V4: u8 = 12;
const WIDEST_V6: u8 = 32;

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NextHop {
    pub(crate) via: IpAddr,
    /// The index of the link that it is on.
    pub(crate) link: u32,
}

/// What there should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) routes: BTreeMap<IpNet, NextHop>,
    pub(crate) refusals: Vec<Refusal>,
    /// Nodes that have been given no subnet yet.
    pub(crate) waiting: usize,
    /// What keeps pods from being given addresses of this node's subnets.
    pub(crate) own: Option<Refusal>,
}

/// A subnet without a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) node: String,
    /// The subnet as it is announced.
    pub(crate) subnet: String,
    pub(crate) reason: Reason,
}

/// Why a subnet has no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reason {
    /// It can't be read, or is not one that pods can have.
    NoSubnet,
    /// It is wider than a node's subnet is.
    TooWide,
    /// It is outside of the cluster's prefixes.
    OutsideCluster,
    /// Another node, which is older, has a subnet that it overlaps with.
    Taken { by: String, net: IpNet },
    /// It overlaps with a subnet of this node.
    OwnSubnet(IpNet),
    /// It overlaps with a network that this host is on.
    HostNetwork(IpNet),
    /// An address of this host, of its routers or of another node is in it.
    Contains(IpAddr),
    /// The node has no InternalIP of the subnet's family.
    NoAddress,
    /// The next hop is an address of this host.
    OwnAddress(IpAddr),
    /// The next hop is the address of a pod.
    PodAddress(IpAddr),
    /// The next hop is behind a router, or nowhere.
    NotOnLink(IpAddr, Option<IpAddr>),
    /// Somebody else has made a route to the same subnet.
    ForeignRoute,
    /// The kernel refused it.
    Kernel(String),
}

impl Reason {
    /// The value of the metric's label.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::NoSubnet | Self::TooWide | Self::OutsideCluster => "invalid_subnet",
            Self::Taken { .. } | Self::OwnSubnet(_) => "subnet_taken",
            Self::HostNetwork(_) | Self::Contains(_) => "host_network",
            Self::NoAddress => "no_internal_ip",
            Self::OwnAddress(_) | Self::PodAddress(_) => "invalid_next_hop",
            Self::NotOnLink(..) => "not_on_link",
            Self::ForeignRoute => "foreign_route",
            Self::Kernel(_) => "kernel",
        }
    }

    /// The reason of the event.
    pub(crate) fn event(&self) -> &'static str {
        match self {
            Self::NotOnLink(..) => "NextHopNotOnLink",
            Self::NoAddress => "NodeWithoutInternalIP",
            Self::ForeignRoute => "RouteExists",
            Self::Kernel(_) => "RouteFailed",
            Self::Taken { .. } | Self::OwnSubnet(_) => "PodSubnetTaken",
            _ => "PodSubnetRefused",
        }
    }

    /// What to do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self {
            Self::NotOnLink(..) => {
                "Nodes that are not in one network need an overlay, or routes of the network itself (a cloud's route \
                 controller, BGP): leave them to it with routes off"
            }
            Self::ForeignRoute => {
                "Remove that route, or turn routes off if somebody else is to keep them"
            }
            Self::NoAddress => "Give the kubelet a --node-ip of that family",
            Self::HostNetwork(_) | Self::OutsideCluster | Self::TooWide | Self::NoSubnet => {
                "Give the node another subnet, and the agent the cluster's prefixes with --cluster-cidrs"
            }
            Self::Contains(_) => "Give the node a subnet without addresses of hosts",
            Self::Taken { .. } | Self::OwnSubnet(_) => {
                "Delete the Node object that is wrong; the node registers anew and is given another subnet"
            }
            Self::OwnAddress(_) | Self::PodAddress(_) => {
                "Look at the addresses in the node's status"
            }
            Self::Kernel(_) => "See the agent's log",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSubnet => f.write_str("it is no subnet that pods can have"),
            Self::TooWide => f.write_str("it is wider than a node's subnet"),
            Self::OutsideCluster => f.write_str("it is outside of the cluster's prefixes"),
            Self::Taken { by, net } => write!(f, "node {by}, which is older, has {net}"),
            Self::OwnSubnet(net) => write!(f, "this node has {net}"),
            Self::HostNetwork(net) => write!(f, "this host is on the network {net}"),
            Self::Contains(address) => write!(f, "the address {address} of a host is in it"),
            Self::NoAddress => f.write_str("the node has no InternalIP of that family"),
            Self::OwnAddress(via) => write!(f, "the node's InternalIP {via} is one of this host"),
            Self::PodAddress(via) => write!(f, "the node's InternalIP {via} is a pod's"),
            Self::NotOnLink(via, None) => write!(f, "there is no way to the next hop {via}"),
            Self::NotOnLink(via, Some(router)) => {
                write!(
                    f,
                    "the next hop {via} is not on link but behind the router {router}"
                )
            }
            Self::ForeignRoute => f.write_str("there is a route to it that somebody else made"),
            Self::Kernel(problem) => f.write_str(problem),
        }
    }
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Situation<'a> {
    /// The name of the agent's own node.
    pub(crate) own: &'a str,
    pub(crate) nodes: &'a BTreeMap<String, Facts>,
    pub(crate) host: &'a HostView,
    /// The cluster's prefixes; none if they are not configured.
    pub(crate) cluster: &'a [IpNet],
    /// The agent's routes that are there.
    pub(crate) there: &'a BTreeMap<IpNet, NextHop>,
}

/// Makes the plan.
pub(crate) fn plan(situation: &Situation<'_>) -> Plan {
    let Situation {
        own,
        nodes,
        host,
        cluster,
        there,
    } = *situation;
    let nothing = Facts::default();
    let me = nodes.get(own).unwrap_or(&nothing);
    let mut claims = Claims::default();
    for net in &me.subnets {
        // Two of its own that overlap are one as far as others are concerned.
        let _ = claims.take(*net, own);
    }
    let networks = host.networks().collect();
    let hosts = hosts(nodes, me, host);
    let judge = Judge {
        me,
        host,
        cluster,
        networks,
        hosts,
    };
    let mut plan = Plan {
        own: judge.own(own),
        ..Plan::default()
    };
    let mut others: Vec<_> = nodes.iter().filter(|(name, _)| *name != own).collect();
    others.sort_by_key(|(name, facts)| (facts.since, *name));
    for (name, facts) in &others {
        plan.waiting += usize::from(facts.announces_nothing());
        for text in &facts.garbage {
            plan.refuse(name, text.clone(), Reason::NoSubnet);
        }
        for net in &facts.subnets {
            let taken = judge
                .subnet(*net)
                .and_then(|()| take(&mut claims, *net, name, own));
            if let Err(Reason::OwnSubnet(mine)) = taken
                && facts.since < me.since
            {
                let reason = Reason::Taken {
                    by: (*name).clone(),
                    net: *net,
                };
                plan.own
                    .get_or_insert(Refusal::new(own, mine.to_string(), reason));
            }
            match taken.and_then(|()| judge.next_hop(*net, facts)) {
                Ok(hop) => {
                    plan.routes.insert(*net, hop);
                }
                Err(reason) => {
                    if let (Reason::NoAddress, Some(hop)) = (&reason, there.get(net)) {
                        plan.routes.insert(*net, *hop);
                    }
                    plan.refuse(name, net.to_string(), reason);
                }
            }
        }
    }
    let waiting = others.iter().filter(|(_, facts)| facts.announces_nothing());
    let waiting: BTreeSet<_> = waiting.flat_map(|(_, facts)| &facts.addresses).collect();
    for (net, hop) in there {
        // A node that has said nothing yet of its subnets has not said either that this is none of them.
        if waiting.contains(&hop.via) && judge.subnet(*net).is_ok() && claims.take(*net, "").is_ok()
        {
            plan.routes.insert(*net, *hop);
        }
    }
    plan
}

impl Plan {
    fn refuse(&mut self, node: &str, subnet: String, reason: Reason) {
        self.refusals.push(Refusal::new(node, subnet, reason));
    }
}

impl Refusal {
    pub(crate) fn new(node: &str, subnet: String, reason: Reason) -> Self {
        let node = node.to_owned();
        Self {
            node,
            subnet,
            reason,
        }
    }
}

fn take(claims: &mut Claims, net: IpNet, name: &str, own: &str) -> Result<(), Reason> {
    claims
        .take(net, name)
        .map_err(|(net, holder)| match holder == own {
            true => Reason::OwnSubnet(net),
            false => Reason::Taken {
                by: holder.to_owned(),
                net,
            },
        })
}

/// Addresses that no pod can have. Those that other nodes announce count where they are next hops, or a node could take
/// another one's subnet away by announcing an address in it.
fn hosts(nodes: &BTreeMap<String, Facts>, me: &Facts, host: &HostView) -> BTreeSet<(bool, u128)> {
    let announced = nodes.values().flat_map(|facts| &facts.addresses);
    let on_link = announced.filter(|address| {
        matches!(host.way_to(**address), Way::OnLink(_)) && !is_of_pod(me, **address)
    });
    let mut hosts = host.precious();
    hosts.extend(on_link.map(|address| number(*address)));
    hosts
}

fn is_of_pod(me: &Facts, address: IpAddr) -> bool {
    me.subnets.iter().any(|net| net.contains(&address))
}

struct Judge<'a> {
    me: &'a Facts,
    host: &'a HostView,
    cluster: &'a [IpNet],
    networks: Vec<IpNet>,
    hosts: BTreeSet<(bool, u128)>,
}

impl Judge<'_> {
    /// What is wrong with the own subnets.
    fn own(&self, name: &str) -> Option<Refusal> {
        if let Some(text) = self.me.garbage.first() {
            return Some(Refusal::new(name, text.clone(), Reason::NoSubnet));
        }
        let wrong = |net: &IpNet| {
            let inside = || {
                let mut addresses = self.me.addresses.iter();
                addresses.find(|address| net.contains(*address))
            };
            let shape = self.shape(*net).err();
            shape.or_else(|| inside().map(|address| Reason::Contains(*address)))
        };
        let mut subnets = self.me.subnets.iter();
        subnets.find_map(|net| Some(Refusal::new(name, net.to_string(), wrong(net)?)))
    }

    /// Whether pods of any node can have a subnet.
    fn shape(&self, net: IpNet) -> Result<(), Reason> {
        let first = net.network();
        let odd = match first {
            IpAddr::V4(first) => first.is_link_local() || first.octets()[0] == 0,
            IpAddr::V6(first) => first.is_unicast_link_local() || first.is_unspecified(),
        };
        if net.prefix_len() == 0 || odd || first.is_multicast() || first.is_loopback() {
            return Err(Reason::NoSubnet);
        }
        let widest = match net {
            IpNet::V4(_) => WIDEST_V4,
            IpNet::V6(_) => WIDEST_V6,
        };
        match self.cluster.is_empty() {
            true if net.prefix_len() < widest => Err(Reason::TooWide),
            false if !self.cluster.iter().any(|all| all.contains(&net)) => {
                Err(Reason::OutsideCluster)
            }
            _ => Ok(()),
        }
    }

    /// Whether pods of another node can have a subnet.
    fn subnet(&self, net: IpNet) -> Result<(), Reason> {
        self.shape(net)?;
        // Pods' subnets may be cut out of the hosts' network where the cluster's prefixes say so.
        let clashes = |network: &&IpNet| match self.cluster.is_empty() {
            true => network.contains(&net) || net.contains(*network),
            false => net.contains(*network),
        };
        let own = |network: &&IpNet| !self.me.subnets.iter().any(|mine| mine.contains(*network));
        if let Some(network) = self.networks.iter().filter(own).find(clashes) {
            return Err(Reason::HostNetwork(*network));
        }
        let (family, first, last) = span(net);
        match self.hosts.range((family, first)..=(family, last)).next() {
            Some((_, address)) if !self.is_mine(net) => {
                Err(Reason::Contains(spelt(family, *address)))
            }
            _ => Ok(()),
        }
    }

    /// Whether it overlaps with the own subnets, which is told in other words.
    fn is_mine(&self, net: IpNet) -> bool {
        let mut mine = self.me.subnets.iter();
        mine.any(|own| own.contains(&net) || net.contains(own))
    }

    fn next_hop(&self, net: IpNet, facts: &Facts) -> Result<NextHop, Reason> {
        let same_family = |address: &&IpAddr| address.is_ipv4() == net.addr().is_ipv4();
        let mut refused = Reason::NoAddress;
        for via in facts
            .addresses
            .iter()
            .copied()
            .filter(|it| same_family(&it))
        {
            let reason = match self.host.way_to(via) {
                _ if self.host.link_of(via).is_some() => Reason::OwnAddress(via),
                _ if is_of_pod(self.me, via) || net.contains(&via) => Reason::PodAddress(via),
                Way::OnLink(_) if self.host.has_foreign(net) => Reason::ForeignRoute,
                Way::OnLink(link) => return Ok(NextHop { via, link }),
                Way::Behind(router) => Reason::NotOnLink(via, Some(router)),
                Way::None => Reason::NotOnLink(via, None),
            };
            if refused == Reason::NoAddress {
                refused = reason;
            }
        }
        Err(refused)
    }
}

fn spelt(v6: bool, number: u128) -> IpAddr {
    match (v6, u32::try_from(number)) {
        (false, Ok(number)) => IpAddr::V4(number.into()),
        _ => IpAddr::V6(number.into()),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
