//! What an attachment's layer 3 will look like: a pure function of the configuration and the IPAM's answer.

use std::net::IpAddr;

use cni_conf::addr::{MacAddr, default_prefix, is_default_prefix};
use cni_conf::error::Error;
use cni_conf::result::{CniResult, Route};
use ipnet::IpNet;

use super::conf::Settings;
use crate::attach::container::Layer3;
use crate::attach::{gateway, mac};

/// Index of the container's interface in a result: the bridge and the host's veth end stand in front of it.
pub(super) const CONTAINER_INTERFACE: usize = 2;

/// Layer 3 of an attachment.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// For the container's interface.
    pub(super) layer3: Layer3,
    /// Addresses that the bridge must have, each once.
    pub(super) gateways: Vec<IpNet>,
    /// Addresses of the container that no subnet of the bridge has in it: the host has a route to each.
    pub(super) outside: Vec<IpAddr>,
}

/// Fills in what the IPAM left open: gateways of subnets and default routes.
pub(super) fn plan(settings: &Settings, leased: &CniResult) -> Result<Plan, Error> {
    let mut layer3 = Layer3 {
        ips: leased.ips.clone(),
        routes: leased.routes.clone(),
        dad: settings.dad,
        through_gateway: false,
        ..Layer3::default()
    };
    let (mut gateways, mut outside) = (Vec::new(), Vec::new());
    for ip in &mut layer3.ips {
        ip.interface = Some(CONTAINER_INTERFACE);
        if !settings.gateway {
            continue;
        }
        let gateway = gateway::of(ip)?;
        ip.gateway = Some(gateway);
        let on_bridge = if gateway::is_outside(ip) {
            outside.push(ip.address.addr());
            IpNet::from(gateway)
        } else {
            IpNet::new(gateway, ip.address.prefix_len()).unwrap_or_else(|_| IpNet::from(gateway))
        };
        if !gateways.contains(&on_bridge) {
            gateways.push(on_bridge);
        }
        if settings.default_gateway {
            ensure_default_route(&mut layer3.routes, gateway);
        }
    }
    layer3.drop_doubles();
    Ok(Plan {
        layer3,
        gateways,
        outside,
    })
}

/// One default route for the family of `gateway`: one that the IPAM asked for is completed, not doubled.
fn ensure_default_route(routes: &mut Vec<Route>, gateway: IpAddr) {
    let dst = default_prefix(gateway);
    let mut defaults = routes.iter_mut().filter(|route| {
        is_default_prefix(&route.dst)
            && route.dst.addr().is_ipv4() == gateway.is_ipv4()
            && route.table.is_none()
    });
    match defaults.next() {
        Some(route) => {
            route.gw.get_or_insert(gateway);
        }
        None => routes.push(Route::new(dst, Some(gateway))),
    }
}

/// The container's MAC address: the one asked for, or the one that belongs to its address.
pub(super) fn mac(settings: &Settings, layer3: &Layer3) -> Option<MacAddr> {
    settings.mac.or_else(|| mac::of_ips(&layer3.ips))
}

/// What ensuring a gateway address on the bridge comes down to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AddressPlan {
    /// Addresses to add.
    pub(super) add: Vec<IpNet>,
    /// Addresses that stand in the way of one of `add`, with that one.
    pub(super) conflicts: Vec<(IpNet, IpNet)>,
}

/// Compares the addresses that a bridge has with those it needs.
///
/// Any other IPv4 address is a conflict, and an IPv6 address in an overlapping subnet: the bridge belongs to
/// another network then, or this one's subnet was changed. Link-local addresses that the kernel made never are.
pub(super) fn plan_addresses(has: &[IpNet], needs: &[IpNet]) -> AddressPlan {
    let add: Vec<IpNet> = needs
        .iter()
        .copied()
        .filter(|need| !has.contains(need))
        .collect();
    let stands_in_the_way = |old: &IpNet, new: &IpNet| match (old, new) {
        (IpNet::V4(_), IpNet::V4(_)) => true,
        (IpNet::V6(old), IpNet::V6(new)) => {
            let kernels_own = old.addr().is_unicast_link_local();
            !kernels_own && (old.contains(&new.network()) || new.contains(&old.network()))
        }
        _ => false,
    };
    let conflicts = has
        .iter()
        .filter(|old| !needs.contains(old))
        .filter_map(|old| {
            add.iter()
                .find(|new| stands_in_the_way(old, new))
                .map(|new| (*old, *new))
        })
        .collect();
    AddressPlan { add, conflicts }
}

#[cfg(test)]
mod tests {
    use cni_conf::request::Request;
    use cni_conf::result::IpConfig;
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn settings(conf: Value) -> Settings {
        let request = Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "bridge".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        };
        Settings::read(&request, None).unwrap()
    }

    fn leased(addresses: &[(&str, Option<&str>)], routes: &[(&str, Option<&str>)]) -> CniResult {
        let ip = |(address, gateway): &(&str, Option<&str>)| IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        };
        let route = |(dst, gw): &(&str, Option<&str>)| {
            Route::new(dst.parse().unwrap(), gw.map(|gw| gw.parse().unwrap()))
        };
        CniResult {
            ips: addresses.iter().map(ip).collect(),
            routes: routes.iter().map(route).collect(),
            ..CniResult::default()
        }
    }

    fn routes(plan: &Plan) -> Vec<(String, Option<String>)> {
        let text = |route: &Route| (route.dst.to_string(), route.gw.map(|gw| gw.to_string()));
        plan.layer3.routes.iter().map(text).collect()
    }

    #[test]
    fn a_bridge_that_is_no_gateway_leaves_the_answer_alone() {
        let leased = leased(&[("10.1.0.2/24", None)], &[("0.0.0.0/0", None)]);
        let plan = plan(&settings(json!({})), &leased).unwrap();
        assert!(plan.gateways.is_empty());
        assert_eq!(plan.layer3.ips[0].gateway, None);
        assert_eq!(plan.layer3.ips[0].interface, Some(2));
        assert_eq!(plan.layer3.routes, leased.routes);
    }

    #[test]
    fn a_gateway_outside_the_subnet_is_by_itself_on_the_bridge() {
        let leased = leased(
            &[
                ("203.0.113.7/32", Some("169.254.1.1")),
                ("10.1.5.7/24", Some("10.1.0.1")),
                ("10.2.0.7/24", None),
                ("2001:db8::7/128", Some("fe80::1")),
            ],
            &[],
        );
        let plan = plan(&settings(json!({"isGateway": true})), &leased).unwrap();
        let nets = |texts: &[&str]| -> Vec<IpNet> {
            texts.iter().map(|text| text.parse().unwrap()).collect()
        };
        assert_eq!(
            plan.gateways,
            nets(&[
                "169.254.1.1/32",
                "10.1.0.1/32",
                "10.2.0.1/24",
                "fe80::1/128"
            ])
        );
        let outside: Vec<_> = plan.outside.iter().map(IpAddr::to_string).collect();
        assert_eq!(outside, ["203.0.113.7", "10.1.5.7", "2001:db8::7"]);
    }

    #[test]
    fn a_missing_gateway_is_the_first_address_of_the_subnet() {
        let leased = leased(&[("10.1.0.130/25", None), ("fd00::5/64", None)], &[]);
        let plan = plan(&settings(json!({"isGateway": true})), &leased).unwrap();
        assert_eq!(
            plan.gateways,
            [
                "10.1.0.129/25".parse().unwrap(),
                "fd00::1/64".parse().unwrap()
            ]
        );
        assert!(plan.layer3.routes.is_empty());
    }

    #[test]
    fn a_default_route_that_both_ask_for_is_one_route() {
        let conf = json!({"isDefaultGateway": true});
        let address = [
            ("10.1.0.2/24", Some("10.1.0.1")),
            ("fd00::2/64", Some("fd00::1")),
        ];
        let v6 = ("::/0".into(), Some("fd00::1".into()));
        for (asked, expected) in [(None, "10.1.0.1"), (Some("10.1.0.254"), "10.1.0.254")] {
            let plan = plan(
                &settings(conf.clone()),
                &leased(&address, &[("0.0.0.0/0", asked)]),
            )
            .unwrap();
            assert_eq!(
                routes(&plan),
                [("0.0.0.0/0".into(), Some(expected.into())), v6.clone()]
            );
        }
        let plan = plan(&settings(conf), &leased(&address, &[])).unwrap();
        assert_eq!(
            routes(&plan),
            [("0.0.0.0/0".into(), Some("10.1.0.1".into())), v6]
        );
    }

    #[test]
    fn the_same_route_twice_is_one() {
        let asked = [
            ("0.0.0.0/0", None),
            ("192.0.2.0/24", None),
            ("192.0.2.9/24", Some("10.1.0.1")),
            ("192.0.2.0/24", Some("10.1.0.9")),
        ];
        let plan = plan(
            &settings(json!({"isGateway": true})),
            &leased(&[("10.1.0.2/24", None)], &asked),
        )
        .unwrap();
        let dsts: Vec<String> = routes(&plan).into_iter().map(|(dst, _)| dst).collect();
        assert_eq!(dsts, ["0.0.0.0/0", "192.0.2.0/24", "192.0.2.0/24"]);
    }

    #[test]
    fn a_default_route_in_another_table_does_not_count() {
        let mut leased = leased(&[("10.1.0.2/24", None)], &[("0.0.0.0/0", None)]);
        leased.routes[0].table = Some(100);
        let plan = plan(&settings(json!({"isDefaultGateway": true})), &leased).unwrap();
        assert_eq!(plan.layer3.routes.len(), 2);
    }

    #[test]
    fn the_gateways_address_is_never_the_containers() {
        let error = plan(
            &settings(json!({"isGateway": true})),
            &leased(&[("10.1.0.1/24", None)], &[]),
        );
        assert!(error.unwrap_err().msg.contains("10.1.0.1"));
    }

    #[test]
    fn the_mac_follows_the_first_ipv4_address_unless_one_is_asked_for() {
        let conf = settings(json!({}));
        let with = |addresses| plan(&conf, &leased(addresses, &[])).unwrap().layer3;
        let derived = mac(&conf, &with(&[("fd00::2/64", None), ("10.1.0.2/24", None)]));
        assert_eq!(derived.unwrap().to_string(), "0a:58:0a:01:00:02");
        assert!(mac(&conf, &with(&[("fd00::2/64", None)])).is_some());
        assert_eq!(mac(&conf, &with(&[])), None);
        let asked = settings(json!({"runtimeConfig": {"mac": "02:00:00:00:00:07"}}));
        assert_eq!(
            mac(&asked, &with(&[("10.1.0.2/24", None)]))
                .unwrap()
                .to_string(),
            "02:00:00:00:00:07"
        );
    }

    #[test]
    fn addresses_of_the_bridge_are_added_or_in_conflict() {
        let nets = |texts: &[&str]| {
            texts
                .iter()
                .map(|text| text.parse().unwrap())
                .collect::<Vec<IpNet>>()
        };
        type Case = (
            &'static [&'static str],
            &'static [&'static str],
            &'static [&'static str],
            usize,
        );
        let cases: [Case; 7] = [
            (
                &[],
                &["10.1.0.1/24", "fd00::1/64"],
                &["10.1.0.1/24", "fd00::1/64"],
                0,
            ),
            (&["10.1.0.1/24"], &["10.1.0.1/24"], &[], 0),
            (&["10.1.0.1/16"], &["10.1.0.1/24"], &["10.1.0.1/24"], 1),
            (&["10.9.0.1/24"], &["10.1.0.1/24"], &["10.1.0.1/24"], 1),
            (
                &["10.1.0.1/24"],
                &["10.1.0.1/24", "10.2.0.1/24"],
                &["10.2.0.1/24"],
                0,
            ),
            (
                &["fe80::1:2/64", "fd01::1/64"],
                &["fd00::1/64"],
                &["fd00::1/64"],
                0,
            ),
            (&["fd00::9/48"], &["fd00::1/64"], &["fd00::1/64"], 1),
        ];
        for (has, needs, add, conflicts) in cases {
            let plan = plan_addresses(&nets(has), &nets(needs));
            assert_eq!(plan.add, nets(add), "{has:?} {needs:?}");
            assert_eq!(plan.conflicts.len(), conflicts, "{has:?} {needs:?}");
        }
    }
}
