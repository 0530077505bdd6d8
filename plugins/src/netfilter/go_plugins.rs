//! What the Go plugins left of a container that is ours to detach.
//!
//! | plugin     | in nftables                                               | in iptables                                            |
//! |------------|-----------------------------------------------------------|--------------------------------------------------------|
//! | masquerade | rules whose comment begins with hashes of the attachment  | a chain `CNI-HASH`, to which POSTROUTING leads         |
//! | portmap    | rules that have the container's ID as comment             | chains `CNI-DN-HASH`, to which `CNI-HOSTPORT-DNAT` leads by rules that name the container in their comment |
//! | firewall   |                                                           | rules of `CNI-FORWARD` for an address, as the plugin itself finds them; nothing says whose they are |
//!
//! What containers share stays for its own. A comment that was cut, because it was longer than iptables takes, tells
//! nobody's: its rule is left.

use std::net::IpAddr;

use ipnet::IpNet;

use super::iptables::{Version, after};
use crate::host::HostError;
use crate::host::iptables::words;
use crate::host::nft::{Batch, Family, Nft, ObjectRef, TableRef};
use crate::owner::Owner;

/// Which of the Go plugins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plugin {
    /// What `bridge` and `ptp` do for `ipMasq`.
    Masquerade,
    /// `portmap`.
    Portmap,
    /// `firewall`.
    Firewall,
}

/// A container as the Go plugins know it.
#[derive(Debug, Clone, Copy)]
pub struct Container<'a> {
    /// The attachment.
    pub owner: &'a Owner,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
}

/// Tells of the comment or the words of a rule whether it is a container's.
type Matcher<'a, T> = Box<dyn Fn(&T) -> bool + 'a>;

/// Rules of nftables.
struct InNft {
    plugin: Plugin,
    /// The family of their table, which without one has each version of IP.
    family: Option<Family>,
    table: &'static str,
    /// The chains that have them. The first is there whenever the table is.
    chains: &'static [&'static str],
    /// Tells whether a rule with a comment is the container's.
    matcher: for<'a> fn(&Container<'a>) -> Matcher<'a, str>,
}

const IN_NFT: [InNft; 2] = [
    InNft {
        plugin: Plugin::Masquerade,
        family: Some(Family::Inet),
        table: "cni_plugins_masquerade",
        chains: &["masq_checks"],
        matcher: |container| {
            let beginning = masquerade_comment(container.owner);
            Box::new(move |comment| comment.starts_with(&beginning))
        },
    },
    InNft {
        plugin: Plugin::Portmap,
        family: None,
        table: "cni_hostport",
        chains: &["hostports", "hostip_hostports", "masquerading"],
        matcher: |container| {
            let own = container.owner.container.as_str();
            Box::new(move |comment| comment == own)
        },
    },
];

/// Rules of iptables, and the container's chains that they lead to.
struct InIptables {
    plugin: Plugin,
    table: &'static str,
    /// The chain that has them.
    from: &'static str,
    /// The chain without which there are none. One of its own goes along with them.
    known_by: fn(&Container<'_>) -> String,
    /// Tells whether a rule is the container's, given its words.
    matcher: for<'a> fn(&Container<'a>) -> Matcher<'a, [String]>,
    /// What the names of chains begin with that are the containers' own.
    prefix: Option<&'static str>,
}

const IN_IPTABLES: [InIptables; 3] = [
    InIptables {
        plugin: Plugin::Masquerade,
        table: "nat",
        from: "POSTROUTING",
        known_by: |container| masquerade_chain(container.owner),
        matcher: |container| {
            let chain = masquerade_chain(container.owner);
            Box::new(move |rule| rule.contains(&chain))
        },
        prefix: Some("CNI-"),
    },
    InIptables {
        plugin: Plugin::Portmap,
        table: "nat",
        from: HOST_PORTS,
        known_by: |_| HOST_PORTS.to_owned(),
        matcher: |container| {
            let Owner {
                network, container, ..
            } = container.owner;
            let comment = format!("dnat name: \"{network}\" id: \"{container}\"");
            Box::new(move |rule| after(rule, "--comment") == Some(comment.as_str()))
        },
        prefix: Some("CNI-DN-"),
    },
    InIptables {
        plugin: Plugin::Firewall,
        table: "filter",
        from: "CNI-FORWARD",
        known_by: |_| "CNI-FORWARD".to_owned(),
        matcher: |container| {
            let rules = |address: &IpAddr| {
                let host = IpNet::from(*address);
                [
                    format!("-d {host} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
                    format!("-s {host} -j ACCEPT"),
                ]
            };
            let rules: Vec<String> = container.addresses.iter().flat_map(rules).collect();
            Box::new(move |rule| rules.contains(&rule.join(" ")))
        },
        prefix: None,
    },
];

/// The chain of iptables that leads to those of mapped ports.
const HOST_PORTS: &str = "CNI-HOSTPORT-DNAT";

/// The first hexadecimal digits of the text's SHA-512, at most 128: the Go plugins make names of them.
pub fn hash(text: &str, digits: usize) -> String {
    let hash = hmac_sha512::Hash::hash(text.as_bytes());
    let mut hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(digits);
    hex
}

/// The chain of iptables, the same one for all interfaces of a container.
fn masquerade_chain(owner: &Owner) -> String {
    let both = format!("{}{}", owner.network, owner.container);
    format!("CNI-{}", hash(&both, 24))
}

/// What the comment of a rule of nftables begins with.
fn masquerade_comment(owner: &Owner) -> String {
    let attachment = format!("{}:{}", owner.ifname, owner.container);
    let network = hash(owner.network.as_str(), 16);
    format!("{network}-{},", hash(&attachment, 16))
}

/// Removes what a plugin left of a container. Carries on after an error, and gives all.
///
/// Starts no process when netlink tells that iptables has nothing; where that can't be seen, `thorough` asks `iptables`.
pub fn remove(plugin: Plugin, container: &Container<'_>, thorough: bool) -> Vec<HostError> {
    let mut nft = match Nft::open() {
        Ok(nft) => nft,
        Err(error) => return vec![error],
    };
    let mut outcomes = Vec::new();
    for place in IN_NFT.iter().filter(|it| it.plugin == plugin) {
        for table in place.tables() {
            outcomes.push(place.remove(&mut nft, table, container));
        }
    }
    for place in IN_IPTABLES.iter().filter(|it| it.plugin == plugin) {
        for version in Version::ALL {
            outcomes.push(place.remove(&mut nft, version, container, thorough));
        }
    }
    outcomes.into_iter().filter_map(Result::err).collect()
}

/// Whether the Go plugin masquerades the addresses of a container: it has its rule in nftables, or its chain of iptables
/// wherever it has addresses.
///
/// # Errors
/// What the kernel or the program says.
pub fn masquerades(container: &Container<'_>) -> Result<bool, HostError> {
    let mut nft = Nft::open()?;
    for place in IN_NFT.iter().filter(|it| it.plugin == Plugin::Masquerade) {
        let is_its = (place.matcher)(container);
        for (table, chain) in place.tables().into_iter().zip(place.chains) {
            let rules = nft.rules(table.object(chain))?;
            let mut comments = rules.iter().filter_map(|rule| rule.comment.as_deref());
            if comments.any(&is_its) {
                return Ok(true);
            }
        }
    }
    let chain = masquerade_chain(container.owner);
    for version in Version::ALL {
        let purpose = "check what the Go plugin masquerades";
        let concerned = container.addresses.iter().any(|it| version.is_of(*it));
        if concerned && version.rules(&mut nft, &chain, purpose)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the Go plugin maps ports on this host, for any container with IPv4.
///
/// # Errors
/// What the kernel says.
pub fn map_ports(nft: &mut Nft) -> Result<bool, HostError> {
    for (table, chain) in [("nat", HOST_PORTS), ("cni_hostport", "hostports")] {
        if nft.chain(Version::V4.table(table).object(chain))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

impl InNft {
    fn tables(&self) -> Vec<TableRef<'static>> {
        let name = self.table;
        match self.family {
            Some(family) => vec![TableRef { family, name }],
            None => Version::ALL.map(|version| version.table(name)).to_vec(),
        }
    }

    fn remove(
        &self,
        nft: &mut Nft,
        table: TableRef<'_>,
        container: &Container<'_>,
    ) -> Result<(), HostError> {
        if nft.chain(table.object(self.chains[0]))?.is_none() {
            return Ok(());
        }
        let is_its = (self.matcher)(container);
        self.chains
            .iter()
            .try_for_each(|chain| remove_rules(nft, table.object(chain), &is_its))
    }
}

/// How often a removal that another process crossed is tried again.
const ATTEMPTS: u32 = 5;

/// Removes the rules of a chain of nftables whose comments are the container's. Without the chain there are none.
fn remove_rules(
    nft: &mut Nft,
    chain: ObjectRef<'_>,
    is_its: &dyn Fn(&str) -> bool,
) -> Result<(), HostError> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut batch = Batch::new();
        for rule in nft.rules(chain)? {
            if rule.comment.as_deref().is_some_and(is_its) {
                batch.delete_rule(chain, rule.handle);
            }
        }
        if batch.is_empty() {
            return Ok(());
        }
        match nft.commit(batch) {
            // Another process removed one of them; look again which are left.
            Err(error) if error.not_found() && attempt < ATTEMPTS => {}
            outcome => return outcome,
        }
    }
}

impl InIptables {
    fn remove(
        &self,
        nft: &mut Nft,
        version: Version,
        container: &Container<'_>,
        thorough: bool,
    ) -> Result<(), HostError> {
        if self.plugin == Plugin::Firewall
            && !container.addresses.iter().any(|it| version.is_of(*it))
        {
            return Ok(());
        }
        let purpose = "remove what the Go plugins left in iptables";
        let known_by = (self.known_by)(container);
        version.change(purpose, || {
            match version.has_chain_of(nft, self.table, &known_by)? {
                Some(true) if known_by == self.from => {
                    let from = version.table(self.table).object(self.from);
                    if nft.rules(from)?.is_empty() {
                        return Ok(Vec::new());
                    }
                }
                Some(true) => {}
                None if thorough => {}
                Some(false) | None => return Ok(Vec::new()),
            }
            let rules = version.rules_of(nft, self.table, self.from, purpose)?;
            let own = match known_by == self.from {
                true => None,
                false => version
                    .rules_of(nft, self.table, &known_by, purpose)?
                    .map(|_| &known_by),
            };
            let rules = rules.unwrap_or_default();
            Ok(vec![(
                self.table,
                self.removal(&rules, container, own.map(String::as_str)),
            )])
        })
    }

    /// Commands that delete the container's rules, and the chains that they alone lead to; `own` is one that goes in any
    /// case.
    fn removal(
        &self,
        rules: &[String],
        container: &Container<'_>,
        own: Option<&str>,
    ) -> Vec<String> {
        let is_its = (self.matcher)(container);
        let (mut commands, mut chains, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
        chains.extend(own.map(str::to_owned));
        for rule in rules {
            let words = words(rule);
            let target = after(&words, "-j");
            let target =
                target.filter(|it| self.prefix.is_some_and(|prefix| it.starts_with(prefix)));
            let target = target.map(str::to_owned);
            if is_its(&words) {
                commands.push(format!("-D {} {rule}", self.from));
                chains.extend(target);
            } else {
                foreign.extend(target);
            }
        }
        chains.sort();
        chains.dedup();
        chains.retain(|chain| !foreign.contains(chain));
        for chain in chains {
            commands.extend([format!("-F {chain}"), format!("-X {chain}")]);
        }
        commands
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(container: &str) -> Owner {
        Owner {
            network: "net".try_into().unwrap(),
            container: container.try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
        }
    }

    fn removal(
        plugin: Plugin,
        rules: &[&str],
        owner: &Owner,
        address: Option<&str>,
    ) -> Vec<String> {
        let addresses: Vec<IpAddr> = address.map(|it| it.parse().unwrap()).into_iter().collect();
        let addresses = &addresses;
        let container = Container { owner, addresses };
        let place = IN_IPTABLES.iter().find(|it| it.plugin == plugin).unwrap();
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        place.removal(&rules, &container, None)
    }

    #[test]
    fn names_begin_with_the_digits_of_sha_512() {
        // `printf test1234 | sha512sum`
        assert_eq!(hash("test1234", 12), "2bbe0c48b91a");
        assert_eq!(hash("", 128).len(), 128);
        // `printf netpod | sha512sum`, `printf net | sha512sum` and `printf eth0:pod | sha512sum`
        let owner = owner("pod");
        assert_eq!(masquerade_chain(&owner), "CNI-6230a40fd8ffb95b5b30f6b5");
        assert_eq!(
            masquerade_comment(&owner),
            "a4861f4ae9f7d238-a3b640692a85f94b,"
        );
    }

    #[test]
    fn the_jumps_to_a_containers_ports_go_with_its_chain() {
        let jump = |container: &str, protocol: &str, chain: &str| {
            format!(
                r#"-p {protocol} -m comment --comment "dnat name: \"net\" id: \"{container}\"" -m multiport --dports 8080 -j {chain}"#
            )
        };
        let rules = [
            jump("a", "tcp", "CNI-DN-0a"),
            jump("ab", "tcp", "CNI-DN-0b"),
            jump("a", "udp", "CNI-DN-0a"),
        ];
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        let of = |container| removal(Plugin::Portmap, &rules, &owner(container), None);
        let [first, _, last] = [0, 1, 2].map(|i| format!("-D {HOST_PORTS} {}", rules[i]));
        let chain = ["-F CNI-DN-0a", "-X CNI-DN-0a"].map(str::to_owned);
        assert_eq!(of("a"), [&[first, last][..], &chain].concat());
        assert!(of("abc").is_empty());
        // A chain that others use stays.
        let shared = [
            jump("a", "tcp", "CNI-DN-0a"),
            jump("b", "tcp", "CNI-DN-0a"),
            jump("a", "tcp", "ACCEPT"),
        ];
        let shared: Vec<&str> = shared.iter().map(String::as_str).collect();
        let commands = removal(Plugin::Portmap, &shared, &owner("a"), None);
        assert_eq!(commands.len(), 2);
        assert!(commands.iter().all(|command| command.starts_with("-D ")));
    }

    #[test]
    fn only_the_firewalls_rules_for_the_containers_own_addresses_go() {
        let rules = [
            "-m comment --comment \"CNI firewall plugin admin overrides\" -j CNI-ADMIN",
            "-d 10.1.0.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-s 10.1.0.2/32 -j ACCEPT",
            "-s 10.1.0.2/32 -p tcp -j ACCEPT",
            "-s 10.1.0.20/32 -j ACCEPT",
        ];
        let commands = removal(Plugin::Firewall, &rules, &owner("a"), Some("10.1.0.2"));
        let expected = [rules[1], rules[2]].map(|rule| format!("-D CNI-FORWARD {rule}"));
        assert_eq!(commands, expected);
    }

    #[test]
    fn a_masquerading_chain_goes_with_the_rules_that_lead_to_it() {
        let chain = masquerade_chain(&owner("pod"));
        let own = format!("-s 10.1.0.2/32 -m comment --comment \"name\" -j {chain}");
        let rules = [
            own.as_str(),
            "-s 10.1.0.3/32 -j CNI-0123456789abcdef01234567",
        ];
        let commands = removal(Plugin::Masquerade, &rules, &owner("pod"), None);
        let expected = [
            format!("-D POSTROUTING {own}"),
            format!("-F {chain}"),
            format!("-X {chain}"),
        ];
        assert_eq!(commands, expected);
    }
}
