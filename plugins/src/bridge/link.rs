//! The bridge itself, and the addresses that make it a gateway. Both are shared by all containers of the network, and
//! perhaps by several networks: they are made sure of, and never undone by one container.

use std::net::IpAddr;
use std::time::Duration;

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};
use ipnet::IpNet;
use nix::errno::Errno;

use super::conf::{Settings, Vlans};
use super::plan;
use crate::attach::{forward, ipv6, mac};
use crate::host::rtnl::{
    AddressOptions, BridgeChange, BridgeVlan, Change, Link, LinkChange, NewBridge, NewVeth,
    VethEnd, VlanOwner,
};
use crate::host::{HostError, NetNs, Rtnl};

/// The kind of link that the kernel calls it.
pub(super) const KIND: &str = "bridge";

/// How long a new port may take until it forwards. Without spanning tree this is a matter of microseconds after
/// both ends are up; with it, of twice the forward delay (30 s by default).
pub(super) const FORWARDING_BOUND: Duration = Duration::from_secs(45);

/// The bridge, made if it is missing, and up.
///
/// Two processes may do this at once: whoever loses the race to create it goes on with the other's bridge.
pub(super) fn ensure(host: &Rtnl, settings: &Settings) -> Result<Link, Error> {
    let name = settings.bridge.as_str();
    let mut bridge = match host.link_by_name(name)? {
        Some(link) => link,
        None => create(host, settings)?,
    };
    if bridge.kind.as_deref() != Some(KIND) {
        let kind = bridge.kind.as_deref().unwrap_or("hardware");
        return Err(Error::new(
            Code::Conflict,
            format!("interface {name} exists, but it is a {kind} device, not a bridge"),
        )
        .with_details("set \"bridge\" to another name, or remove that interface"));
    }
    let filtering = bridge
        .bridge
        .as_ref()
        .and_then(|info| info.vlan_filtering)
        .unwrap_or(false);
    if settings.vlans.any() && !filtering {
        host.set_bridge(
            bridge.index,
            &BridgeChange {
                vlan_filtering: Some(true),
                ..BridgeChange::default()
            },
        )?;
    }
    if !bridge.up || settings.gateway {
        // Before it is up: containers must not tell the host its routes (CVE-2020-10749). A bridge that others made and
        // that is no gateway may be the way by which the host itself gets its address.
        ipv6::ignore_advertisements(&mut bridge)?;
        if !settings.gateway {
            ipv6::judge_advertisements(&bridge, false)?;
        }
    }
    let promisc = settings.promisc && !bridge.promisc;
    if bridge.up && !promisc {
        return Ok(bridge);
    }
    if !bridge.up && !settings.dad {
        // So that its link-local address can be used at once, like the others.
        ipv6::skip_detection(name)?;
    }
    let change = LinkChange {
        up: Some(true),
        promisc: promisc.then_some(true),
        // One that is given at creation is lost when the first port joins (net/bridge/br_if.c, br_mtu_auto_adjust).
        mtu: if bridge.up { None } else { settings.mtu },
        ..LinkChange::default()
    };
    host.set_link(bridge.index, &change)?;
    Ok(Link {
        up: true,
        promisc: promisc || bridge.promisc,
        ..bridge
    })
}

fn create(host: &Rtnl, settings: &Settings) -> Result<Link, Error> {
    let name = settings.bridge.as_str();
    let new = NewBridge {
        name,
        mac: Some(mac::random()?.bytes()),
        vlan_filtering: settings.vlans.any(),
        multicast_snooping: Some(settings.multicast_snooping),
        ..NewBridge::default()
    };
    match host.create_bridge(&new) {
        Ok(link) => Ok(link),
        Err(error) if error.is_exists() => host.link_by_name(name)?.ok_or_else(|| error.into()),
        Err(error) => Err(error.into()),
    }
}

/// Gives the gateway's interface its addresses and makes the host forward. Returns the interface if it is another one
/// than the bridge.
pub(super) fn ensure_gateway(
    host: &Rtnl,
    settings: &Settings,
    bridge: &Link,
    gateways: &[IpNet],
) -> Result<Option<Link>, Error> {
    if gateways.is_empty() {
        if settings.gateway {
            ipv6::judge_advertisements(bridge, false)?;
        }
        return Ok(None);
    }
    let vlan = settings
        .vlans
        .access
        .map(|vid| ensure_vlan_gateway(host, settings, bridge, vid))
        .transpose()?;
    ensure_addresses(host, settings, vlan.as_ref().unwrap_or(bridge), gateways)?;
    if gateways.iter().any(|gateway| gateway.addr().is_ipv4()) {
        forward::ensure_ipv4()?;
    }
    let has_ipv6 = gateways.iter().any(|gateway| gateway.addr().is_ipv6());
    if has_ipv6 {
        forward::ensure_ipv6(host)?;
    }
    for link in [Some(bridge), vlan.as_ref()].into_iter().flatten() {
        ipv6::judge_advertisements(link, has_ipv6)?;
    }
    Ok(vlan)
}

fn ensure_addresses(
    host: &Rtnl,
    settings: &Settings,
    link: &Link,
    gateways: &[IpNet],
) -> Result<(), Error> {
    let has: Vec<IpNet> = host
        .addresses(link.index)?
        .into_iter()
        .map(|address| address.net)
        .collect();
    let plan = plan::plan_addresses(&has, gateways);
    if let Some((old, new)) = plan.conflicts.first() {
        if !settings.force_address {
            return Err(conflict(host, link, old, new)?);
        }
        for (old, _) in &plan.conflicts {
            host.delete_address(link.index, *old)?;
        }
    }
    let options = AddressOptions {
        nodad: !settings.dad,
        ..AddressOptions::default()
    };
    for address in plan.add {
        if address.addr().is_ipv6() {
            ipv6::enable(&link.name)?;
        }
        match host.add_address(link.index, address, options) {
            // Another ADD was quicker.
            Err(error) if error.is_exists() => {}
            outcome => outcome?,
        }
    }
    Ok(())
}

fn conflict(host: &Rtnl, link: &Link, old: &IpNet, new: &IpNet) -> Result<Error, Error> {
    let (name, ports) = (&link.name, host.bridge_ports(link.index)?.len());
    let ports = match ports {
        1 => "1 port".to_owned(),
        ports => format!("{ports} ports"),
    };
    Ok(Error::new(
        Code::Conflict,
        format!("{name} already has the address {old}, but this network needs {new} there; the bridge has {ports}"),
    )
    .with_details(format!(
        "another network uses this bridge, or the subnet was changed: give this network a \"bridge\" of its own, or \
         remove the old address with `ip address delete {old} dev {name}`, or let ADD replace it with \
         \"forceAddress\": true"
    )))
}

/// The gateway of a VLAN: `BRIDGE.VID`, one end of a veth pair whose other end is a port in that VLAN.
fn ensure_vlan_gateway(
    host: &Rtnl,
    settings: &Settings,
    bridge: &Link,
    vid: u16,
) -> Result<Link, Error> {
    let name = format!("{}.{vid}", bridge.name);
    let mut gateway = match host.link_by_name(&name)? {
        Some(link) => link,
        None => create_vlan_gateway(host, settings, bridge, &name)?,
    };
    // It comes up last. So one that is down is new, or was left so by an ADD that was killed, or is another ADD's just now.
    if !gateway.up
        && let Some(mut port) = host.link_by_name(&port_of_vlan_gateway(&name))?
    {
        let vlans = Vlans {
            access: Some(vid),
            trunk: Vec::new(),
            ..settings.vlans
        };
        set_vlans(host, port.index, &vlans)?;
        for link in [&mut port, &mut gateway] {
            ipv6::ignore_advertisements(link)?;
            host.set_link(link.index, &LinkChange::up())?;
        }
    }
    Ok(gateway)
}

fn create_vlan_gateway(
    host: &Rtnl,
    settings: &Settings,
    bridge: &Link,
    name: &str,
) -> Result<Link, Error> {
    let here = NetNs::current()?;
    let new = NewVeth {
        host: VethEnd {
            name: &port_of_vlan_gateway(name),
            mac: Some(mac::random()?.bytes()),
            mtu: settings.mtu,
        },
        alias: Some("trestle: VLAN gateway port"),
        master: Some(bridge.index),
        up: false,
        peer: VethEnd {
            name,
            mac: Some(mac::random()?.bytes()),
            mtu: settings.mtu,
        },
        peer_netns: &here,
    };
    match host.create_veth(&new) {
        Ok(_) => {}
        // Another ADD was quicker.
        Err(error) if error.is_exists() => {}
        Err(error) => return Err(error.into()),
    }
    host.link_by_name(name)?.ok_or_else(|| {
        Error::new(
            Code::Conflict,
            format!("{name} vanished while it was being made"),
        )
    })
}

/// A name for the bridge's port, derived from that of the gateway.
fn port_of_vlan_gateway(gateway: &str) -> String {
    let hash = crate::attach::owner::fnv1a(gateway.as_bytes());
    format!("veth{:08x}", hash & 0xffff_ffff)
}

/// Makes a port's settings and brings it up. It needs no link-local address of its own: everything it receives is the
/// bridge's.
///
/// First the settings: of a link that is up the kernel tells everybody what has changed, and where it has no carrier yet,
/// goes through all the host's IPv6 routes for that, of which each port has one (`netif_state_change` in net/core/dev.c,
/// `rt6_sync_down_dev` in net/ipv6/route.c). The port comes up even where a setting is refused; its other end is still down,
/// so nothing passes before the caller has taken it away again.
pub(super) fn bring_port_up(
    host: &Rtnl,
    port: u32,
    settings: &LinkChange<'_>,
) -> Result<(), HostError> {
    let quiet = LinkChange {
        no_link_local: true,
        ..*settings
    };
    let [quiet, up] = [quiet, LinkChange::up()].map(|change| Change::Link { link: port, change });
    match host.apply(&[quiet, up]) {
        // No IPv6 in this kernel, or the MTU is too small for it.
        Err((0, error)) if error.errno() == Some(Errno::EAFNOSUPPORT) => {
            host.set_link(port, settings)
        }
        outcome => outcome.map_err(|(_, error)| error),
    }
}

/// The bridge as it is now that a port has joined.
///
/// One that somebody else made may take the MTU or the MAC address of its ports, the lowest of them
/// (net/bridge/br_if.c, `br_mtu_auto_adjust`; net/bridge/br_stp_if.c, `br_stp_recalculate_bridge_id`).
pub(super) fn after_joining(host: &Rtnl, bridge: Link, port: &Link) -> Result<Link, HostError> {
    if port.mtu == bridge.mtu && port.mac > bridge.mac {
        return Ok(bridge);
    }
    Ok(host.link_by_index(bridge.index)?.unwrap_or(bridge))
}

/// Puts a port into its VLANs.
pub(super) fn set_vlans(host: &Rtnl, port: u32, vlans: &Vlans) -> Result<(), Error> {
    if !vlans.any() {
        return Ok(());
    }
    let owner = VlanOwner::Port(port);
    if !vlans.keep_default {
        host.delete_bridge_vlans(owner, &[1..=1])?;
    }
    let access = vlans.access.map(|vid| BridgeVlan {
        vids: vid..=vid,
        pvid: true,
        untagged: true,
    });
    let trunk = vlans.trunk.iter().map(|(low, high)| BridgeVlan {
        vids: *low..=*high,
        pvid: false,
        untagged: false,
    });
    let all: Vec<BridgeVlan> = access.into_iter().chain(trunk).collect();
    host.add_bridge_vlans(owner, &all)?;
    Ok(())
}

/// The text of a link's MAC address, as results have it.
pub(super) fn mac_text(link: &Link) -> String {
    link.mac
        .map(|mac| MacAddr::new(mac).to_string())
        .unwrap_or_default()
}

/// True if the address is one that a gateway has, whatever the prefix length.
pub(super) fn is_gateway_address(address: IpAddr, gateways: &[IpNet]) -> bool {
    gateways.iter().any(|gateway| gateway.addr() == address)
}
