//! The way of a packet as steps that a person follows.

use std::collections::BTreeMap;

use serde::Serialize;

use super::path::{Direction, Pass, Seen};
use crate::explain::kernel::{Kernel, state};
use crate::host::Rtnl;
use crate::host::conntrack::Tuple;
use crate::host::nft::trace::Decision;
use crate::host::nft::{Nft, Rule, TableRef, Verdict, family_name};
use crate::host::rtnl::{Link, RouteLookup};

/// One step.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Step {
    pub(crate) direction: Direction,
    /// `pod`, `link`, `hook`, `rule`, `policy`, `translation`, `route`, `local` or `leaves`.
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
pub(super) struct Teller<'s> {
    pub(super) kernel: &'s Kernel,
    pub(super) rtnl: Rtnl,
    nft: Nft,
    /// The rules of chains that were listed.
    rules: BTreeMap<(&'static str, String, String), Vec<Rule>>,
}

impl<'s> Teller<'s> {
    pub(super) fn new(kernel: &'s Kernel, rtnl: Rtnl, nft: Nft) -> Self {
        Self {
            kernel,
            rtnl,
            nft,
            rules: BTreeMap::new(),
        }
    }

    pub(super) fn name(&self, index: Option<u32>) -> Option<String> {
        index.map(|index| self.kernel.name(index).to_owned())
    }

    /// The comment of a rule.
    fn comment(&mut self, seen: &Seen, handle: u64) -> Option<String> {
        let event = &seen.event;
        let key = (
            family_name(event.family),
            event.table.clone(),
            event.chain.clone(),
        );
        let nft = &mut self.nft;
        let rules = self.rules.entry(key).or_insert_with(|| {
            let table = TableRef {
                family: event.family,
                name: &event.table,
            };
            nft.rules(table.object(&event.chain)).unwrap_or_default()
        });
        let rule = rules.iter().find(|rule| rule.handle == handle)?;
        rule.comment.clone()
    }

    /// What a port of a bridge or another link is like.
    pub(super) fn link(&self, link: &Link) -> String {
        let up = if link.up { "" } else { " is down" };
        let master = link.master.and_then(|index| self.kernel.link(index));
        match (master, link.port) {
            (Some(bridge), Some(port)) => {
                let hairpin = if port.hairpin { "on" } else { "off" };
                let isolated = if port.isolated { ", isolated" } else { "" };
                format!(
                    "{}{up}, port of {} ({}, hairpin {hairpin}{isolated})",
                    link.name,
                    bridge.name,
                    state(port.state)
                )
            }
            _ => format!("{}{up}, routed", link.name),
        }
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
            true => format!(
                ": {} to {}",
                source(&seen.packet),
                destination(&seen.packet)
            ),
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
        let way = self
            .rtnl
            .look_up_route(&seen.packet, seen.event.iif, seen.event.mark);
        let (text, oif) = match way.ok()? {
            RouteLookup::Out {
                link,
                gateway,
                table,
            } => {
                let table = match table {
                    crate::host::rtnl::TABLE_MAIN => String::new(),
                    other => format!(", by table {other}"),
                };
                let name = self.kernel.name(link).to_owned();
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
