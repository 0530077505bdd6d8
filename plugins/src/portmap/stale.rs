//! Connection tracking entries that would keep UDP packets from where the mappings send them.
//!
//! Only the first packet of a flow is translated; the rest follow its entry, which lives as long as packets keep
//! coming. A client that goes on sending while a container is replaced would be heard by nobody.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use super::conf::Protocol;
use super::plan::Forward;
use crate::host::conntrack::{Conntrack, Flow};
use crate::host::{HostError, Rtnl};

/// The index that the interface `lo` has in every namespace (`LOOPBACK_IFINDEX` of the kernel).
const LOOPBACK: u32 = 1;

/// Forgets the flows of UDP packets to the mapped ports that began before the mappings and lead elsewhere. Flows that
/// are not addressed to this host happen to have the same port and are left alone.
pub(super) fn forget_former(forwards: &[Forward]) -> Result<(), HostError> {
    let locals = Locals::new()?;
    forget_where(forwards, |forward, flow| {
        !leads_to(forward, flow) && locals.has(flow.original.destination)
    })
}

/// Forgets the flows of UDP packets that were forwarded to the container.
pub(super) fn forget(forwards: &[Forward]) -> Result<(), HostError> {
    forget_where(forwards, leads_to)
}

fn leads_to(forward: &Forward, flow: &Flow) -> bool {
    (flow.reply.source, flow.reply.source_port) == (forward.to.ip(), forward.to.port())
}

fn forget_where(
    forwards: &[Forward],
    selected: impl Fn(&Forward, &Flow) -> bool,
) -> Result<(), HostError> {
    for ipv6 in [false, true] {
        let mut by_port: BTreeMap<u16, Vec<&Forward>> = BTreeMap::new();
        let all = forwards.iter();
        for forward in all.filter(|it| it.protocol == Protocol::Udp && it.to.is_ipv6() == ipv6) {
            by_port.entry(forward.host_port).or_default().push(forward);
        }
        if by_port.is_empty() {
            continue;
        }
        Conntrack::open()?.forget(ipv6, |flow| {
            let to = &flow.original;
            to.protocol == Protocol::Udp.number()
                && by_port
                    .get(&to.destination_port)
                    .into_iter()
                    .flatten()
                    .any(|forward| {
                        forward.host.is_none_or(|host| host == to.destination)
                            && selected(forward, flow)
                    })
        })?;
    }
    Ok(())
}

/// Which addresses are this host's own, asked of the kernel once each.
struct Locals {
    host: Rtnl,
    known: RefCell<BTreeMap<IpAddr, bool>>,
}

impl Locals {
    fn new() -> Result<Self, HostError> {
        Ok(Self {
            host: Rtnl::new()?,
            known: RefCell::default(),
        })
    }

    /// An address that the kernel can't be asked about counts as somebody else's.
    fn has(&self, address: IpAddr) -> bool {
        *self.known.borrow_mut().entry(address).or_insert_with(|| {
            self.host
                .link_towards(address)
                .is_ok_and(|link| link == Some(LOOPBACK))
        })
    }
}
