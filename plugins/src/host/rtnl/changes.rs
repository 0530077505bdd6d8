//! Several changes in one message to the kernel.

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage;

use super::super::error::HostError;
use super::address::AddressOptions;
use super::exchange::Rtnl;
use super::link_change::LinkChange;
use super::new_route::NewRoute;

/// One of several changes.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// As [`Rtnl::add_address`].
    Address {
        /// The link's index.
        link: u32,
        /// The address and the length of its prefix.
        net: IpNet,
        /// How it is added.
        options: AddressOptions,
    },
    /// As [`Rtnl::set_link`].
    Link {
        /// The link's index.
        link: u32,
        /// What to change about it.
        change: LinkChange<'a>,
    },
    /// As [`Rtnl::add_route`].
    Route(NewRoute),
    /// As [`Rtnl::add_route_beside`].
    RouteBeside(NewRoute),
}

impl Rtnl {
    /// Makes changes one after the other. Nobody else who waits for the kernel's lock of the routing tables and links
    /// has to be waited for more often than needed, and there is one round trip for all.
    ///
    /// # Errors
    /// That of the first change that failed, with its place among `changes`. Those after it may have been made.
    pub fn apply(&self, changes: &[Change<'_>]) -> Result<(), (usize, HostError)> {
        let requests = changes.iter().map(Change::request).collect();
        self.ask_all(requests).map_err(|error| {
            let place = error.position();
            let text = changes
                .get(place)
                .map_or_else(String::new, |change| change.text(self));
            (place, error.during(text))
        })
    }

    /// Makes one change.
    pub(super) fn make(&self, change: &Change<'_>) -> Result<(), HostError> {
        let (request, flags) = change.request();
        self.ask(request, flags)
            .map_err(|error| error.during(change.text(self)))?;
        Ok(())
    }
}

impl Change<'_> {
    /// The request, and the flags that it goes with.
    fn request(&self) -> (RouteNetlinkMessage, u16) {
        match self {
            Self::Address { link, net, options } => options.request(*link, *net),
            Self::Link { link, change } => (change.request(*link), 0),
            Self::Route(new) => new.request(),
            Self::RouteBeside(new) => new.request_beside(),
        }
    }

    /// What it does, in words for an error message.
    fn text(&self, rtnl: &Rtnl) -> String {
        match self {
            Self::Address { link, net, .. } => {
                format!("add address {net} to {}", rtnl.describe(*link))
            }
            Self::Link { link, change } => format!("{change} on {}", rtnl.describe(*link)),
            Self::Route(new) | Self::RouteBeside(new) => rtnl.route_text("add", new),
        }
    }
}
