//! Configuration of the `bridge` plugin.

use cni_conf::addr::MacAddr;
use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::names::IfName;
use cni_conf::request::{Attachment, Request};
use cni_conf::result::Dns;
use serde::Deserialize;

use super::netfilter::Netfilter;
use crate::attach::ipam::IpamConf;
use crate::attach::masq;
use crate::attach::settings::{self, DnsConf};

/// The bridge that a configuration without `bridge` means.
const DEFAULT_BRIDGE: &str = "cni0";

/// Highest VLAN ID that may be used (IEEE 802.1Q reserves 4095).
const VLAN_MAX: i64 = 4094;

/// The JSON as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    bridge: String,
    is_gateway: bool,
    is_default_gateway: bool,
    force_address: bool,
    mtu: i64,
    hairpin_mode: bool,
    promisc_mode: bool,
    port_isolation: bool,
    vlan: i64,
    vlan_trunk: Vec<WireTrunk>,
    preserve_default_vlan: Option<bool>,
    macspoofchk: bool,
    enabledad: bool,
    disable_container_interface: bool,
    dns: DnsConf,
    ipam: IpamConf,
    bridge_netfilter: String,
    multicast_snooping: bool,
    args: WireArgs,
    runtime_config: WireMac,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireTrunk {
    #[serde(rename = "minID")]
    min_id: Option<i64>,
    #[serde(rename = "maxID")]
    max_id: Option<i64>,
    id: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireArgs {
    cni: WireMac,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireMac {
    mac: Option<String>,
}

/// The configuration, validated and complete.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) bridge: IfName,
    /// The bridge gets the gateway addresses, and the host forwards.
    pub(super) gateway: bool,
    /// The container's default routes lead to the bridge. Implies `gateway`.
    pub(super) default_gateway: bool,
    /// Replace an address of the bridge that stands in the way.
    pub(super) force_address: bool,
    /// In bytes; `None` for the kernel's default.
    pub(super) mtu: Option<u32>,
    pub(super) hairpin: bool,
    pub(super) promisc: bool,
    pub(super) isolated: bool,
    pub(super) vlans: Vlans,
    pub(super) mac_spoof_check: bool,
    pub(super) dad: bool,
    /// The container's interface stays down.
    pub(super) container_down: bool,
    /// Takes the place of the IPAM plugin's.
    pub(super) dns: Option<Dns>,
    pub(super) ipam: IpamConf,
    /// How packets between containers of the bridge meet the rules of the IP layer.
    pub(super) netfilter: Netfilter,
    /// A bridge that is made listens to who joins multicast groups. Without a querier on it the kernel sends to everybody
    /// all the same, and has each port that comes or goes start the timers of all of them (`br_multicast_enable_port` in
    /// net/bridge/br_multicast.c).
    pub(super) multicast_snooping: bool,
    /// How the containers are masqueraded, if they are.
    pub(super) masquerade: Option<masq::Settings>,
    /// The MAC address that somebody asked for.
    pub(super) mac: Option<MacAddr>,
}

/// VLANs of the container's port.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Vlans {
    /// VLAN of untagged frames; also the one that the gateway is in.
    pub(super) access: Option<u16>,
    /// First and last ID of each range of tagged VLANs.
    pub(super) trunk: Vec<(u16, u16)>,
    /// Leave the bridge's default VLAN 1 on the port.
    pub(super) keep_default: bool,
}

impl Vlans {
    /// True if the bridge must filter by VLAN.
    pub(super) fn any(&self) -> bool {
        self.access.is_some() || !self.trunk.is_empty()
    }
}

impl Settings {
    /// Reads the configuration of a request. ADD and CHECK pass the attachment, whose arguments count too.
    pub(super) fn read(request: &Request, attachment: Option<&Attachment>) -> Result<Self, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        let mac = requested_mac(&wire, attachment)?;
        let gateway = wire.is_gateway || wire.is_default_gateway;
        let settings = Self {
            bridge: bridge_name(&wire.bridge)?,
            gateway,
            default_gateway: wire.is_default_gateway,
            force_address: wire.force_address,
            mtu: settings::mtu(wire.mtu)?,
            hairpin: wire.hairpin_mode,
            promisc: wire.promisc_mode,
            isolated: wire.port_isolation,
            vlans: vlans(&wire)?,
            mac_spoof_check: wire.macspoofchk,
            dad: wire.enabledad,
            container_down: wire.disable_container_interface,
            dns: wire.dns.replacement(),
            ipam: wire.ipam,
            netfilter: Netfilter::read(&wire.bridge_netfilter, gateway)?,
            multicast_snooping: wire.multicast_snooping,
            masquerade: masq::Settings::read(request)?,
            mac,
        };
        settings.validate()?;
        Ok(settings)
    }

    fn validate(&self) -> Result<(), Error> {
        let ipam = self.ipam.plugin()?;
        if self.hairpin && self.promisc {
            return Err(Error::config("\"hairpinMode\" and \"promiscMode\" can't both be true").with_details(
                "hairpinMode alone lets a container reach itself through a Service address; drop promiscMode",
            ));
        }
        if let Some(vid) = self.vlans.access.filter(|_| self.gateway) {
            let gateway = format!("{}.{vid}", self.bridge);
            IfName::try_from(gateway).map_err(|error| {
                Error::config(format!(
                    "field \"bridge\": the gateway of VLAN {vid} can't be made: {error}"
                ))
                .with_details("choose a shorter name for the bridge")
            })?;
        }
        if self.container_down && ipam.is_some() {
            return Err(Error::config(
                "\"disableContainerInterface\" can't be true together with an \"ipam\" section",
            )
            .with_details("an interface that stays down can use no address: drop one of the two"));
        }
        Ok(())
    }
}

/// The bridge of a configuration that need not be valid otherwise.
pub(super) fn bridge_of(request: &Request) -> Option<IfName> {
    let wire: Wire = json::from_value(&request.conf).ok()?;
    bridge_name(&wire.bridge).ok()
}

/// The interface that has the gateways' addresses, of a configuration that need not be valid otherwise; none if the bridge
/// is no gateway.
pub(super) fn gateway_of(request: &Request) -> Option<String> {
    let wire: Wire = json::from_value(&request.conf).ok()?;
    let bridge = bridge_name(&wire.bridge).ok()?;
    match wire.vlan {
        _ if !wire.is_gateway && !wire.is_default_gateway => None,
        0 => Some(bridge.to_string()),
        vid => Some(format!("{bridge}.{vid}")),
    }
}

fn bridge_name(name: &str) -> Result<IfName, Error> {
    let name = if name.is_empty() {
        DEFAULT_BRIDGE
    } else {
        name
    };
    IfName::try_from(name)
        .and_then(IfName::for_new)
        .map_err(|error| Error::config(format!("field \"bridge\": {error}")))
}

fn vlan_id(path: String, id: i64, lowest: i64) -> Result<u16, Error> {
    match u16::try_from(id) {
        Ok(vid) if (lowest..=VLAN_MAX).contains(&id) => Ok(vid),
        _ => Err(FieldError::new(path, id, format!("a VLAN ID is {lowest} to {VLAN_MAX}")).into()),
    }
}

fn vlans(wire: &Wire) -> Result<Vlans, Error> {
    let access = match vlan_id("vlan".into(), wire.vlan, 0)? {
        0 => None,
        id => Some(id),
    };
    let mut trunk = Vec::new();
    for (i, entry) in wire.vlan_trunk.iter().enumerate() {
        let path = |key: &str| format!("vlanTrunk[{i}].{key}");
        match (entry.min_id, entry.max_id) {
            (Some(min), Some(max)) => {
                let (low, high) = (
                    vlan_id(path("minID"), min, 1)?,
                    vlan_id(path("maxID"), max, 1)?,
                );
                if low > high {
                    return Err(FieldError::new(
                        path("minID"),
                        min,
                        format!("is above maxID {max}"),
                    )
                    .into());
                }
                trunk.push((low, high));
            }
            (None, None) if entry.id.is_some() => {}
            (None, None) => {
                return Err(FieldError::new(
                    path("id"),
                    "absent",
                    "give \"id\", or \"minID\" and \"maxID\"",
                )
                .into());
            }
            _ => {
                return Err(FieldError::new(
                    format!("vlanTrunk[{i}]"),
                    "one of them",
                    "\"minID\" and \"maxID\" go together",
                )
                .into());
            }
        }
        if let Some(id) = entry.id {
            let id = vlan_id(path("id"), id, 1)?;
            trunk.push((id, id));
        }
    }
    // An access port is in its own VLAN alone; a trunk carries its untagged frames in the bridge's.
    let keep_default = wire.preserve_default_vlan.unwrap_or(access.is_none());
    Ok(Vlans {
        access,
        trunk,
        keep_default,
    })
}

/// The runtime's word counts most, then `args.cni` of the configuration, then CNI_ARGS.
fn requested_mac(wire: &Wire, attachment: Option<&Attachment>) -> Result<Option<MacAddr>, Error> {
    let sources = [
        ("runtimeConfig.mac", wire.runtime_config.mac.as_deref()),
        ("args.cni.mac", wire.args.cni.mac.as_deref()),
        (
            "CNI_ARGS MAC",
            attachment.and_then(|attachment| attachment.args.get("MAC")),
        ),
    ];
    let Some((source, text)) = sources
        .into_iter()
        .find_map(|(source, text)| Some((source, text.filter(|text| !text.is_empty())?)))
    else {
        return Ok(None);
    };
    settings::mac(source, text).map(Some)
}

#[cfg(test)]
mod tests {
    use cni_conf::request::CniArgs;
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn read_with(conf: Value, args: &str) -> Result<Settings, Error> {
        let request = Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "bridge".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        };
        let attachment = Attachment {
            container: "c1".try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
            netns: None,
            args: CniArgs::parse(args).unwrap(),
            netns_override: false,
        };
        Settings::read(&request, Some(&attachment))
    }

    fn read(conf: Value) -> Result<Settings, Error> {
        read_with(conf, "")
    }

    #[test]
    fn an_empty_configuration_is_a_layer_2_attachment_to_cni0() {
        let settings = read(json!({})).unwrap();
        assert_eq!(settings.bridge.as_str(), "cni0");
        assert!(!settings.gateway && !settings.vlans.any() && settings.vlans.keep_default);
        assert!(settings.ipam.plugin().unwrap().is_none() && settings.mtu.is_none());
    }

    #[test]
    fn a_default_gateway_is_a_gateway() {
        assert!(read(json!({"isDefaultGateway": true})).unwrap().gateway);
    }

    #[test]
    fn the_runtimes_mac_wins_over_args_and_those_over_cni_args() {
        let mut conf = json!({
            "runtimeConfig": {"mac": "02:00:00:00:00:03"},
            "args": {"cni": {"mac": "02:00:00:00:00:02"}},
        });
        let args = "MAC=02:00:00:00:00:01";
        let mac = |conf: &Value| read_with(conf.clone(), args).unwrap().mac.unwrap().bytes()[5];
        assert_eq!(mac(&conf), 3);
        conf["runtimeConfig"] = json!({});
        assert_eq!(mac(&conf), 2);
        conf["args"] = json!(null);
        assert_eq!(mac(&conf), 1);
        assert!(read(json!({})).unwrap().mac.is_none());
    }

    #[test]
    fn trunks_are_single_ids_ranges_or_both() {
        let settings = read(json!({
            "vlanTrunk": [{"id": 5}, {"minID": 10, "maxID": 20}, {"minID": 30, "maxID": 30, "id": 40}],
            "preserveDefaultVlan": false,
        }));
        let vlans = settings.unwrap().vlans;
        assert_eq!(vlans.trunk, [(5, 5), (10, 20), (30, 30), (40, 40)]);
        assert!(vlans.any() && !vlans.keep_default && vlans.access.is_none());
    }

    #[test]
    fn the_default_vlan_stays_on_trunks_unless_told_otherwise() {
        let kept = |conf| read(conf).unwrap().vlans.keep_default;
        assert!(!kept(json!({"vlan": 5})));
        assert!(kept(json!({"vlan": 5, "preserveDefaultVlan": true})));
        assert!(kept(json!({"vlanTrunk": [{"id": 5}]})));
        assert!(!kept(
            json!({"vlanTrunk": [{"id": 5}], "preserveDefaultVlan": false})
        ));
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field, value) in [
            (json!({"bridge": "a/b"}), "bridge", "a/b"),
            (json!({"bridge": "br%d"}), "bridge", "br%d"),
            (
                json!({"bridge": "sixteen-bytes-xx"}),
                "bridge",
                "sixteen-bytes-xx",
            ),
            (json!({"mtu": -1}), "mtu", "-1"),
            (json!({"mtu": 67}), "mtu", "67"),
            (json!({"mtu": 65536}), "mtu", "65536"),
            (json!({"mtu": "1500"}), "mtu", "1500"),
            (json!({"vlan": 4095}), "vlan", "4095"),
            (json!({"vlan": -1}), "vlan", "-1"),
            (json!({"vlanTrunk": [{"id": 0}]}), "vlanTrunk[0].id", "0"),
            (
                json!({"vlanTrunk": [{"minID": 9, "maxID": 8}]}),
                "vlanTrunk[0].minID",
                "9",
            ),
            (json!({"vlanTrunk": [{"minID": 9}]}), "vlanTrunk[0]", ""),
            (json!({"vlanTrunk": [{}]}), "vlanTrunk[0].id", ""),
            (json!({"isGateway": "yes"}), "isGateway", "yes"),
            (json!({"ipam": {"type": "../x"}}), "ipam.type", "../x"),
            (
                json!({"runtimeConfig": {"mac": "zz"}}),
                "runtimeConfig.mac",
                "zz",
            ),
            (
                json!({"args": {"cni": {"mac": "01:00:00:00:00:00"}}}),
                "args.cni.mac",
                "01:00:00:00:00:00",
            ),
        ] {
            let error = read(conf.clone()).unwrap_err().to_string();
            assert!(
                error.contains(field) && error.contains(value),
                "{conf}: {error}"
            );
        }
    }

    #[test]
    fn contradictions_are_refused() {
        for conf in [
            json!({"hairpinMode": true, "promiscMode": true}),
            json!({"disableContainerInterface": true, "ipam": {"type": "host-local"}}),
            json!({"bridge": "twelve-bytes", "vlan": 100, "isGateway": true}),
        ] {
            let error = read(conf).unwrap_err();
            assert!(!error.details.is_empty(), "{error}");
        }
    }
}
