//! ADD.

use std::time::Duration;

use cni_conf::addr::MacAddr;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};
use cni_conf::result::{CniResult, Interface};
use ipnet::IpNet;

use super::conf::Settings;
use super::plan::{self, Plan};
use crate::attach::container::Container;
use crate::attach::forwarding;
use crate::attach::ipam::Ipam;
use crate::attach::undo::Undo;
use crate::attach::veth::{self, Pair};
use crate::attach::{host_route, ip_forward, ipv6, mac, masq};
use crate::host::Rtnl;
use crate::host::rtnl::{AddressOptions, Change, LinkChange, NewRoute, VethPair};
use crate::netfilter::forward_hook::Behind;
use crate::owner::Owner;

/// How long the kernel may take to notice that the host's end has a carrier. It drops what leaves there until then, and
/// mostly needs microseconds.
const CARRIER_BOUND: Duration = Duration::from_secs(10);

pub(super) fn add(request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
    let settings = Settings::read(request)?;
    let ipam = Ipam::find(request, settings.ipam_plugin.clone())?;
    let container = Container::open(attachment)?;
    container.require_free(attachment.ifname.as_str())?;
    let add = Add {
        settings,
        owner: Owner::of(request, attachment),
        host: Rtnl::new()?,
        container,
    };
    Undo::guard(|undo| {
        let leased = ipam.add(attachment)?;
        undo.push(|| ipam.del(attachment));
        let plan = plan::plan(&leased)?;
        add.ensure_forwarding(&plan)?;
        if add.settings.masquerade.is_some() {
            // As in DEL, rules go when nothing of the container stands any more that another ADD would restore them for.
            undo.push(|| masq::remove(&add.owner));
        }
        let (pair, mac) = add.connect(&plan, undo)?;
        match &add.settings.masquerade {
            Some(masquerade) => masquerade.ensure(request, &add.owner, &plan.layer3.ips)?,
            None => masq::release(&add.owner, &plan.layer3.ips),
        }
        add.set_up_host(&plan, &pair)?;
        add.container
            .configure(pair.peer_index, add.owner.ifname.as_str(), &plan.layer3)?;
        add.host
            .wait_until_forwarding(pair.host.index, CARRIER_BOUND)?;
        let behind = Behind::Link(&pair.host.name);
        let (host, network) = (&add.host, &add.owner.network);
        forwarding::warn_of_dropped_traffic(host, network, behind, &plan.layer3.ips);
        Ok(add.result(leased, plan, &pair, mac))
    })
}

/// What one ADD works with.
struct Add {
    settings: Settings,
    owner: Owner,
    host: Rtnl,
    container: Container,
}

impl Add {
    fn ensure_forwarding(&self, plan: &Plan) -> Result<(), Error> {
        if plan.layer3.has_ipv4() {
            ip_forward::ensure_ipv4()?;
        }
        if plan.layer3.has_ipv6() {
            ip_forward::ensure_ipv6(&self.host)?;
        }
        Ok(())
    }

    fn connect<'a>(
        &'a self,
        plan: &Plan,
        undo: &mut Undo<'a>,
    ) -> Result<(VethPair, MacAddr), Error> {
        let mac = match mac::of_ips(&plan.layer3.ips) {
            Some(mac) => mac,
            None => mac::random()?,
        };
        undo.push(|| veth::delete_anew(&self.owner));
        let pair = veth::create(
            &self.host,
            &Pair {
                owner: &self.owner,
                container: &self.container,
                mac,
                mtu: self.settings.mtu,
                master: None,
            },
        )?;
        Ok((pair, mac))
    }

    /// The gateway's addresses on the host's end, and the routes to the container.
    fn set_up_host(&self, plan: &Plan, pair: &VethPair) -> Result<(), Error> {
        let link = pair.host.index;
        let has_ipv6 = plan.layer3.has_ipv6();
        ipv6::judge_advertisements(&pair.host, has_ipv6)?;
        if has_ipv6 {
            ipv6::enable(&pair.host.name)?;
        }
        let options = AddressOptions {
            nodad: true,
            noprefixroute: true,
        };
        let alias = self.owner.alias();
        let gateways = plan.gateways.iter().map(|gateway| Change::Address {
            link,
            net: IpNet::from(*gateway),
            options,
        });
        let label_and_up =
            [veth::label(&alias), LinkChange::up()].map(|change| Change::Link { link, change });
        let routes = plan.container.iter().map(|address| {
            Change::Route(NewRoute {
                oif: Some(link),
                ..NewRoute::to(IpNet::from(*address))
            })
        });
        // IPv6 addresses are added to links that are up: see Layer3::interface.
        let all: Vec<_> = label_and_up
            .into_iter()
            .chain(gateways)
            .chain(routes)
            .collect();
        self.host
            .apply(&all)
            .map_err(|(place, error)| match all.get(place) {
                Some(Change::Route(new)) => host_route::explain(&self.host, error, new.dst.addr()),
                _ => error.into(),
            })
    }

    fn result(&self, leased: CniResult, plan: Plan, pair: &VethPair, mac: MacAddr) -> CniResult {
        let host = Interface {
            name: pair.host.name.clone(),
            mac: mac::of_host_end(&self.owner).to_string(),
            mtu: pair.host.mtu,
            ..Interface::default()
        };
        let container = Interface {
            name: self.owner.ifname.to_string(),
            mac: mac.to_string(),
            mtu: pair.host.mtu,
            sandbox: self.container.netns.path().display().to_string(),
            ..Interface::default()
        };
        let dns = self.settings.dns.clone().unwrap_or(leased.dns);
        CniResult {
            interfaces: vec![host, container],
            ips: plan.layer3.ips,
            routes: plan.layer3.routes,
            dns,
        }
    }
}
