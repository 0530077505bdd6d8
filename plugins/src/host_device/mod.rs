//! The `host-device` plugin: an interface of the host moves into the container, and comes back as it was.

mod conf;
mod moving;
mod state;

use cni_conf::dispatch::Plugin;
use cni_conf::error::{Code, Error};
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use cni_conf::result::{CniResult, IpConfig, Route};

use crate::attach::check;
use crate::attach::container::Container;
use crate::attach::interface::{self, Adding};
use crate::attach::ipam::{self, Ipam};
use crate::host::rtnl::{AddressFlags, AddressScope, Link, RouteFilter, RouteProtocol};
use crate::host::{NetNs, Rtnl};
use crate::owner::Owner;
use conf::{Settings, Which};
use state::{Moved, Store};

/// The plugin.
pub struct HostDevice;

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request) -> Result<(), Error> {
    Settings::read(request).map(drop)
}

impl Plugin for HostDevice {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let settings = Settings::read(request)?;
        let store = Store::of(request)?;
        if settings.which.is_driven_by_a_program() {
            return addresses_alone(request, attachment, settings);
        }
        let owner = Owner::of(request, attachment);
        let host = Rtnl::new()?;
        let device = match settings.which.find(&host)? {
            Some(device) => device,
            None => return Err(missing(&settings.which, &store)),
        };
        let given = settings
            .with_network
            .then(|| network_of(&host, &device))
            .transpose()?;
        let adding = Adding {
            request,
            attachment,
            common: settings.common,
            given: given.as_ref(),
            announces: true,
        };
        let result = adding.run_with(
            |container| moving::move_in(&host, container, &store, &owner, &device),
            |container, _| {
                let host = Rtnl::new()?;
                moving::bring_back(&host, Some(container), &store, &owner)
            },
        )?;
        Ok(with_pci_id(result, &settings.which))
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let (store, owner) = (Store::to_remove(request), Owner::of(request, attachment));
        interface::release(request, attachment, || {
            let container = match Container::open_if_there(attachment)? {
                Some(container) => Some(container),
                // Nobody says where it is, but it is written down.
                None => store
                    .find(&owner)
                    .map_or(Ok(None), |moved| standing(&moved))?,
            };
            moving::bring_back(&Rtnl::new()?, container.as_ref(), &store, &owner)
        })
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let settings = Settings::read(request)?;
        if let Some(name) = settings.common.ipam.plugin()? {
            Ipam::find(request, name)?.check(attachment)?;
        }
        if settings.which.is_driven_by_a_program() {
            return Ok(());
        }
        let container = Container::open(attachment)?;
        check::interface(&container, attachment, check::expected(request)?, true).map(drop)
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        let store = Store::to_remove(request);
        let mut errors = match Rtnl::new() {
            Ok(host) => collect(&host, &store, request, valid),
            Err(error) => vec![error.into()],
        };
        errors.extend(interface::gc(request, valid).err());
        Error::join(errors).map_or(Ok(()), Err)
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let settings = Settings::read(request)?;
        let store = Store::of(request)?;
        let which = &settings.which;
        if !which.is_driven_by_a_program() && which.find(&Rtnl::new()?)?.is_none() {
            // Most have one device, and a container that has it is no reason to take no others.
            let has_it = |moved: &Moved| moved.network == request.network;
            if !store.all()?.iter().any(has_it) {
                let error = missing(which, &store);
                let code = Code::NotAvailable;
                return Err(Error { code, ..error });
            }
        }
        ipam::delegate(request, &settings.common.ipam, Call::Status)
    }
}

/// Which container has a device that is not on the host.
fn missing(which: &Which, store: &Store) -> Error {
    let error = Error::new(
        Code::Conflict,
        format!("{} is not on the host", which.text()),
    );
    let all = store.all().unwrap_or_default();
    let holder = all.iter().find(|moved| match which {
        Which::Name(name) => moved.device == name.as_str(),
        Which::Mac(mac) => moved.mac == Some(mac.bytes()),
        Which::Path(_) | Which::Bus(_) => false,
    });
    match holder {
        Some(moved) => error.with_details(format!("{} has it", moved.owner().path())),
        None => error.with_details(
            "`ip link` lists what the host has; a device that is in a container, or bound to a driver of DPDK, is not there",
        ),
    }
}

/// A device without an interface: the addresses are for the program that drives it.
fn addresses_alone(
    request: &Request,
    attachment: &Attachment,
    settings: Settings,
) -> Result<CniResult, Error> {
    if settings.with_network {
        return Err(Error::config(format!(
            "\"useInterfaceNetwork\" is set, and {} has no interface: a program drives it",
            settings.which.text()
        )));
    }
    let name = settings.common.ipam.plugin()?;
    let leased = match name {
        Some(name) => Ipam::find(request, name)?.add(attachment)?,
        None => CniResult::default(),
    };
    Ok(CniResult {
        dns: settings.common.dns.unwrap_or(leased.dns.clone()),
        ..leased
    })
}

fn with_pci_id(mut result: CniResult, which: &Which) -> CniResult {
    if let (Which::Bus(id), Some(interface)) = (which, result.interfaces.first_mut()) {
        interface.pci_id.clone_from(id);
    }
    result
}

/// The addresses and routes that the host has on a device, but for those that the kernel makes by itself.
fn network_of(host: &Rtnl, device: &Link) -> Result<CniResult, Error> {
    let addresses = host.addresses(device.index)?.into_iter();
    let ips = addresses.filter(|address| {
        let lasts = address.flags.contains(AddressFlags::Permanent) || address.net.addr().is_ipv4();
        lasts && address.scope == AddressScope::Universe
    });
    let filter = RouteFilter {
        oif: Some(device.index),
        ..RouteFilter::default()
    };
    let routes = host.routes(&filter)?.into_iter();
    let routes =
        routes.filter(|route| !matches!(route.protocol, RouteProtocol::Kernel | RouteProtocol::Ra));
    Ok(CniResult {
        ips: ips
            .map(|address| IpConfig {
                interface: None,
                address: address.net,
                gateway: None,
            })
            .collect(),
        routes: routes
            .map(|route| Route {
                mtu: route.mtu,
                advmss: route.advmss,
                priority: (route.priority != 0).then_some(route.priority),
                ..Route::new(route.dst, route.gateway)
            })
            .collect(),
        ..CniResult::default()
    })
}

/// Brings back what attachments have that are not in `valid`. Carries on after an error.
fn collect(host: &Rtnl, store: &Store, request: &Request, valid: &[AttachmentId]) -> Vec<Error> {
    let all = match store.all() {
        Ok(all) => all,
        Err(error) => return vec![error],
    };
    let lost = all
        .into_iter()
        .filter(|moved| moved.network == request.network && !valid.contains(&moved.id()));
    let outcomes = lost.map(|moved| {
        let container = standing(&moved)?;
        moving::bring_back(host, container.as_ref(), store, &moved.owner())
    });
    outcomes.filter_map(Result::err).collect()
}

/// The namespace that has the device, if it is there still.
fn standing(moved: &Moved) -> Result<Option<Container>, Error> {
    let Ok(netns) = NetNs::open(&moved.netns) else {
        return Ok(None);
    };
    if moved.netns_cookie.is_some() && netns.cookie().ok() != moved.netns_cookie {
        return Ok(None);
    }
    Container::inside(netns).map(Some)
}
