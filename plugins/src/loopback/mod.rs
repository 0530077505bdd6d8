//! The `loopback` plugin: `lo` in the container, up.

use std::net::{Ipv4Addr, Ipv6Addr};

use cni_conf::addr::MacAddr;
use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::{CniResult, Interface, IpConfig};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::attach::check::failed;
use crate::attach::container::Container;
use crate::host::rtnl::{Link, LinkChange};

/// What the kernel calls it in every namespace.
const LO: &str = "lo";

/// The addresses that the kernel gives it when it comes up.
const LOOPBACK_V4: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8);
const LOOPBACK_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128);

/// The plugin.
pub struct Loopback;

impl Plugin for Loopback {
    /// A result of an earlier plugin is passed on unchanged.
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let container = Container::open(attachment)?;
        let lo = lo(&container)?;
        set_up(&container, &lo, true)?;
        match &request.prev_result {
            Some(previous) => Ok(previous.clone()),
            None => result(&container, &lo),
        }
    }

    fn del(&self, _: &Request, attachment: &Attachment) -> Result<(), Error> {
        match Container::open_if_there(attachment)? {
            Some(container) => set_up(&container, &lo(&container)?, false),
            None => Ok(()),
        }
    }

    fn check(&self, _: &Request, attachment: &Attachment) -> Result<(), Error> {
        let container = Container::open(attachment)?;
        if lo(&container)?.up {
            Ok(())
        } else {
            Err(failed("the container's interface lo is down"))
        }
    }

    /// Nothing outside the container belongs to it.
    fn gc(&self, _: &Request, _: &[AttachmentId]) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, _: &Request) -> Result<(), Error> {
        Ok(())
    }
}

fn lo(container: &Container) -> Result<Link, Error> {
    container
        .rtnl
        .link_by_name(LO)?
        .ok_or_else(|| failed("the container has no interface lo"))
}

fn set_up(container: &Container, lo: &Link, up: bool) -> Result<(), Error> {
    if lo.up != up {
        container.rtnl.set_link(
            lo.index,
            &LinkChange {
                up: Some(up),
                ..LinkChange::default()
            },
        )?;
    }
    Ok(())
}

/// The loopback addresses that the kernel gave it, 127.0.0.1/8 and ::1/128 as far as there are both protocols.
fn result(container: &Container, lo: &Link) -> Result<CniResult, Error> {
    let addresses = container
        .rtnl
        .addresses(lo.index)?
        .into_iter()
        .map(|address| address.net);
    // Whoever is in the namespace already may have given it more.
    let of_the_kernel = [IpNet::V4(LOOPBACK_V4), IpNet::V6(LOOPBACK_V6)];
    Ok(CniResult {
        interfaces: vec![Interface {
            name: LO.into(),
            mac: MacAddr::new([0; 6]).to_string(),
            sandbox: container.netns.path().display().to_string(),
            ..Interface::default()
        }],
        ips: addresses
            .filter(|net| of_the_kernel.contains(net))
            .map(|address| IpConfig {
                interface: Some(0),
                address,
                gateway: None,
            })
            .collect(),
        ..CniResult::default()
    })
}
