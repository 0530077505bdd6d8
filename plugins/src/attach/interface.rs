//! Attachments that are one interface in the container, with nothing of their own on the host: macvlan, ipvlan, vlan, dummy,
//! tap.
//!
//! The interface is made before addresses are asked for, since an IPAM plugin may need it to ask somebody else: `dhcp` sends
//! by it. It goes with its namespace, so DEL without one only gives the addresses back, and GC hands on to the IPAM plugin.

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};
use cni_conf::json;
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use cni_conf::result::{CniResult, Dns, Interface};
use serde::Deserialize;

use super::check;
use super::container::{Container, Layer3};
use super::ipam::{self, Ipam, IpamConf};
use super::ipv6;
use super::parent::Parent;
use super::settings::DnsConf;
use super::undo::Undo;
use crate::host::rtnl::{Kind, Link, LinkChange, Mac, NewLink};
use crate::host::{HostError, NetNs, Rtnl};
use crate::owner::Owner;

/// Those keys as they come.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wire {
    ipam: IpamConf,
    dns: DnsConf,
}

/// The keys that all of them have.
#[derive(Debug, Default)]
pub struct Common {
    /// The IPAM plugin.
    pub ipam: IpamConf,
    /// Takes the place of the IPAM plugin's.
    pub dns: Option<Dns>,
}

impl Common {
    /// Reads them.
    ///
    /// # Errors
    /// A name of an IPAM plugin that is none.
    pub fn read(request: &Request) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        wire.ipam.plugin()?;
        Ok(Self {
            ipam: wire.ipam,
            dns: wire.dns.replacement(),
        })
    }

    /// The same where an interface without addresses is of no use.
    ///
    /// # Errors
    /// As [`Common::read`]; where there is no IPAM plugin.
    pub fn read_with_ipam(request: &Request) -> Result<Self, Error> {
        let common = Self::read(request)?;
        if common.ipam.plugin()?.is_some() {
            return Ok(common);
        }
        Err(Error::config(format!(
            "field \"ipam.type\" is missing: {} has no addresses to give",
            request.plugin
        ))
        .with_details(
            "add an \"ipam\" section, such as {\"type\": \"host-local\", \"subnet\": \"10.1.0.0/24\"}",
        ))
    }
}

/// An ADD.
pub struct Adding<'a> {
    /// The call.
    pub request: &'a Request,
    /// What it is about.
    pub attachment: &'a Attachment,
    /// The keys that all have.
    pub common: Common,
    /// Addresses and routes beside those of the IPAM plugin, such as of a plugin before this one.
    pub given: Option<&'a CniResult>,
    /// The neighbours are told where the addresses are, by setting the hardware address once more.
    pub announces: bool,
}

impl Adding<'_> {
    /// Makes the interface, asks for addresses and sets them up. `make` returns the interface in the container, or leaves
    /// nothing.
    ///
    /// # Errors
    /// Of any step; what was done before is undone.
    pub fn run(
        &self,
        make: impl FnOnce(&Container) -> Result<Link, Error>,
    ) -> Result<CniResult, Error> {
        self.run_with(make, |container, link| {
            delete_anew(&container.netns, link.index)
        })
    }

    /// The same where the interface is taken away in another way than by deleting it.
    ///
    /// # Errors
    /// As [`Adding::run`].
    pub fn run_with(
        &self,
        make: impl FnOnce(&Container) -> Result<Link, Error>,
        unmake: impl Fn(&Container, &Link) -> Result<(), Error>,
    ) -> Result<CniResult, Error> {
        let name = self.common.ipam.plugin()?;
        let ipam = name
            .map(|name| Ipam::find(self.request, name))
            .transpose()?;
        let container = Container::open(self.attachment)?;
        container.require_free(self.attachment.ifname.as_str())?;
        Undo::guard(|undo| {
            let link = make(&container)?;
            let (inside, unmake, made) = (&container, &unmake, link.clone());
            undo.push(move || unmake(inside, &made));
            let mut leased = CniResult::default();
            if let Some(ipam) = &ipam {
                leased = ipam.add(self.attachment)?;
                undo.push(|| ipam.del(self.attachment));
            }
            if let Some(given) = self.given {
                leased.ips.extend(given.ips.iter().cloned());
                leased.routes.extend(given.routes.iter().cloned());
            }
            for ip in &mut leased.ips {
                ip.interface = Some(0);
            }
            self.configure(&container, &link, &leased)?;
            Ok(self.result(&container, &link, leased))
        })
    }

    fn configure(
        &self,
        container: &Container,
        link: &Link,
        leased: &CniResult,
    ) -> Result<(), Error> {
        let mut layer3 = Layer3 {
            ips: leased.ips.clone(),
            routes: leased.routes.clone(),
            heeds_routers: true,
            ..Layer3::default()
        };
        layer3.drop_doubles();
        if layer3.ips.is_empty() && layer3.routes.is_empty() {
            return Ok(container.rtnl.set_link(link.index, &LinkChange::up())?);
        }
        // It has to be set before the interface comes up to have an effect then.
        let notify = LinkChange {
            arp_notify: true,
            ..LinkChange::default()
        };
        container.rtnl.set_link(link.index, &notify)?;
        if layer3.has_ipv6() {
            container.with_sysctls(|procfs| ipv6::notify(procfs, &link.name))?;
        }
        container.configure(link.index, &link.name, &layer3)?;
        match link.mac.filter(|_| self.announces && layer3.has_ipv6()) {
            Some(mac) => announce(container, link.index, mac),
            None => Ok(()),
        }
    }

    fn result(&self, container: &Container, link: &Link, leased: CniResult) -> CniResult {
        let dns = self.common.dns.clone().unwrap_or(leased.dns);
        CniResult {
            interfaces: vec![describe(container, link)],
            ips: leased.ips,
            routes: leased.routes,
            dns,
        }
    }
}

/// A container's interface as results have it.
pub fn describe(container: &Container, link: &Link) -> Interface {
    Interface {
        name: link.name.clone(),
        mac: link
            .mac
            .map(|mac| MacAddr::new(mac).to_string())
            .unwrap_or_default(),
        mtu: link.mtu,
        sandbox: container.netns.path().display().to_string(),
        ..Interface::default()
    }
}

/// Unsolicited advertisements of IPv6 addresses, which nobody sends for one that duplicate address detection is left out
/// for (`addrconf_dad_begin` in net/ipv6/addrconf.c). They go out when the hardware address is set.
fn announce(container: &Container, link: u32, mac: Mac) -> Result<(), Error> {
    container.announce(link, MacAddr::new(mac))
}

fn delete_anew(netns: &NetNs, link: u32) -> Result<(), Error> {
    Rtnl::in_netns(netns)?.delete_link(link)?;
    Ok(())
}

/// Creates a link in the container, asked for over `rtnl`, and returns it.
///
/// Where the kernel refuses a name that is free in the container, since the host has one like it, the link is made under
/// another name and renamed.
///
/// # Errors
/// What the kernel says; the name is taken in the container.
pub fn create(
    container: &Container,
    rtnl: &Rtnl,
    owner: &Owner,
    new: &NewLink<'_>,
) -> Result<Link, Error> {
    let Err(error) = rtnl.create_link(new) else {
        return found(container, new.name);
    };
    container.require_free(new.name)?;
    if !error.already_exists() || !rtnl.has_link(new.name)? {
        return Err(error.into());
    }
    let passing = passing_name(owner);
    let unnamed = NewLink {
        name: &passing,
        ..*new
    };
    rtnl.create_link(&unnamed)?;
    let link = found(container, &passing)?;
    let rename = LinkChange {
        name: Some(new.name),
        ..LinkChange::default()
    };
    if let Err(error) = container.rtnl.set_link(link.index, &rename) {
        container.rtnl.delete_link(link.index)?;
        return Err(error.into());
    }
    Ok(Link {
        name: new.name.to_owned(),
        ..link
    })
}

/// Creates a link that stands on `parent`, whose MTU bounds its own, and returns it.
///
/// # Errors
/// As [`create`]; where the one below is missing.
pub fn create_on(
    parent: &Parent,
    container: &Container,
    owner: &Owner,
    new: NewLink<'_>,
) -> Result<Link, Error> {
    let host = Rtnl::new()?;
    let rtnl = parent.socket(&host, container);
    let below = parent.find(rtnl)?;
    let new = NewLink {
        parent: Some(below.index),
        mtu: parent.mtu_on(&below)?,
        netns: (!parent.in_container).then_some(&container.netns),
        ..new
    };
    create(container, rtnl, owner, &new)
}

/// The name that an interface has until it gets its own.
fn passing_name(owner: &Owner) -> String {
    owner.host_ifname(0)
}

fn found(container: &Container, name: &str) -> Result<Link, Error> {
    let found = container.rtnl.link_by_name(name)?;
    found.ok_or_else(|| {
        Error::new(
            Code::Conflict,
            format!("interface {name} was removed as soon as it was made"),
        )
        .with_details("something else changes interfaces in this container; try again")
    })
}

/// DEL: removes the interface if it is one of this kind, and gives the addresses back.
///
/// # Errors
/// Those of both, joined.
pub fn del(request: &Request, attachment: &Attachment, kind: &str) -> Result<(), Error> {
    release(request, attachment, || remove(request, attachment, kind))
}

/// Gives the addresses back, and has `remove` take the interface away: before that, so that nobody else has an address that
/// the container still uses; or after it where an IPAM plugin may need the interface to give them back.
///
/// # Errors
/// Those of both, joined.
pub fn release(
    request: &Request,
    attachment: &Attachment,
    remove: impl FnOnce() -> Result<(), Error>,
) -> Result<(), Error> {
    let ipam = json::from_value(&request.conf)
        .map_err(Error::from)
        .and_then(|conf: Removal| conf.ipam.plugin())
        .and_then(|name| name.map(|name| Ipam::find(request, name)).transpose());
    let give_back = |ipam: Result<Option<Ipam<'_>>, Error>| match ipam? {
        Some(ipam) => ipam.del(attachment),
        None => Ok(()),
    };
    let sends = matches!(&ipam, Ok(Some(ipam)) if !ipam.keeps_leases());
    let outcomes = if sends {
        let address = give_back(ipam);
        [address, remove()]
    } else {
        match remove() {
            Ok(()) => [give_back(ipam), Ok(())],
            failed => [failed, ipam.map(drop)],
        }
    };
    Error::join(outcomes.into_iter().filter_map(Result::err)).map_or(Ok(()), Err)
}

/// The part of the configuration that removing needs. The rest may be invalid by now.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Removal {
    ipam: IpamConf,
}

fn remove(request: &Request, attachment: &Attachment, kind: &str) -> Result<(), Error> {
    let Some(container) = Container::open_if_there(attachment)? else {
        return Ok(());
    };
    let passing = passing_name(&Owner::of(request, attachment));
    for name in [attachment.ifname.as_str(), &passing] {
        let link = container.rtnl.link_by_name(name)?;
        if let Some(link) = link.filter(|link| link.kind.as_deref() == Some(kind)) {
            container.rtnl.delete_link(link.index)?;
        }
    }
    Ok(())
}

/// CHECK of what all have in common: addresses, routes, and an interface of this kind. Returns it, and its namespace.
///
/// # Errors
/// What differs.
pub fn check(
    request: &Request,
    attachment: &Attachment,
    kind: &str,
) -> Result<(Container, Link), Error> {
    let common = Common::read(request)?;
    if let Some(name) = common.ipam.plugin()? {
        Ipam::find(request, name)?.check(attachment)?;
    }
    let container = Container::open(attachment)?;
    let link = check::interface(&container, attachment, check::expected(request)?, true)?;
    if link.kind.as_deref() != Some(kind) {
        return Err(check::failed(format!(
            "interface {} is no {kind}",
            link.name
        )));
    }
    Ok((container, link))
}

/// CHECK: the interface below is there, if the configuration names it.
///
/// # Errors
/// Where it is missing.
pub fn check_parent(parent: &Parent, container: &Container) -> Result<(), Error> {
    if parent.name.is_none() {
        return Ok(());
    }
    let host = Rtnl::new()?;
    let found = parent.find(parent.socket(&host, container));
    found
        .map(drop)
        .map_err(|error| check::failed(error.to_string()))
}

/// GC: the interfaces go with their namespaces, the IPAM plugin takes back its addresses.
///
/// # Errors
/// Those of the IPAM plugin.
pub fn gc(request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
    let Removal { ipam } = json::from_value(&request.conf)?;
    ipam::delegate(request, &ipam, Call::Gc(Some(valid.to_vec())))
}

/// STATUS: whether the kernel has links of this kind.
///
/// # Errors
/// [`Code::NotAvailable`] where it has none.
pub fn require_kind(rtnl: &Rtnl, kind: Kind) -> Result<(), Error> {
    rtnl.require_kind(kind).map_err(unavailable)
}

/// A failure of the kernel's side for STATUS: what it lacks makes the plugin unavailable.
pub fn unavailable(error: HostError) -> Error {
    let lacking = error.is_unsupported();
    let error = Error::from(error);
    let code = if lacking {
        Code::NotAvailable
    } else {
        error.code
    };
    Error { code, ..error }
}
