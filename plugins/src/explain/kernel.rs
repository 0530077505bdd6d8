//! What the kernel has in this network namespace.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nix::sys::utsname::uname;

use crate::host::nft::{Chain, Family, Nft, TableRef, family_name};
use crate::host::rtnl::{Address, Link, Neighbour, PortState, Route, RouteFilter};
use crate::host::{HostError, NetNs, Rtnl, Sysctl, module};
use crate::netfilter::iptables::Version;

/// Links, addresses and routes.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) links: Vec<Link>,
    pub(crate) addresses: Vec<Address>,
    /// Of the main table.
    pub(crate) routes: Vec<Route>,
    pub(crate) neighbours: Vec<Neighbour>,
    by_index: BTreeMap<u32, usize>,
    by_name: BTreeMap<String, usize>,
}

impl Kernel {
    /// Lists everything.
    pub(crate) fn look(netns: Option<&NetNs>) -> Result<Self, HostError> {
        let rtnl = match netns {
            Some(netns) => Rtnl::in_netns(netns)?,
            None => Rtnl::new()?,
        };
        let links = rtnl.links()?;
        let index = |key: &dyn Fn(&Link) -> u32| {
            let numbered = links.iter().enumerate();
            numbered.map(|(at, link)| (key(link), at)).collect()
        };
        let names = links.iter().enumerate();
        Ok(Self {
            by_index: index(&|link| link.index),
            by_name: names.map(|(at, link)| (link.name.clone(), at)).collect(),
            addresses: rtnl.all_addresses()?,
            routes: rtnl.routes(&RouteFilter::default())?,
            neighbours: rtnl.neighbours()?,
            links,
        })
    }

    pub(crate) fn link(&self, index: u32) -> Option<&Link> {
        self.by_index.get(&index).map(|at| &self.links[*at])
    }

    pub(crate) fn named(&self, name: &str) -> Option<&Link> {
        self.by_name.get(name).map(|at| &self.links[*at])
    }

    /// The name of a link for a message.
    pub(crate) fn name(&self, index: u32) -> &str {
        self.link(index).map_or("?", |link| &link.name)
    }

    pub(crate) fn ports(&self, bridge: u32) -> impl Iterator<Item = &Link> {
        let mut ports = self.links.iter();
        std::iter::from_fn(move || ports.by_ref().find(|link| link.master == Some(bridge)))
    }

    pub(crate) fn addresses_of(&self, link: u32) -> impl Iterator<Item = &Address> {
        let mut addresses = self.addresses.iter();
        std::iter::from_fn(move || addresses.by_ref().find(|address| address.link == link))
    }

    /// The routes that lead out of this host by default.
    pub(crate) fn defaults(&self, v6: bool) -> impl Iterator<Item = &Route> {
        let of =
            move |route: &&Route| route.dst.prefix_len() == 0 && route.dst.addr().is_ipv6() == v6;
        self.routes.iter().filter(of)
    }

    /// The link of the default route.
    pub(crate) fn uplink(&self, v6: bool) -> Option<&Link> {
        self.defaults(v6).find_map(|route| self.link(route.oif?))
    }
}

/// The release of the running kernel, and the first two numbers of it.
pub(crate) fn release() -> (String, (u32, u32)) {
    let release = uname().map(|uname| uname.release().to_string_lossy().into_owned());
    let release = release.unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.parse().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (release, version)
}

/// The value of a sysctl; none where the kernel has none of that name.
pub(crate) fn sysctl(sysctl: &Sysctl) -> Result<Option<String>, String> {
    match sysctl.read() {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.not_found() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// A port's state in words.
pub(crate) fn state(state: PortState) -> &'static str {
    match state {
        PortState::Disabled => "disabled",
        PortState::Listening => "listening",
        PortState::Learning => "learning",
        PortState::Forwarding => "forwarding",
        PortState::Blocking => "blocking",
    }
}

/// Rules of the firewall, as far as a look at all chains tells.
#[derive(Debug, Default)]
pub(crate) struct Firewall {
    pub(crate) chains: Vec<Chain>,
    /// Tables of the old iptables in this namespace, as `filter` or `nat (ip6)`.
    pub(crate) legacy: Vec<String>,
    /// Who makes rules for Services, and for which addresses.
    pub(crate) services: Option<Services>,
}

/// Rules that translate the addresses of Services.
#[derive(Debug, Default)]
pub(crate) struct Services {
    /// Whose they are: `kube-proxy (nftables)`.
    pub(crate) by: String,
    /// The virtual addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Firewall {
    /// Looks, and loads no module for it.
    pub(crate) fn look() -> Result<Self, String> {
        let legacy = legacy_tables();
        if !module::is_present("nf_tables") {
            return Ok(Self {
                legacy,
                ..Self::default()
            });
        }
        let text = |error: HostError| error.to_string();
        let mut nft = Nft::open().map_err(text)?;
        let chains = nft.chains(None).map_err(text)?;
        let services = services(&mut nft, &chains).map_err(text)?;
        Ok(Self {
            chains,
            legacy,
            services,
        })
    }

    pub(crate) fn has_chain(&self, family: Family, table: &str, begins: &str) -> bool {
        let is = |chain: &Chain| {
            chain.family == family && chain.table == table && chain.name.starts_with(begins)
        };
        self.chains.iter().any(is)
    }
}

/// `ip filter FORWARD`.
pub(crate) fn chain_name(chain: &Chain) -> String {
    format!(
        "{} {} {}",
        family_name(chain.family),
        chain.table,
        chain.name
    )
}

pub(crate) fn legacy_tables() -> Vec<String> {
    let mut tables = Version::V4.legacy_tables();
    let of_v6 = Version::V6.legacy_tables().into_iter();
    tables.extend(of_v6.map(|table| format!("{table} (ip6)")));
    tables
}

fn services(nft: &mut Nft, chains: &[Chain]) -> Result<Option<Services>, HostError> {
    let mut services = Services::default();
    for version in Version::ALL {
        let family = version.nat().family;
        let is = |chain: &&Chain| chain.family == family && chain.table == "kube-proxy";
        if chains.iter().any(|chain| is(&chain)) {
            services.by = "kube-proxy (nftables)".into();
            let table = TableRef {
                family,
                name: "kube-proxy",
            };
            let set = nft.elements(table.object("cluster-ips"));
            let elements = set.unwrap_or_default();
            let addresses = elements.iter().filter_map(|element| element.as_address());
            services.addresses.extend(addresses);
        }
        let of_iptables = |chain: &Chain| {
            (chain.family, chain.table.as_str(), chain.name.as_str())
                == (family, "nat", "KUBE-SERVICES")
        };
        if chains.iter().any(of_iptables) {
            services.by = "kube-proxy (iptables)".into();
            let rules = version.rules(nft, "KUBE-SERVICES", "look at the rules of Services");
            let rules = rules.ok().flatten().unwrap_or_default();
            services
                .addresses
                .extend(rules.iter().filter_map(|rule| destination(rule)));
        }
    }
    services.addresses.sort();
    services.addresses.dedup();
    Ok((!services.by.is_empty()).then_some(services))
}

/// The single address that a rule of iptables is about.
fn destination(rule: &str) -> Option<IpAddr> {
    let mut words = rule.split(' ').skip_while(|word| *word != "-d").skip(1);
    let (address, length) = words.next()?.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { "32" } else { "128" };
    (length == whole).then_some(address)
}
