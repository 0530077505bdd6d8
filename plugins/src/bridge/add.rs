//! ADD.

use cni_conf::addr::MacAddr;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};
use cni_conf::result::{CniResult, Interface};

use super::conf::Settings;
use super::neighbours::Announcement;
use super::plan::{self, Plan};
use super::{gateway, isolation, link};
use crate::attach::container::Container;
use crate::attach::forwarding;
use crate::attach::ipam::Ipam;
use crate::attach::undo::Undo;
use crate::attach::veth::{self, Pair};
use crate::attach::{host_route, mac, masq};
use crate::host::Rtnl;
use crate::host::rtnl::{Link, LinkChange, PortChange, VethPair};
use crate::netfilter::forward_hook::Behind;
use crate::owner::Owner;

/// How often a bridge that vanishes between two steps is made again.
const BRIDGE_ATTEMPTS: u32 = 3;

pub(super) fn add(request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
    let settings = Settings::read(request, Some(attachment))?;
    let ipam = settings
        .ipam
        .plugin()?
        .map(|name| Ipam::find(request, name))
        .transpose()?;
    let container = Container::open(attachment)?;
    container.require_free(attachment.ifname.as_str())?;
    let add = Add {
        settings,
        owner: Owner::of(request, attachment),
        host: Rtnl::new()?,
        container,
    };
    // A configuration whose bridge can't be had should not cost an address.
    let bridge = link::ensure(&add.host, &add.settings)?;
    Undo::guard(|undo| {
        let early = if ipam.as_ref().is_some_and(Ipam::needs_interface) {
            Some(add.connect_for_ipam(request, bridge.clone(), undo)?)
        } else {
            None
        };
        let leased = match &ipam {
            None => CniResult::default(),
            Some(ipam) => {
                let leased = ipam.add(attachment)?;
                undo.push(|| ipam.del(attachment));
                leased
            }
        };
        let plan = plan::plan(&add.settings, &leased)?;
        if add.settings.masquerade.is_some() {
            // As in DEL, rules go when nothing of the container stands any more that another ADD would restore them for.
            undo.push(|| masq::remove(&add.owner));
        }
        let opened = early.is_some();
        let connected = match early {
            None => add.connect(request, bridge, &plan, undo)?,
            Some(early) => add.complete(request, early, &plan)?,
        };
        add.settings
            .netfilter
            .ensure(&add.host, &connected.bridge)?;
        match &add.settings.masquerade {
            Some(masquerade) => masquerade.ensure(request, &add.owner, &plan.layer3.ips)?,
            None => masq::release(&add.owner, &plan.layer3.ips),
        }
        add.route_to(&plan, &connected, undo)?;
        add.announcement(&plan, &connected).note(&add.host)?;
        add.isolate(request, &plan, &connected, undo)?;
        if !opened {
            add.open_port(&connected)?;
        }
        add.bring_up(&plan, &connected)?;
        if add.settings.gateway {
            let behind = Behind::Link(add.settings.bridge.as_str());
            let (host, network) = (&add.host, &add.owner.network);
            forwarding::warn_of_dropped_traffic(host, network, behind, &plan.layer3.ips);
        }
        add.result(leased, plan, connected)
    })
}

/// What one ADD works with.
struct Add {
    settings: Settings,
    owner: Owner,
    host: Rtnl,
    container: Container,
}

/// The pair and what it is plugged into.
struct Connected {
    bridge: Link,
    vlan_gateway: Option<Link>,
    pair: VethPair,
    mac: MacAddr,
}

impl Connected {
    /// The interface that has the gateways' addresses, if the bridge is one.
    fn gateway(&self) -> &Link {
        self.vlan_gateway.as_ref().unwrap_or(&self.bridge)
    }
}

impl Add {
    /// Makes the bridge a gateway and plugs the pair in.
    fn connect<'a>(
        &'a self,
        request: &Request,
        mut bridge: Link,
        plan: &Plan,
        undo: &mut Undo<'a>,
    ) -> Result<Connected, Error> {
        let mac = match plan::mac(&self.settings, &plan.layer3) {
            Some(mac) => mac,
            None => mac::random()?,
        };
        undo.push(|| veth::delete_anew(&self.owner));
        let mut attempt = 1;
        loop {
            match self.attach_port(request, &bridge, plan, mac) {
                Ok((vlan_gateway, pair)) => {
                    return Ok(Connected {
                        bridge,
                        vlan_gateway,
                        pair,
                        mac,
                    });
                }
                Err(error) => {
                    let vanished = self.host.link_by_index(bridge.index)?.is_none();
                    if !vanished || attempt == BRIDGE_ATTEMPTS {
                        return Err(error);
                    }
                    bridge = link::ensure(&self.host, &self.settings)?;
                    attempt += 1;
                }
            }
        }
    }

    fn attach_port(
        &self,
        request: &Request,
        bridge: &Link,
        plan: &Plan,
        mac: MacAddr,
    ) -> Result<(Option<Link>, VethPair), Error> {
        let (host, settings) = (&self.host, &self.settings);
        let vlan_gateway =
            gateway::ensure_gateway(host, settings, request, bridge, &plan.gateways)?;
        let pair = veth::create(
            &self.host,
            &Pair {
                owner: &self.owner,
                container: &self.container,
                mac,
                mtu: self.settings.mtu,
                master: Some(bridge.index),
            },
        )?;
        Ok((vlan_gateway, pair))
    }

    /// What the host does for isolated ports.
    fn isolate<'a>(
        &'a self,
        request: &Request,
        plan: &Plan,
        connected: &Connected,
        undo: &mut Undo<'a>,
    ) -> Result<(), Error> {
        if !self.settings.isolated || plan.layer3.ips.is_empty() {
            return Ok(());
        }
        undo.push(|| isolation::remove(&self.owner));
        let (interface, mac) = (&connected.gateway().name, connected.mac);
        isolation::ensure(request, &self.owner, interface, &plan.layer3.ips, mac)
    }

    fn announcement<'a>(&'a self, plan: &'a Plan, connected: &'a Connected) -> Announcement<'a> {
        Announcement {
            settings: &self.settings,
            bridge: &connected.bridge,
            gateway: connected.gateway(),
            layer3: &plan.layer3,
            mac: connected.mac,
        }
    }

    /// The host's routes to addresses that are in no subnet of the bridge.
    fn route_to<'a>(
        &'a self,
        plan: &Plan,
        connected: &Connected,
        undo: &mut Undo<'a>,
    ) -> Result<(), Error> {
        let link = connected.gateway().index;
        for address in plan.outside.iter().copied() {
            host_route::ensure(&self.host, link, address)?;
            undo.push(move || Ok(host_route::remove(&self.host, link, address).map(drop)?));
        }
        Ok(())
    }

    /// Plugs the pair in for an IPAM plugin that asks a server by the container's interface. The bridge forwards then.
    fn connect_for_ipam<'a>(
        &'a self,
        request: &Request,
        bridge: Link,
        undo: &mut Undo<'a>,
    ) -> Result<Connected, Error> {
        let connected = self.connect(request, bridge, &Plan::default(), undo)?;
        self.open_port(&connected)?;
        let inside = connected.pair.peer_index;
        self.container.rtnl.set_link(inside, &LinkChange::up())?;
        let port = connected.pair.host.index;
        self.host
            .wait_until_forwarding(port, link::FORWARDING_BOUND)?;
        Ok(connected)
    }

    /// What the addresses add to a pair that is plugged in already.
    fn complete(
        &self,
        request: &Request,
        early: Connected,
        plan: &Plan,
    ) -> Result<Connected, Error> {
        let (host, settings) = (&self.host, &self.settings);
        let vlan_gateway =
            gateway::ensure_gateway(host, settings, request, &early.bridge, &plan.gateways)?;
        Ok(Connected {
            vlan_gateway,
            ..early
        })
    }

    /// The port's settings, and the port up.
    fn open_port(&self, connected: &Connected) -> Result<(), Error> {
        let (settings, port) = (&self.settings, connected.pair.host.index);
        link::set_vlans(&self.host, port, &settings.vlans)?;
        if settings.mac_spoof_check {
            self.host.add_static_fdb(port, connected.mac.bytes())?;
        }
        let ports = PortChange {
            hairpin: settings.hairpin.then_some(true),
            isolated: settings.isolated.then_some(true),
            locked: settings.mac_spoof_check.then_some(true),
            ..PortChange::default()
        };
        let alias = self.owner.alias();
        let change = LinkChange {
            port: (ports != PortChange::default()).then_some(ports),
            ..veth::label(&alias)
        };
        Ok(link::bring_port_up(&self.host, port, &change)?)
    }

    /// The container's end up, addresses and routes. When this returns, the bridge forwards.
    fn bring_up(&self, plan: &Plan, connected: &Connected) -> Result<(), Error> {
        let (settings, port) = (&self.settings, connected.pair.host.index);
        if settings.container_down {
            return Ok(());
        }
        let inside = connected.pair.peer_index;
        if settings.ipam.plugin()?.is_some() {
            self.container
                .configure(inside, self.owner.ifname.as_str(), &plan.layer3)?;
        } else {
            self.container.rtnl.set_link(inside, &LinkChange::up())?;
        }
        self.host
            .wait_until_forwarding(port, link::FORWARDING_BOUND)?;
        let ifname = self.owner.ifname.as_str();
        self.announcement(plan, connected)
            .tell(&self.host, &self.container, inside, ifname)?;
        // The first port gives the bridge its carrier, and what the host sends is dropped until the kernel has noticed.
        let own = [Some(&connected.bridge), connected.vlan_gateway.as_ref()];
        for link in own.into_iter().flatten().filter(|link| !link.running) {
            self.host
                .wait_until_forwarding(link.index, link::FORWARDING_BOUND)?;
        }
        Ok(())
    }

    fn result(
        &self,
        leased: CniResult,
        plan: Plan,
        connected: Connected,
    ) -> Result<CniResult, Error> {
        let bridge = link::after_joining(&self.host, connected.bridge, &connected.pair.host)?;
        let host_end = |link: &Link| Interface {
            name: link.name.clone(),
            mac: link::mac_text(link),
            mtu: link.mtu,
            ..Interface::default()
        };
        let container = Interface {
            name: self.owner.ifname.to_string(),
            mac: connected.mac.to_string(),
            mtu: connected.pair.host.mtu,
            sandbox: self.container.netns.path().display().to_string(),
            ..Interface::default()
        };
        let mut interfaces = vec![host_end(&bridge), host_end(&connected.pair.host), container];
        interfaces.extend(connected.vlan_gateway.as_ref().map(host_end));
        let dns = self.settings.dns.clone().unwrap_or(leased.dns);
        Ok(CniResult {
            interfaces,
            ips: plan.layer3.ips,
            routes: plan.layer3.routes,
            dns,
        })
    }
}
