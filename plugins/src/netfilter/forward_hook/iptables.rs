//! Reading the filter table that `iptables -S` prints.

use std::net::IpAddr;

use ipnet::IpNet;

use super::verdict::{Condition, Fit, Packet, Rule, Ruleset, Target, interface_fits};
use crate::host::HostError;
use crate::host::iptables;
use crate::netfilter::iptables::Listing;

/// Which of the two kernels' sides is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flavour {
    Nft,
    Legacy,
}

/// The filter table for the family of `address`.
pub(super) fn read(address: IpAddr, flavour: Flavour) -> Result<Ruleset, HostError> {
    let purpose = "look at the filter rules for forwarded packets";
    let v6 = address.is_ipv6();
    let program = match flavour {
        Flavour::Nft => iptables::command(v6),
        Flavour::Legacy => iptables::legacy_command(v6),
    };
    Ok(parse(&program.run(
        purpose,
        ["-w", "10", "-t", "filter", "-S"],
        "",
    )?))
}

/// The rules in the format of `iptables -S`.
fn parse(listing: &str) -> Ruleset {
    let listing = Listing::parse(listing);
    let mut rules = Ruleset {
        dropping: listing.dropping,
        ..Ruleset::default()
    };
    for chain in listing.chains {
        rules.chains.entry(chain).or_default();
    }
    for (chain, words) in listing.rules {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        rules.chains.entry(chain).or_default().push(rule(&words));
    }
    rules
}

fn rule(mut words: &[&str]) -> Rule {
    let mut rule = Rule {
        conditions: Vec::new(),
        target: Target::Next,
    };
    while let [first, rest @ ..] = words {
        let negated = *first == "!";
        let (option, rest) = match rest {
            [option, rest @ ..] if negated => (*option, rest),
            _ => (*first, rest),
        };
        // All arguments up to the next option, or the `!` before it.
        let count = rest
            .iter()
            .take_while(|word| !word.starts_with('-') && **word != "!")
            .count();
        let (arguments, rest) = rest.split_at(count);
        words = rest;
        match option {
            "-j" | "-g" => rule.target = target(option == "-g", arguments.first().copied()),
            "-m" | "--comment" | "--reject-with" | "-c" => {}
            _ => rule.conditions.push(condition(option, negated, arguments)),
        }
    }
    rule
}

fn target(goto: bool, name: Option<&str>) -> Target {
    match name {
        Some("ACCEPT") => Target::Accept,
        Some("DROP" | "REJECT") => Target::Drop,
        Some("RETURN") => Target::Return,
        // Extensions that decide nothing are written in capitals like chains, so they are told apart by
        // name; a chain of the same name can't exist.
        Some("LOG" | "NFLOG" | "MARK" | "CONNMARK" | "TCPMSS" | "CT" | "CLASSIFY" | "ULOG")
        | None => Target::Next,
        Some(chain) if goto => Target::Goto(chain.to_owned()),
        Some(chain) => Target::Jump(chain.to_owned()),
    }
}

fn condition(option: &str, negated: bool, arguments: &[&str]) -> Condition {
    let argument = arguments.first().copied().unwrap_or_default().to_owned();
    let fit: Condition = match option {
        "-i" => Box::new(move |packet: &Packet<'_>| interface_fits(packet.iif, &argument)),
        "-o" => Box::new(move |packet: &Packet<'_>| interface_fits(packet.oif, &argument)),
        "-s" => Box::new(move |packet: &Packet<'_>| address_fits(packet.source, &argument)),
        "-d" => Box::new(move |packet: &Packet<'_>| address_fits(packet.destination, &argument)),
        "--ctstate" | "--state" => Box::new(move |packet: &Packet<'_>| {
            argument
                .split(',')
                .any(|state| state.eq_ignore_ascii_case(packet.state))
                .into()
        }),
        // A packet comes without a mark.
        "--mark" => Box::new(move |_: &Packet<'_>| mark_is_zero(&argument)),
        _ => Box::new(|_: &Packet<'_>| Fit::Unknown),
    };
    Box::new(move |packet| fit(packet).negated_if(negated))
}

fn address_fits(address: IpAddr, prefix: &str) -> Fit {
    match prefix
        .parse::<IpNet>()
        .or_else(|_| prefix.parse::<IpAddr>().map(IpNet::from))
    {
        Ok(prefix) => prefix.contains(&address).into(),
        Err(_) => Fit::Unknown,
    }
}

/// Whether 0 is the mark that `value/mask` asks for.
fn mark_is_zero(argument: &str) -> Fit {
    let value = argument.split('/').next().unwrap_or_default();
    let number = value.strip_prefix("0x").map_or_else(
        || value.parse::<u32>().ok(),
        |digits| u32::from_str_radix(digits, 16).ok(),
    );
    number.map_or(Fit::Unknown, |number| (number == 0).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = "\
-P INPUT ACCEPT
-P FORWARD DROP
-P OUTPUT ACCEPT
-N DOCKER
-N DOCKER-ISOLATION-STAGE-1
-N DOCKER-ISOLATION-STAGE-2
-N DOCKER-USER
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A FORWARD -o docker0 -j DOCKER
-A FORWARD -i docker0 ! -o docker0 -j ACCEPT
-A FORWARD -i docker0 -o docker0 -j ACCEPT
-A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
-A DOCKER-ISOLATION-STAGE-1 -j RETURN
-A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
-A DOCKER-ISOLATION-STAGE-2 -j RETURN
-A DOCKER-USER -j RETURN
";

    const KUBE: &str = "\
-N KUBE-FORWARD
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name ct_state_invalid -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
";

    fn stopped(listing: &str, bridge: &str, outbound: bool) -> bool {
        let path = super::super::Path {
            behind: super::super::Behind::Link(bridge),
            address: "10.1.0.5".parse().unwrap(),
            uplink: Some("eth0"),
        };
        parse(listing).surely_drops("FORWARD", &super::super::packet(&path, outbound))
    }

    #[test]
    fn docker_lets_its_own_bridge_through_and_no_other() {
        assert!(stopped(DOCKER, "cni0", true));
        assert!(stopped(DOCKER, "cni0", false));
        assert!(!stopped(DOCKER, "docker0", true));
        assert!(!stopped(DOCKER, "docker0", false));
    }

    #[test]
    fn kube_proxy_lets_answers_through_but_not_first_packets() {
        let both = format!("{DOCKER}{KUBE}");
        assert!(stopped(&both, "cni0", true));
        assert!(!stopped(&both, "cni0", false));
    }

    #[test]
    fn rules_for_bridge_subnet_or_address_are_a_way_through() {
        for rule in [
            "-A FORWARD -i cni0 -j ACCEPT",
            "-A FORWARD -i cni+ -j ACCEPT",
            "-A FORWARD -s 10.1.0.0/24 -j ACCEPT",
            "-A FORWARD -s 10.1.0.5/32 -j ACCEPT",
            "-A FORWARD ! -i eth9 -m conntrack --ctstate NEW -j ACCEPT",
            "-A DOCKER-USER -j ACCEPT",
            "-A FORWARD -m something --odd thing -j ACCEPT",
        ] {
            let mut listing: Vec<&str> = DOCKER.lines().collect();
            let place = listing
                .iter()
                .position(|line| line.starts_with("-A"))
                .unwrap();
            listing.insert(place, rule);
            assert!(!stopped(&listing.join("\n"), "cni0", true), "{rule}");
        }
    }

    #[test]
    fn a_rule_that_drops_everything_first_leaves_no_way() {
        let listing = "-P FORWARD DROP\n-A FORWARD -j DROP\n-A FORWARD -i cni0 -j ACCEPT\n";
        assert!(stopped(listing, "cni0", true));
        let listing = "-P FORWARD DROP\n-A FORWARD -p tcp -j DROP\n-A FORWARD -i cni0 -j ACCEPT\n";
        assert!(!stopped(listing, "cni0", true));
    }

    #[test]
    fn chains_in_a_circle_and_missing_chains_end() {
        let circle = "-P FORWARD DROP\n-N A\n-A FORWARD -j A\n-A A -j A\n";
        assert!(!stopped(circle, "cni0", true));
        assert!(!stopped("-P FORWARD DROP\n-A FORWARD -j B\n", "cni0", true));
    }
}
