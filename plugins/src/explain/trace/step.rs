//! The way of a packet as steps that a person follows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::links::{Links, port, spelled};
use super::path::{Direction, Pass, Seen};
use crate::host::conntrack::{Flow, Tuple};
use crate::host::nft::trace::{Decision, IcmpError};
use crate::host::nft::{Nft, TableRef, Verdict, family_name};
use crate::host::rtnl::{Behind, RouteLookup, TABLE_MAIN};

/// One step.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    pub(crate) direction: Direction,
    /// `pod`, `link`, `hook`, `port`, `rule`, `policy`, `translation`, `route`, `flow`, `local` or `leaves`.
    pub(crate) kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hook: Option<&'static str>,
    /// Whether the hook is a bridge's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) bridge: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) table: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) chain: Option<String>,
    /// The rule's handle.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) comment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verdict: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) destination: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "in")]
    pub(crate) iif: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", rename = "out")]
    pub(crate) oif: Option<String>,
    /// The step in words.
    pub(crate) text: String,
}

impl Step {
    pub(super) fn new(direction: Direction, kind: &'static str, text: impl Into<String>) -> Self {
        Self {
            direction,
            kind,
            hook: None,
            bridge: false,
            table: None,
            chain: None,
            rule: None,
            comment: None,
            verdict: None,
            source: None,
            destination: None,
            iif: None,
            oif: None,
            text: text.into(),
        }
    }
}

/// `10.1.0.2:4000`, `[fd00::1]:80`, or the address alone where the protocol has no ports.
pub(super) fn end(address: std::net::IpAddr, port: u16, protocol: u8) -> String {
    match protocol {
        6 | 17 => std::net::SocketAddr::new(address, port).to_string(),
        _ => address.to_string(),
    }
}

pub(super) fn source(tuple: &Tuple) -> String {
    end(tuple.source, tuple.source_port, tuple.protocol)
}

pub(super) fn destination(tuple: &Tuple) -> String {
    end(tuple.destination, tuple.destination_port, tuple.protocol)
}

/// What is looked up while steps are told.
pub(super) struct Teller<'l> {
    pub(super) links: &'l Links,
    nft: Nft,
    /// The comments of rules that were looked up.
    comments: BTreeMap<(&'static str, String, u64), Option<String>>,
}

impl<'l> Teller<'l> {
    pub(super) fn new(links: &'l Links, nft: Nft) -> Self {
        Self {
            links,
            nft,
            comments: BTreeMap::new(),
        }
    }

    pub(super) fn name(&self, index: Option<u32>) -> Option<String> {
        index.map(|index| self.links.name(index))
    }

    /// The comment of a rule.
    fn comment(&mut self, seen: &Seen, handle: u64) -> Option<String> {
        let event = &seen.event;
        let family = event.family;
        // Handles are unique in a table.
        let key = (family_name(family), event.table.clone(), handle);
        let nft = &mut self.nft;
        let look = || {
            let name = &event.table;
            let table = TableRef { family, name };
            nft.rule(table.object(&event.chain), handle).ok()??.comment
        };
        self.comments.entry(key).or_insert_with(look).clone()
    }

    /// The steps of a packet's way.
    pub(super) fn tell(&mut self, direction: Direction, pass: &Pass) -> Vec<Step> {
        let mut steps = Vec::new();
        // What the packet was like at the beginning of the hook, by layer.
        let mut before: BTreeMap<bool, Tuple> = BTreeMap::new();
        for (at, seen) in pass.iter().enumerate() {
            match seen.own {
                Some(false) => {
                    before.insert(seen.hook.bridge, seen.packet);
                    let first = !steps.iter().any(|step: &Step| step.kind == "hook");
                    steps.push(self.hook(direction, seen, first));
                    steps.extend(self.port(direction, seen));
                }
                Some(true) => {
                    let before = before.get(&seen.hook.bridge).copied();
                    // A bridge sees what the IP layer has done in between, and has told already.
                    let before = before.filter(|_| !seen.hook.bridge);
                    steps.extend(before.and_then(|it| translation(direction, seen, &it)));
                    if seen.hook.name == "prerouting"
                        && !seen.hook.bridge
                        && is_routed(&pass[at + 1..])
                    {
                        steps.extend(self.route(direction, seen));
                    }
                }
                None => steps.extend(self.decision(direction, seen)),
            }
        }
        steps.extend(self.last(direction, pass));
        steps
    }

    fn hook(&self, direction: Direction, seen: &Seen, first: bool) -> Step {
        let (iif, oif) = (self.name(seen.event.iif), self.name(seen.event.oif));
        let by = |word: &str, name: &Option<String>| {
            name.as_ref()
                .map_or_else(String::new, |name| format!(" {word} {name}"))
        };
        let layer = if seen.hook.bridge { "bridge " } else { "" };
        // What it looks like is told at first; later on, changes are.
        let packet = match first {
            true => {
                let v6 = seen.packet.source.is_ipv6();
                let said = seen
                    .event
                    .error
                    .map(|error| format!(", {}", says(error, v6)));
                let (from, to) = (source(&seen.packet), destination(&seen.packet));
                format!(": {from} to {to}{}", said.unwrap_or_default())
            }
            false => String::new(),
        };
        let text = format!(
            "{layer}{}{}{}{packet}",
            seen.hook.name,
            by("in", &iif),
            by("out", &oif)
        );
        Step {
            hook: Some(seen.hook.name),
            bridge: seen.hook.bridge,
            source: Some(source(&seen.packet)),
            destination: Some(destination(&seen.packet)),
            iif,
            oif,
            ..Step::new(direction, "hook", text)
        }
    }

    /// Where a bridge's forwarding database has the address that a frame goes to.
    fn port(&self, direction: Direction, seen: &Seen) -> Option<Step> {
        if !seen.hook.bridge || !matches!(seen.hook.name, "input" | "forward" | "output") {
            return None;
        }
        let mac = seen.event.mac.filter(|mac| *mac != [0; 6])?;
        let end = self.links.get(seen.event.oif.or(seen.event.iif)?)?;
        let bridge = self.links.bridge(&end)?;
        // Where it knows VLANs, an address is known in one of them, which is not told.
        if bridge
            .bridge
            .is_some_and(|it| it.vlan_filtering == Some(true))
        {
            return None;
        }
        let (name, at) = (&bridge.name, spelled(mac));
        let rtnl = &self.links.rtnl;
        let (text, oif) = match rtnl.find_fdb(bridge.index, mac, None).ok()? {
            Some(Behind::Host) => (format!("{name}: it is for an address of this host"), None),
            Some(Behind::Port(index)) => {
                let link = self.links.get(index)?;
                let text = format!("{name}: {at} is behind {} ({})", link.name, port(&link));
                (text, Some(link.name.clone()))
            }
            None => (
                format!("{name}: {at} is unknown, so it goes to all ports"),
                None,
            ),
        };
        Some(Step {
            bridge: true,
            oif,
            ..Step::new(direction, "port", text)
        })
    }

    /// A rule that applied, or a policy that drops.
    fn decision(&mut self, direction: Direction, seen: &Seen) -> Option<Step> {
        let event = &seen.event;
        let place = format!(
            "{} {} {}",
            family_name(event.family),
            event.table,
            event.chain
        );
        let (rule, verdict) = match &event.what {
            Decision::Rule(rule, verdict) => (Some(*rule), verdict.as_ref().map(words)),
            Decision::Taken(rule) => (Some(*rule), Some("handed to somebody else".to_owned())),
            Decision::End { drops: true } => (None, Some("drop".to_owned())),
            Decision::End { drops: false } => return None,
        };
        let comment = rule.and_then(|rule| self.comment(seen, rule));
        let shown = comment
            .as_ref()
            .map_or_else(String::new, |it| format!(" ({it})"));
        let does = verdict.clone().unwrap_or_else(|| "goes on".to_owned());
        let text = match rule {
            Some(rule) => format!("{place}, rule {rule}{shown}: {does}"),
            None => format!("{place}: its policy drops it"),
        };
        Some(Step {
            hook: Some(seen.hook.name),
            bridge: seen.hook.bridge,
            table: Some(format!("{} {}", family_name(event.family), event.table)),
            chain: Some(event.chain.clone()),
            rule,
            comment,
            verdict,
            ..Step::new(
                direction,
                if rule.is_some() { "rule" } else { "policy" },
                text,
            )
        })
    }

    fn route(&self, direction: Direction, seen: &Seen) -> Option<Step> {
        let to = seen.packet.destination;
        let rtnl = &self.links.rtnl;
        let way = rtnl.look_up_route(&seen.packet, seen.event.iif, seen.event.mark);
        let (text, oif) = match way.ok()? {
            RouteLookup::Out {
                link,
                gateway,
                table,
                ..
            } => {
                let table = match table {
                    TABLE_MAIN => String::new(),
                    other => format!(", by table {other}"),
                };
                let name = self.links.name(link);
                let text = match gateway {
                    Some(gateway) => format!("route to {to}: next hop {gateway} by {name}{table}"),
                    None => format!("route to {to}: a neighbour on {name}{table}"),
                };
                (text, Some(name))
            }
            RouteLookup::Local => (format!("route to {to}: this host itself"), None),
            RouteLookup::Unreachable(_) => return None,
        };
        Some(Step {
            oif,
            ..Step::new(direction, "route", text)
        })
    }

    /// Where it went in the end, if it got through.
    fn last(&self, direction: Direction, pass: &Pass) -> Option<Step> {
        if pass.last()?.own != Some(true) {
            return None;
        }
        let last = exit(pass)?;
        match last.hook.name {
            "postrouting" => {
                let oif = self.name(last.event.oif)?;
                Some(Step {
                    oif: Some(oif.clone()),
                    ..Step::new(direction, "leaves", format!("leaves by {oif}"))
                })
            }
            "input" if !last.hook.bridge => {
                let text = "comes to a program of this host itself";
                Some(Step::new(direction, "local", text))
            }
            _ => None,
        }
    }
}

/// What connection tracking has of the flow, where that differs from what was sent.
pub(super) fn flow(flow: &Flow) -> Option<Step> {
    let (sent, reply) = (&flow.original, &flow.reply);
    let is_translated = (reply.source, reply.destination) != (sent.destination, sent.source)
        || (matches!(sent.protocol, 6 | 17)
            && (reply.source_port, reply.destination_port)
                != (sent.destination_port, sent.source_port));
    let so_far = if flow.replied {
        ""
    } else {
        ", and have not come"
    };
    let text = format!(
        "connection tracking: answers come from {} to {}{so_far}",
        source(reply),
        destination(reply)
    );
    is_translated.then(|| Step {
        source: Some(source(reply)),
        destination: Some(destination(reply)),
        ..Step::new(Direction::There, "flow", text)
    })
}

/// Whether a message of ICMP says that the port is closed (RFC 792, RFC 4443).
pub(super) fn nobody_listens(error: IcmpError, v6: bool) -> bool {
    (error.kind, error.code) == if v6 { (1, 4) } else { (3, 3) }
}

/// What a message of ICMP says of another packet.
pub(super) fn says(error: IcmpError, v6: bool) -> String {
    let (unreachable, late) = if v6 { (1, 3) } else { (3, 11) };
    let what = match (error.kind == unreachable, v6, error.code) {
        _ if error.mtu.is_some() => {
            let mtu = error.mtu.unwrap_or(0);
            return format!("says that it is too large, {mtu} bytes may pass");
        }
        _ if nobody_listens(error, v6) => "says that nobody listens on that port",
        (true, false, 9 | 10 | 13) | (true, true, 1 | 5 | 6) => "says that it is prohibited",
        (true, ..) => "says that it is unreachable",
        _ if error.kind == late => "says that it went round for too long",
        _ => "says that it can't be delivered",
    };
    what.to_owned()
}

/// Where a packet left: the last hook of a bridge that it left by, else the last one at all. With bridge netfilter, the IP
/// layer's postrouting comes behind that of the bridge, and knows the bridge alone.
pub(super) fn exit(pass: &Pass) -> Option<&Seen> {
    let of_bridge =
        |it: &&Seen| it.own == Some(true) && it.hook.bridge && it.hook.name == "postrouting";
    pass.iter().rev().find(of_bridge).or(pass.last())
}

/// Whether the IP layer decides where a packet goes that has been through its prerouting: not if a bridge passes it on.
fn is_routed(rest: &[Seen]) -> bool {
    let mut next = rest.iter().filter(|it| it.own.is_some());
    let next = next.find(|it| !(it.hook.bridge && it.hook.name == "prerouting"));
    match next {
        Some(next) => {
            next.hook.name != "input" && !(next.hook.bridge && next.hook.name == "forward")
        }
        None => !rest.iter().any(|it| it.hook.bridge),
    }
}

fn words(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

fn translation(direction: Direction, seen: &Seen, before: &Tuple) -> Option<Step> {
    let after = &seen.packet;
    let mut changes = Vec::new();
    for (word, old, new) in [
        ("source", source(before), source(after)),
        ("destination", destination(before), destination(after)),
    ] {
        if old != new {
            changes.push(format!("{word} {old} becomes {new}"));
        }
    }
    (!changes.is_empty()).then(|| Step {
        hook: Some(seen.hook.name),
        source: Some(source(after)),
        destination: Some(destination(after)),
        ..Step::new(direction, "translation", changes.join(", "))
    })
}
