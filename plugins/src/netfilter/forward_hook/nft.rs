//! Reading rules that `nft -j` prints.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::verdict::{Condition, Fit, Packet, Rule, Ruleset, Target, interface_fits};
use crate::host::HostError;
use crate::host::nft::{Chain, family_name, ruleset};

/// The rules of the table that `chain` is in.
pub(super) fn read(chain: &Chain) -> Result<Ruleset, HostError> {
    let args = [
        "-j",
        "list",
        "table",
        family_name(chain.family),
        &chain.table,
    ];
    let listing = ruleset::NFT.run("look at the filter rules for forwarded packets", args, "")?;
    Ok(parse(&serde_json::from_str(&listing).unwrap_or_default()))
}

/// The rules in the format of libnftables-json(5). What is not understood is unknown, never an error.
fn parse(listing: &Value) -> Ruleset {
    let mut rules = Ruleset::default();
    for object in listing["nftables"].as_array().into_iter().flatten() {
        if let Some(name) = object["chain"]["name"].as_str() {
            rules.chains.entry(name.to_owned()).or_default();
            if object["chain"]["policy"] == "drop" {
                rules.dropping.push(name.to_owned());
            }
        }
        if let Some(name) = object["rule"]["chain"].as_str() {
            let statements = object["rule"]["expr"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            rules
                .chains
                .entry(name.to_owned())
                .or_default()
                .extend(lower(&statements));
        }
    }
    rules
}

/// A rule of ours for each verdict that the rule may give: one, or one per entry of a verdict map.
fn lower(statements: &[Value]) -> Vec<Rule> {
    let mut shared: Vec<(Value, Value, bool)> = Vec::new();
    for statement in statements {
        if let Value::Object(entry) = &statement["match"] {
            let negated = entry.get("op").is_some_and(|op| op == "!=");
            let comparable = entry
                .get("op")
                .is_none_or(|op| op == "==" || op == "!=" || op == "in");
            let right = if comparable {
                statement["match"]["right"].clone()
            } else {
                Value::Null
            };
            shared.push((statement["match"]["left"].clone(), right, negated));
        } else if let Value::Object(_) = &statement["vmap"] {
            return from_map(&shared, &statement["vmap"]);
        } else if let Some(target) = target(statement) {
            return vec![Rule {
                conditions: conditions(&shared),
                target,
            }];
        }
    }
    Vec::new()
}

fn from_map(shared: &[(Value, Value, bool)], map: &Value) -> Vec<Rule> {
    let Some(entries) = map["data"]["set"].as_array() else {
        // A map by name: any of its verdicts may apply.
        let unknown: Condition = Box::new(|_: &Packet<'_>| Fit::Unknown);
        return vec![Rule {
            conditions: vec![unknown],
            target: Target::Accept,
        }];
    };
    entries
        .iter()
        .filter_map(|entry| {
            let mut terms = shared.to_vec();
            terms.push((map["key"].clone(), entry[0].clone(), false));
            let target = target(&entry[1])?;
            Some(Rule {
                conditions: conditions(&terms),
                target,
            })
        })
        .collect()
}

fn target(statement: &Value) -> Option<Target> {
    let chain = |key: &str| statement[key]["target"].as_str().map(str::to_owned);
    let (key, _) = statement.as_object()?.iter().next()?;
    match key.as_str() {
        "accept" => Some(Target::Accept),
        "drop" | "reject" => Some(Target::Drop),
        "return" => Some(Target::Return),
        "jump" => chain("jump").map(Target::Jump),
        "goto" => chain("goto").map(Target::Goto),
        // The flow table, a queue and old extensions may let the packet pass in their own way.
        "queue" | "xt" => Some(Target::Accept),
        _ => None,
    }
}

fn conditions(terms: &[(Value, Value, bool)]) -> Vec<Condition> {
    terms
        .iter()
        .cloned()
        .map(|(left, right, negated)| -> Condition {
            Box::new(move |packet| fit(&left, &right, packet).negated_if(negated))
        })
        .collect()
}

fn fit(left: &Value, right: &Value, packet: &Packet<'_>) -> Fit {
    if let Some(alternatives) = right["set"].as_array().or(right.as_array()) {
        let fits = alternatives.iter().map(|right| fit(left, right, packet));
        return fits.max().unwrap_or(Fit::No);
    }
    if let Some(key) = left["meta"]["key"].as_str() {
        return match (key, right.as_str()) {
            ("iifname" | "iif", Some(name)) => interface_fits(packet.iif, name),
            ("oifname" | "oif", Some(name)) => interface_fits(packet.oif, name),
            ("l4proto", Some(protocol)) => (protocol == "tcp").into(),
            ("nfproto", Some(family)) => (family == family_of(packet.source)).into(),
            ("mark", _) => right
                .as_u64()
                .map_or(Fit::Unknown, |mark| (mark == 0).into()),
            _ => Fit::Unknown,
        };
    }
    if left["ct"]["key"] == "state" {
        return right
            .as_str()
            .map_or(Fit::Unknown, |state| (state == packet.state).into());
    }
    // Only packets of connections whose destination was translated have this one.
    if left["ct"]["key"] == "status" && right == "dnat" {
        return Fit::No;
    }
    let (protocol, field) = (&left["payload"]["protocol"], &left["payload"]["field"]);
    let address = match field.as_str() {
        Some("saddr") => packet.source,
        Some("daddr") => packet.destination,
        _ => return Fit::Unknown,
    };
    match protocol.as_str() {
        Some("ip") if address.is_ipv4() => address_fits(address, right),
        Some("ip6") if address.is_ipv6() => address_fits(address, right),
        Some("ip" | "ip6") => Fit::No,
        _ => Fit::Unknown,
    }
}

fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "ipv4" } else { "ipv6" }
}

/// Whether an address is in what is an address, a prefix or a range.
fn address_fits(address: IpAddr, right: &Value) -> Fit {
    let ip = |value: &Value| value.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    if let Some(single) = ip(right) {
        return (single == address).into();
    }
    if let [first, last] = right["range"].as_array().map_or(&[][..], Vec::as_slice) {
        return match (ip(first), ip(last)) {
            (Some(first), Some(last)) => (first <= address && address <= last).into(),
            _ => Fit::Unknown,
        };
    }
    let length = right["prefix"]["len"]
        .as_u64()
        .and_then(|length| u8::try_from(length).ok());
    match (ip(&right["prefix"]["addr"]), length) {
        (Some(base), Some(length)) => match IpNet::new(base, length) {
            Ok(prefix) => prefix.contains(&address).into(),
            Err(_) => Fit::Unknown,
        },
        // A set by name.
        _ => Fit::Unknown,
    }
}
