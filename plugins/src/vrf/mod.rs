//! The `vrf` plugin: puts the container's interface into a routing domain of the container, which has a table of its own.
//!
//! The kernel takes an interface down and up again when it joins (`cycle_netdev` in drivers/net/vrf.c), which costs it its
//! routes and, unless it keeps them, its IPv6 addresses. So both are looked at before, and what is missing then comes back:
//! routes of the main table in that of the domain.

use cni_conf::dispatch::Plugin;
use cni_conf::error::{Code, Error};
use cni_conf::json::{self, FieldError};
use cni_conf::names::IfName;
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::CniResult;
use ipnet::IpNet;
use serde::Deserialize;

use crate::attach::check::failed;
use crate::attach::container::Container;
use crate::attach::undo::Undo;
use crate::attach::{chained, interface};
use crate::host::Rtnl;
use crate::host::lock;
use crate::host::rtnl::{
    AddressOptions, AddressScope, Kind, Link, LinkChange, NewLink, NewRoute, Route, RouteFilter,
    RouteProtocol, TABLE_MAIN,
};

/// Tables that belong to the kernel: default, main and local (include/uapi/linux/rtnetlink.h).
const KERNELS: std::ops::RangeInclusive<u32> = 253..=255;

/// The table of local addresses, which the kernel fills by itself.
const TABLE_LOCAL: u32 = 255;

/// The plugin.
pub struct Vrf;

/// The JSON as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wire {
    vrfname: String,
    table: i64,
}

/// The configuration, validated and complete.
#[derive(Debug)]
struct Settings {
    name: IfName,
    /// The table that the domain has; one that nobody uses if none.
    table: Option<u32>,
}

impl Settings {
    fn read(request: &Request) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        if wire.vrfname.is_empty() {
            return Err(
                Error::config("field \"vrfname\" is missing: it names the routing domain")
                    .with_details("set \"vrfname\" to a name for an interface, at most 15 bytes"),
            );
        }
        let name = IfName::try_from(wire.vrfname.as_str())
            .map_err(|error| Error::config(format!("field \"vrfname\": {error}")))?;
        let table = match u32::try_from(wire.table) {
            Ok(table) => Some(table).filter(|table| *table != 0),
            Err(_) => {
                let expected = "a table is 1 to 4294967295, or 0 for a free one";
                return Err(FieldError::new("table", wire.table, expected).into());
            }
        };
        Ok(Self { name, table })
    }
}

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    Settings::read(request).map(drop)
}

impl Plugin for Vrf {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let settings = Settings::read(request)?;
        let previous = chained::previous(request)?;
        let container = Container::open(attachment)?;
        let link = chained::link(&container, &attachment.ifname)?;
        let rtnl = &container.rtnl;
        if let Some(master) = link.master {
            return Err(in_use(rtnl, &link, master));
        }
        // Two attachments of one container must not make the domain, or choose a table, at once.
        let _lock = lock::take_routing()?;
        Undo::guard(|undo| {
            let name = &settings.name;
            undo.push(move || leave(rtnl, &attachment.ifname, name));
            let (domain, table) = ensure(rtnl, &settings)?;
            join(rtnl, &link, domain, table)
        })?;
        Ok(previous.clone())
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let Some(container) = Container::open_if_there(attachment)? else {
            return Ok(());
        };
        let settings = Settings::read(request)?;
        let _lock = lock::take_routing()?;
        leave(&container.rtnl, &attachment.ifname, &settings.name)
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let settings = Settings::read(request)?;
        let container = Container::open(attachment)?;
        let rtnl = &container.rtnl;
        let name = &settings.name;
        let Some(domain) = rtnl.link_by_name(name.as_str())? else {
            return Err(failed(format!("the routing domain {name} is missing")));
        };
        match rtnl.kind_of(domain.index)? {
            Some(Kind::Vrf { table }) if settings.table.is_none_or(|it| it == table) => {}
            Some(Kind::Vrf { table }) => {
                return Err(failed(format!(
                    "the routing domain {name} has table {table}"
                )));
            }
            _ => return Err(failed(format!("{name} is no routing domain"))),
        }
        match chained::find_link(&container, &attachment.ifname)? {
            Some(link) if link.master == Some(domain.index) => Ok(()),
            Some(link) => Err(failed(format!(
                "interface {} is not in the routing domain {name}",
                link.name
            ))),
            None => Err(failed(format!(
                "interface {} is missing in the container",
                attachment.ifname
            ))),
        }
    }

    fn gc(&self, _: &Request, _: &[AttachmentId]) -> Result<(), Error> {
        // The domain is in the container alone and goes with it.
        Ok(())
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        Settings::read(request)?;
        interface::require_kind(&Rtnl::new()?, Kind::Vrf { table: 1 })
    }
}

fn in_use(rtnl: &Rtnl, link: &Link, master: u32) -> Error {
    let master = rtnl.link_by_index(master).ok().flatten();
    let name = master.map_or_else(|| "another interface".into(), |master| master.name);
    Error::new(
        Code::Conflict,
        format!("interface {} belongs to {name} already", link.name),
    )
    .with_details("an interface is in one routing domain, and a port of a bridge or bond in none")
}

/// The domain's index and table. It is made if it is missing.
fn ensure(rtnl: &Rtnl, settings: &Settings) -> Result<(u32, u32), Error> {
    let name = settings.name.as_str();
    if let Some(domain) = rtnl.link_by_name(name)? {
        return match (rtnl.kind_of(domain.index)?, settings.table) {
            (Some(Kind::Vrf { table }), Some(asked)) if asked != table => Err(Error::new(
                Code::Conflict,
                format!(
                    "field \"table\": the routing domain {name} has table {table}, not {asked}"
                ),
            )),
            (Some(Kind::Vrf { table }), _) => Ok((domain.index, table)),
            _ => Err(Error::new(
                Code::Conflict,
                format!(
                    "field \"vrfname\": the container has an interface {name} that is no routing domain"
                ),
            )),
        };
    }
    let table = match settings.table {
        Some(table) => table,
        None => free_table(rtnl)?,
    };
    let new = NewLink {
        up: true,
        ..NewLink::new(name, Kind::Vrf { table })
    };
    rtnl.create_link(&new)?;
    let domain = rtnl.link_by_name(name)?.ok_or_else(|| {
        Error::new(
            Code::Conflict,
            format!("the routing domain {name} was removed as soon as it was made"),
        )
    })?;
    Ok((domain.index, table))
}

/// The first table that no domain, no rule and no route uses.
fn free_table(rtnl: &Rtnl) -> Result<u32, Error> {
    let mut used: Vec<u32> = Vec::new();
    for link in rtnl.links_of_kind("vrf")? {
        if let Some(Kind::Vrf { table }) = rtnl.kind_of(link.index)? {
            used.push(table);
        }
    }
    used.extend(rtnl.rules()?.into_iter().map(|rule| rule.table));
    let everywhere = RouteFilter {
        table: None,
        ..RouteFilter::default()
    };
    used.extend(rtnl.routes(&everywhere)?.into_iter().map(|it| it.table));
    let mut tables = (1..).filter(|table| !KERNELS.contains(table) && !used.contains(table));
    tables
        .next()
        .ok_or_else(|| Error::new(Code::Conflict, "every routing table is used"))
}

/// Puts the interface into the domain, with its addresses and routes.
fn join(rtnl: &Rtnl, link: &Link, domain: u32, table: u32) -> Result<(), Error> {
    let addresses = own_addresses(rtnl, link)?;
    let everywhere = RouteFilter {
        table: None,
        oif: Some(link.index),
        ..RouteFilter::default()
    };
    let routes = rtnl.routes(&everywhere)?;
    let change = LinkChange {
        master: Some(domain),
        ..LinkChange::default()
    };
    rtnl.set_link(link.index, &change)?;
    let left = own_addresses(rtnl, link)?;
    let options = AddressOptions {
        nodad: true,
        noprefixroute: false,
    };
    for net in addresses.iter().filter(|net| !left.contains(net)) {
        rtnl.add_address(link.index, *net, options)?;
    }
    let lasting =
        |route: &&Route| route.table != TABLE_LOCAL && route.protocol != RouteProtocol::Kernel;
    let mut routes: Vec<_> = routes.iter().filter(lasting).collect();
    // A gateway must be on the link before anything leads to it.
    routes.sort_by_key(|route| route.gateway.is_some());
    for route in routes {
        match rtnl.add_route_beside(&in_table(route, link.index, table)) {
            Err(error) if !error.already_exists() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(())
}

fn own_addresses(rtnl: &Rtnl, link: &Link) -> Result<Vec<IpNet>, Error> {
    let addresses = rtnl.addresses(link.index)?.into_iter();
    let of_its_own = addresses.filter(|address| address.scope != AddressScope::Link);
    Ok(of_its_own.map(|address| address.net).collect())
}

/// The same route; one of the main table in that of the domain.
fn in_table(route: &Route, link: u32, table: u32) -> NewRoute {
    let table = if route.table == TABLE_MAIN {
        table
    } else {
        route.table
    };
    NewRoute {
        gateway: route.gateway,
        oif: Some(link),
        scope: Some(route.scope),
        mtu: route.mtu,
        advmss: route.advmss,
        priority: (route.priority != 0).then_some(route.priority),
        table: Some(table),
        src: route.src,
        ..NewRoute::to(route.dst)
    }
}

/// Takes the interface out of the domain, and the domain away if nothing is left in it. Succeeds where either is gone.
fn leave(rtnl: &Rtnl, ifname: &IfName, name: &IfName) -> Result<(), Error> {
    let Some(domain) = rtnl.link_by_name(name.as_str())? else {
        return Ok(());
    };
    if domain.kind.as_deref() != Some("vrf") {
        return Ok(());
    }
    let members = rtnl.bridge_ports(domain.index)?;
    if let Some(link) = members.iter().find(|link| link.name == ifname.as_str()) {
        let change = LinkChange {
            master: Some(0),
            ..LinkChange::default()
        };
        rtnl.set_link(link.index, &change)?;
    }
    if rtnl.bridge_ports(domain.index)?.is_empty() {
        rtnl.delete_link(domain.index)?;
    }
    Ok(())
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
            plugin: "vrf".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        })
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field) in [
            (json!({}), "vrfname"),
            (json!({"vrfname": "a name of a domain"}), "vrfname"),
            (json!({"vrfname": "blue", "table": -1}), "table"),
        ] {
            let error = read(conf.clone()).unwrap_err();
            assert!(error.msg.contains(field), "{conf}: {error}");
        }
        let free = read(json!({"vrfname": "blue", "table": 0})).unwrap();
        assert_eq!(free.table, None);
    }
}
