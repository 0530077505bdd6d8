//! The bridge itself and its ports. It is shared by all containers of the network, and perhaps by several networks: it is
//! made sure of, and never undone by one container.

use std::time::Duration;

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};
use nix::errno::Errno;

use super::conf::{Settings, Vlans};
use crate::attach::{bridge_label, ipv6, mac};
use crate::host::rtnl::{BridgeChange, BridgeVlan, Change, Link, LinkChange, NewBridge, VlanOwner};
use crate::host::{HostError, Rtnl, sysfs};

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
    let (mut bridge, is_new) = match host.link_by_name(name)? {
        Some(link) => (link, false),
        None => (create(host, settings)?, true),
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
    if settings.gateway && !is_new && !bridge_label::is_made_here(&bridge) {
        pin_mac(host, &mut bridge)?;
    }
    let promisc = settings.promisc && !bridge.promisc;
    if bridge.up && !promisc {
        return Ok(bridge);
    }
    if !bridge.up && !settings.dad {
        // So that its link-local address can be used at once, like the others.
        ipv6::skip_detection(name)?;
    }
    let label = is_new.then_some(bridge_label::MADE);
    let change = LinkChange {
        up: Some(true),
        promisc: promisc.then_some(true),
        // One that is given at creation is lost when the first port joins (net/bridge/br_if.c, br_mtu_auto_adjust).
        mtu: if bridge.up { None } else { settings.mtu },
        alias: label,
        ..LinkChange::default()
    };
    host.set_link(bridge.index, &change)?;
    Ok(Link {
        up: true,
        promisc: promisc || bridge.promisc,
        alias: label.map(str::to_owned).or(bridge.alias),
        ..bridge
    })
}

/// Fixes the address of a gateway that somebody else made. Otherwise it changes as containers come and go, and those that
/// stay send to the one before.
///
/// One without ports gets another address: nobody has learned the one that it has, and the kernel takes an address that
/// is set once more for no news, so that the bridge would be left without its identifier, and with that without a carrier
/// (`br_set_mac_address` in net/bridge/br_device.c).
fn pin_mac(host: &Rtnl, bridge: &mut Link) -> Result<(), Error> {
    if sysfs::has_own_mac(&bridge.name) != Some(false) {
        return Ok(());
    }
    if host.bridge_ports(bridge.index)?.is_empty() {
        bridge.mac = Some(mac::random()?.bytes());
    }
    let change = LinkChange {
        mac: bridge.mac,
        ..LinkChange::default()
    };
    Ok(host.set_link(bridge.index, &change)?)
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
        Err(error) if error.already_exists() => {
            host.link_by_name(name)?.ok_or_else(|| error.into())
        }
        Err(error) => Err(error.into()),
    }
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
