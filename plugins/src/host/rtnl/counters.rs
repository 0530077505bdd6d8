//! What a link has counted, and the programs that may take its packets before any rule sees them.

use std::collections::BTreeSet;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkXdp, XdpAttached};
use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};
use nix::errno::Errno;
use rtnetlink::{LinkMessageBuilder, LinkUnspec};

use super::super::error::HostError;
use super::exchange::Rtnl;
use super::qdisc::tc_message;

/// What a link has counted since it was made, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Those that it has sent.
    pub sent: u64,
    /// Received ones that were dropped, whatever for.
    pub receive_drops: u64,
    /// Those to be sent that were dropped.
    pub transmit_drops: u64,
    /// Received ones that were bad.
    pub receive_errors: u64,
    /// Those that could not be sent.
    pub transmit_errors: u64,
    /// Whether an XDP program sees what the link receives.
    pub xdp: bool,
}

impl Rtnl {
    /// The counters of a link; none where there is no such link.
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn counters(&self, link: u32) -> Result<Option<Counters>, HostError> {
        let request = LinkMessageBuilder::<LinkUnspec>::new().index(link).build();
        let attributes = match self.get(RouteNetlinkMessage::GetLink(request)) {
            Ok(RouteNetlinkMessage::NewLink(message)) => message.attributes,
            Ok(_) => return Ok(None),
            Err(error) if error.errno() == Some(Errno::ENODEV) => return Ok(None),
            Err(error) => {
                return Err(error.during(format!("read the counters of link {link}")));
            }
        };
        let mut counters = Counters::default();
        for attribute in attributes {
            match attribute {
                LinkAttribute::Stats64(stats) => {
                    counters.sent = stats.tx_packets;
                    counters.receive_drops = stats.rx_dropped;
                    counters.transmit_drops = stats.tx_dropped;
                    counters.receive_errors = stats.rx_errors;
                    counters.transmit_errors = stats.tx_errors;
                }
                LinkAttribute::Xdp(all) => {
                    let is = |it: &LinkXdp| matches!(it, LinkXdp::Attached(how) if *how != XdpAttached::None);
                    counters.xdp = all.iter().any(is);
                }
                _ => {}
            }
        }
        Ok(Some(counters))
    }

    /// The kinds of traffic control that may drop or redirect packets of a link: its queueing discipline if that shapes,
    /// and filters of both directions (`bpf`, `u32`, …).
    ///
    /// # Errors
    /// [`HostError::Netlink`].
    pub fn traffic_control(&self, link: u32) -> Result<Vec<String>, HostError> {
        let mut found = Vec::new();
        let mut root = tc_message(link);
        root.header.parent = TcHandle::ROOT;
        let queue = self.tc_object(link, RouteNetlinkMessage::GetQueueDiscipline(root))?;
        let root = queue.and_then(|queue| kind(&queue.attributes));
        const PLAIN: [&str; 5] = ["noqueue", "mq", "fq", "fq_codel", "pfifo_fast"];
        if let Some(kind) = root.filter(|kind| !PLAIN.contains(&kind.as_str())) {
            found.push(format!("queueing discipline {kind}"));
        }
        let mut hook = tc_message(link);
        hook.header.parent = TcHandle::INGRESS;
        let hook = self.tc_object(link, RouteNetlinkMessage::GetQueueDiscipline(hook))?;
        // clsact is for both directions, ingress for the first.
        let directions = match hook.and_then(|hook| kind(&hook.attributes)).as_deref() {
            Some("clsact") => &[(0xfff2, "received"), (0xfff3, "sent")][..],
            Some(_) => &[(0xfff2, "received")],
            None => &[],
        };
        for &(minor, word) in directions {
            let mut request = tc_message(link);
            request.header.parent = TcHandle {
                major: 0xffff,
                minor,
            };
            let kinds = self.filters(request, link)?;
            found.extend(
                kinds
                    .into_iter()
                    .map(|kind| format!("tc filter {kind} on what is {word}")),
            );
        }
        Ok(found)
    }

    fn filters(&self, request: TcMessage, link: u32) -> Result<BTreeSet<String>, HostError> {
        match self.dump(&RouteNetlinkMessage::GetTrafficFilter(request)) {
            Ok(answers) => Ok(answers
                .into_iter()
                .filter_map(|answer| match answer {
                    RouteNetlinkMessage::NewTrafficFilter(it) => kind(&it.attributes),
                    _ => None,
                })
                .collect()),
            Err(error)
                if matches!(
                    error.errno(),
                    Some(Errno::EINVAL | Errno::ENOENT | Errno::EOPNOTSUPP)
                ) =>
            {
                Ok(BTreeSet::new())
            }
            Err(error) => Err(error.during(format!("list tc filters of {}", self.describe(link)))),
        }
    }
}

fn kind(attributes: &[TcAttribute]) -> Option<String> {
    attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    })
}
