//! The `sbr` plugin: what leaves with an address of the container's interface leaves by that interface (source-based routing).
//!
//! For containers on several networks. The interface's routes move from the main table into one for each of its addresses,
//! and a rule sends there what has that source. The main table is left to the other interfaces.

mod plan;

use std::net::IpAddr;

use cni_conf::addr;
use cni_conf::dispatch::Plugin;
use cni_conf::error::{Code, Error};
use cni_conf::json::{self, FieldError};
use cni_conf::names::IfName;
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::{CniResult, IpConfig};
use serde::Deserialize;

use crate::attach::chained;
use crate::attach::check::{self, failed};
use crate::attach::container::Container;
use crate::attach::undo::Undo;
use crate::host::Rtnl;
use crate::host::lock;
use crate::host::rtnl::{Link, NewRoute, RouteFilter, RoutingRule};
use plan::{Branch, Given};

/// The plugin.
pub struct Sbr;

/// The JSON as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    table: Option<i64>,
    gateways: Vec<String>,
    add_source_hints: bool,
}

/// The configuration, validated and complete.
#[derive(Debug)]
struct Settings {
    /// A table that somebody else fills.
    table: Option<u32>,
    /// At most one of each family.
    gateways: Vec<IpAddr>,
    /// The routes to the subnets stay in the main table, with the interface's address as source.
    hints: bool,
}

impl Settings {
    fn read(request: &Request) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        let table = match wire.table {
            None => None,
            Some(table) => match u32::try_from(table) {
                Ok(table) if table > 0 => Some(table),
                _ => {
                    return Err(
                        FieldError::new("table", table, "a table is 1 to 4294967295").into(),
                    );
                }
            },
        };
        Ok(Self {
            table,
            gateways: gateways(&wire.gateways)?,
            hints: wire.add_source_hints,
        })
    }
}

fn gateways(texts: &[String]) -> Result<Vec<IpAddr>, Error> {
    let mut gateways: Vec<IpAddr> = Vec::new();
    for (place, text) in texts.iter().enumerate() {
        let path = format!("gateways[{place}]");
        let gateway = addr::parse_ip(&path, text, "an address of a gateway is expected")?;
        if gateways
            .iter()
            .any(|other| other.is_ipv4() == gateway.is_ipv4())
        {
            let expected = "one gateway of each family is possible";
            return Err(FieldError::new(path, gateway, expected).into());
        }
        gateways.push(gateway);
    }
    Ok(gateways)
}

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    Settings::read(request).map(drop)
}

impl Plugin for Sbr {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let settings = Settings::read(request)?;
        let previous = chained::previous(request)?;
        let ips = addresses_of(previous, &attachment.ifname);
        if ips.is_empty() {
            return Err(Error::config(format!(
                "prevResult has no address of {}: there is nothing to route by",
                attachment.ifname
            ))
            .with_details("the plugin before this one needs an \"ipam\" section"));
        }
        let container = Container::open(attachment)?;
        let link = chained::link(&container, &attachment.ifname)?;
        let rtnl = &container.rtnl;
        // Two attachments of one container must not choose the same table.
        let _lock = lock::take_routing()?;
        Undo::guard(|undo| match settings.table {
            Some(table) => ips
                .iter()
                .try_for_each(|ip| send_to(rtnl, ip.address.addr(), table, undo)),
            None => branch_off(rtnl, &link, &ips, &settings, undo),
        })?;
        Ok(previous.clone())
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let Some(container) = Container::open_if_there(attachment)? else {
            return Ok(());
        };
        // The configuration may be invalid by now; then rules of every table are looked at.
        let table = Settings::read(request).ok().and_then(|it| it.table);
        let mut own: Vec<IpAddr> = Vec::new();
        if let Some(link) = chained::find_link(&container, &attachment.ifname)? {
            let addresses = container.rtnl.addresses(link.index)?;
            own.extend(addresses.iter().map(|address| address.net.addr()));
        }
        if let Some(previous) = &request.prev_result {
            let ips = addresses_of(previous, &attachment.ifname).into_iter();
            own.extend(ips.map(|ip| ip.address.addr()));
        }
        let is_ours = |rule: &RoutingRule| table.is_none_or(|table| rule.table == table);
        let rules = container.rtnl.rules()?.into_iter().filter(is_ours);
        let outcomes = rules.filter_map(|rule| {
            let from = sender(&rule).filter(|from| own.contains(from))?;
            container.rtnl.delete_rule(from, rule.table).err()
        });
        Error::join(outcomes.map(Error::from)).map_or(Ok(()), Err)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let settings = Settings::read(request)?;
        let container = Container::open(attachment)?;
        let link = chained::link(&container, &attachment.ifname)
            .map_err(|error| failed(error.to_string()))?;
        let rules = container.rtnl.rules()?;
        for ip in addresses_of(check::expected(request)?, &attachment.ifname) {
            let from = ip.address.addr();
            let is_its = |rule: &&RoutingRule| {
                sender(rule) == Some(from) && settings.table.is_none_or(|table| rule.table == table)
            };
            let Some(rule) = rules.iter().find(is_its) else {
                return Err(failed(format!("the rule for what {from} sends is missing")));
            };
            let filter = RouteFilter {
                table: Some(rule.table),
                oif: Some(link.index),
                ..RouteFilter::default()
            };
            if settings.table.is_none() && container.rtnl.routes(&filter)?.is_empty() {
                return Err(failed(format!(
                    "table {} has no route of {} for what {from} sends",
                    rule.table, link.name
                )));
            }
        }
        Ok(())
    }

    fn gc(&self, _: &Request, _: &[AttachmentId]) -> Result<(), Error> {
        // Rules and routes are in the container alone and go with it.
        Ok(())
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        Settings::read(request)?;
        if Rtnl::new()?.rules()?.is_empty() {
            return Err(
                Error::new(Code::NotAvailable, "the kernel has no policy routing").with_details(
                    "install a kernel with CONFIG_IP_MULTIPLE_TABLES, such as the distribution's full one",
                ),
            );
        }
        Ok(())
    }
}

/// The addresses of an interface; results before 0.3.0 don't tell which one has an address.
fn addresses_of<'a>(result: &'a CniResult, ifname: &IfName) -> Vec<&'a IpConfig> {
    let is_of_another = |ip: &IpConfig| {
        let interface = ip.interface.and_then(|index| result.interfaces.get(index));
        interface.is_some_and(|interface| interface.name != ifname.as_str())
    };
    result.ips.iter().filter(|ip| !is_of_another(ip)).collect()
}

/// The one address whose packets a rule is for.
fn sender(rule: &RoutingRule) -> Option<IpAddr> {
    let from = rule.from?;
    (from.prefix_len() == from.max_prefix_len()).then(|| from.addr())
}

fn send_to<'a>(rtnl: &'a Rtnl, from: IpAddr, table: u32, undo: &mut Undo<'a>) -> Result<(), Error> {
    match rtnl.add_rule(from, table) {
        // An ADD that was killed made it.
        Err(error) if error.already_exists() => return Ok(()),
        outcome => outcome?,
    }
    undo.push(move || {
        rtnl.delete_rule(from, table)?;
        Ok(())
    });
    Ok(())
}

/// Gives every address a table with the routes that belong to it, and takes them out of the main one.
fn branch_off<'a>(
    rtnl: &'a Rtnl,
    link: &Link,
    ips: &[&IpConfig],
    settings: &Settings,
    undo: &mut Undo<'a>,
) -> Result<(), Error> {
    let filter = RouteFilter {
        oif: Some(link.index),
        ..RouteFilter::default()
    };
    let routes = rtnl.routes(&filter)?;
    let given = Given {
        link: link.index,
        ips,
        routes: &routes,
        gateways: &settings.gateways,
    };
    let everywhere = RouteFilter {
        table: None,
        ..RouteFilter::default()
    };
    let used = rtnl.routes(&everywhere)?.into_iter().map(|it| it.table);
    let used: Vec<u32> = used
        .chain(rtnl.rules()?.into_iter().map(|it| it.table))
        .collect();
    for branch in given.branches(|table| used.contains(&table)) {
        fill(rtnl, &branch, undo)?;
        send_to(rtnl, branch.from, branch.table, undo)?;
    }
    let (leaving, hinted) = given.main_table(settings.hints);
    for route in hinted {
        rtnl.replace_route(&route)?;
    }
    for route in leaving {
        undo.push(move || match rtnl.add_route_beside(&route) {
            Err(error) if !error.already_exists() => Err(error.into()),
            _ => Ok(()),
        });
        rtnl.delete_route(&route)?;
    }
    Ok(())
}

fn fill<'a>(rtnl: &'a Rtnl, branch: &Branch, undo: &mut Undo<'a>) -> Result<(), Error> {
    for route in &branch.routes {
        let added = *route;
        undo.push(move || {
            rtnl.delete_route(&added)?;
            Ok(())
        });
        rtnl.replace_route(route)
            .map_err(|error| explain(error.into(), route))?;
    }
    Ok(())
}

fn explain(error: Error, route: &NewRoute) -> Error {
    match route.gateway {
        Some(gateway) => error.with_details(format!(
            "the gateway {gateway} must lie in the subnet of one of the interface's addresses"
        )),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn read(conf: Value) -> Result<Settings, Error> {
        Settings::read(&Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "sbr".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        })
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field) in [
            (json!({"table": 0}), "table"),
            (json!({"table": -1}), "table"),
            (json!({"table": 1_u64 << 32}), "table"),
            (json!({"gateways": ["10.1.0"]}), "gateways[0]"),
            (json!({"gateways": ["10.1.0.1", "10.1.0.2"]}), "gateways[1]"),
        ] {
            let error = read(conf.clone()).unwrap_err();
            assert!(error.msg.contains(field), "{conf}: {error}");
        }
        let both = json!({"gateways": ["fd00::1", "10.1.0.2"], "table": 5000});
        let settings = read(both).unwrap();
        assert_eq!((settings.gateways.len(), settings.table), (2, Some(5000)));
    }
}
