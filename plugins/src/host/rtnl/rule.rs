//! Rules of policy routing: which table is asked for which packets (ip-rule(8)).

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleHeader, RuleMessage};
use nix::errno::Errno;

use super::super::error::HostError;
use super::exchange::Rtnl;
use super::route::Family;

/// A rule that sends packets to a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutingRule {
    /// The family of the packets.
    pub family: Family,
    /// The packets' source; any if none.
    pub from: Option<IpNet>,
    /// The table that is asked.
    pub table: u32,
    /// Its place among the rules; the lowest comes first.
    pub priority: u32,
}

impl Rtnl {
    /// The rules of both families that send packets to a table, in their order.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn rules(&self) -> Result<Vec<RoutingRule>, HostError> {
        let mut rules = Vec::new();
        for family in [Family::V4, Family::V6] {
            let mut request = RuleMessage::default();
            request.header.family = family.into_netlink();
            match self.dump(&RouteNetlinkMessage::GetRule(request)) {
                Ok(answers) => rules.extend(answers.into_iter().filter_map(|it| rule(it, family))),
                // A kernel without policy routing, or without IPv6.
                Err(refusal)
                    if matches!(
                        refusal.errno(),
                        Some(Errno::EOPNOTSUPP | Errno::EAFNOSUPPORT)
                    ) => {}
                Err(refusal) => return Err(refusal.during("list rules")),
            }
        }
        Ok(rules)
    }

    /// Adds a rule for what one address sends, before those that are there.
    ///
    /// # Errors
    /// [`HostError::already_exists`] when there is one like it; [`HostError::Unsupported`] without policy routing.
    pub fn add_rule(&self, from: IpAddr, table: u32) -> Result<(), HostError> {
        let request = RouteNetlinkMessage::NewRule(message(from, table));
        self.ask(request, NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|refusal| {
                refusal.during_or_unsupported(
                    format!("add rule from {from} lookup {table}"),
                    "The kernel needs policy routing (CONFIG_IP_MULTIPLE_TABLES, CONFIG_IPV6_MULTIPLE_TABLES).",
                )
            })?;
        Ok(())
    }

    /// Deletes a rule for what one address sends. Returns false when there is none.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn delete_rule(&self, from: IpAddr, table: u32) -> Result<bool, HostError> {
        match self.ask(RouteNetlinkMessage::DelRule(message(from, table)), 0) {
            Ok(_) => Ok(true),
            Err(refusal) => match refusal.errno() {
                Some(Errno::ENOENT | Errno::ESRCH) => Ok(false),
                _ => Err(refusal.during(format!("delete rule from {from} lookup {table}"))),
            },
        }
    }
}

fn message(from: IpAddr, table: u32) -> RuleMessage {
    let net = IpNet::from(from);
    let mut message = RuleMessage::default();
    message.header = RuleHeader {
        family: Family::of(net).into_netlink(),
        src_len: net.prefix_len(),
        action: RuleAction::ToTable,
        // The header has one byte for it; the attribute counts.
        table: u8::try_from(table).unwrap_or_default(),
        ..RuleHeader::default()
    };
    message.attributes = vec![RuleAttribute::Source(from), RuleAttribute::Table(table)];
    message
}

fn rule(answer: RouteNetlinkMessage, family: Family) -> Option<RoutingRule> {
    let RouteNetlinkMessage::NewRule(message) = answer else {
        return None;
    };
    let header = message.header;
    if header.action != RuleAction::ToTable || header.family != family.into_netlink() {
        return None;
    }
    let mut rule = RoutingRule {
        family,
        from: None,
        table: header.table.into(),
        priority: 0,
    };
    for attribute in message.attributes {
        match attribute {
            RuleAttribute::Source(from) => rule.from = IpNet::new(from, header.src_len).ok(),
            RuleAttribute::Table(table) => rule.table = table,
            RuleAttribute::Priority(priority) => rule.priority = priority,
            _ => {}
        }
    }
    Some(rule)
}
