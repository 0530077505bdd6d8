//! What the host's own routes and addresses say about where packets go.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

use super::claims::number;

/// Where packets to an address leave this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the address itself, by the link with this index.
    OnLink(u32),
    /// By a router.
    Behind(IpAddr),
    /// Nowhere.
    None,
}

/// The host's view: its routes, without those that the agent made, and its addresses.
#[derive(Debug, Default)]
pub(crate) struct HostView {
    /// By the length of the prefix; the family is the prefix's.
    routes: BTreeMap<u8, HashMap<IpNet, Way>>,
    addresses: HashMap<IpAddr, u32>,
    /// Destinations that somebody else has a route with a router to.
    foreign: HashSet<IpNet>,
    gateways: HashSet<IpAddr>,
}

impl HostView {
    /// Takes in a route of the main table that the agent did not make. The first one to a destination counts, as the
    /// kernel lists those with the best metric first.
    pub(crate) fn add_route(&mut self, dst: IpNet, gateway: Option<IpAddr>, link: u32) {
        let way = match gateway {
            Some(router) => {
                self.gateways.insert(router);
                self.foreign.insert(dst);
                Way::Behind(router)
            }
            None => Way::OnLink(link),
        };
        let same_length = self.routes.entry(dst.prefix_len()).or_default();
        same_length.entry(dst).or_insert(way);
    }

    /// Takes in an address of the host.
    pub(crate) fn add_address(&mut self, address: IpAddr, link: u32) {
        self.addresses.insert(address, link);
    }

    /// Where packets to an address go, by the longest prefix.
    pub(crate) fn way_to(&self, address: IpAddr) -> Way {
        let host = IpNet::from(address);
        for (length, routes) in self.routes.iter().rev() {
            let prefix = IpNet::new(address, *length).map(|net| net.trunc());
            let (Ok(prefix), true) = (prefix, *length <= host.prefix_len()) else {
                continue;
            };
            if let Some(way) = routes.get(&prefix) {
                return *way;
            }
        }
        Way::None
    }

    /// The link that has an address of the host.
    pub(crate) fn link_of(&self, address: IpAddr) -> Option<u32> {
        self.addresses.get(&address).copied()
    }

    /// The network that an address of the host is in, as its link sees it.
    pub(crate) fn network_of(&self, address: IpAddr) -> Option<IpNet> {
        self.networks().find(|net| net.contains(&address))
    }

    /// Whether somebody else has a route by a router to exactly this destination.
    pub(super) fn has_foreign(&self, dst: IpNet) -> bool {
        self.foreign.contains(&dst)
    }

    /// The networks that the host is on, longest prefixes first. A default route without a router is none.
    pub(super) fn networks(&self) -> impl Iterator<Item = IpNet> {
        let longest_first = self.routes.iter().rev().filter(|(length, _)| **length > 0);
        longest_first.flat_map(|(_, routes)| {
            let on_link = routes
                .iter()
                .filter(|(_, way)| matches!(way, Way::OnLink(_)));
            on_link.map(|(net, _)| *net)
        })
    }

    /// Addresses that no pods may be said to have: the host's own, and those of its routers.
    pub(super) fn precious(&self) -> BTreeSet<(bool, u128)> {
        let own = self.addresses.keys();
        own.chain(&self.gateways).map(|it| number(*it)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_decides() {
        let mut host = HostView::default();
        let router: IpAddr = "192.168.0.254".parse().unwrap();
        host.add_route("0.0.0.0/0".parse().unwrap(), Some(router), 2);
        host.add_route("192.168.0.0/24".parse().unwrap(), None, 2);
        host.add_route("192.168.0.128/25".parse().unwrap(), Some(router), 2);
        host.add_route("fd00::/64".parse().unwrap(), None, 3);
        let way = |text: &str| host.way_to(text.parse().unwrap());
        assert_eq!(way("192.168.0.7"), Way::OnLink(2));
        assert_eq!(way("192.168.0.200"), Way::Behind(router));
        assert_eq!(way("10.0.0.1"), Way::Behind(router));
        assert_eq!(way("fd00::9"), Way::OnLink(3));
        assert_eq!(way("fd01::9"), Way::None);
    }
}
