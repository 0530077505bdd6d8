//! What both ends of the pair will look like: a pure function of the IPAM's answer.

use std::net::IpAddr;

use cni_conf::error::Error;
use cni_conf::result::CniResult;

use crate::attach::container::Layer3;
use crate::attach::gateway;

/// Index of the container's interface in a result: the host's end stands in front of it.
pub(super) const CONTAINER_INTERFACE: usize = 1;

/// Layer 3 of both ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// For the container's interface.
    pub(super) layer3: Layer3,
    /// Addresses of the host's end, each once.
    pub(super) gateways: Vec<IpAddr>,
    /// Addresses that the host reaches over its end, each once.
    pub(super) container: Vec<IpAddr>,
}

/// Fills in the gateways that the IPAM left open.
pub(super) fn plan(leased: &CniResult) -> Result<Plan, Error> {
    let mut layer3 = Layer3 {
        ips: leased.ips.clone(),
        routes: leased.routes.clone(),
        dad: false,
        through_gateway: true,
        ..Layer3::default()
    };
    let (mut gateways, mut container) = (Vec::new(), Vec::new());
    for ip in &mut layer3.ips {
        let gateway = gateway::of(ip)?;
        ip.gateway = Some(gateway);
        ip.interface = Some(CONTAINER_INTERFACE);
        gateways.push(gateway);
        container.push(ip.address.addr());
    }
    layer3.drop_doubles();
    for addresses in [&mut gateways, &mut container] {
        addresses.sort_unstable();
        addresses.dedup();
    }
    Ok(Plan {
        layer3,
        gateways,
        container,
    })
}

#[cfg(test)]
mod tests {
    use cni_conf::result::IpConfig;

    use super::*;

    #[test]
    fn every_gateway_is_on_the_hosts_end_once() {
        let ip = |address: &str, gateway: Option<&str>| IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        };
        let plan = plan(&CniResult {
            ips: vec![
                ip("10.1.0.5/24", Some("10.1.0.254")),
                ip("fd00::5/64", None),
                ip("10.1.0.6/24", Some("10.1.0.254")),
            ],
            ..CniResult::default()
        })
        .unwrap();
        let texts =
            |addresses: &[IpAddr]| addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>();
        assert_eq!(texts(&plan.gateways), ["10.1.0.254", "fd00::1"]);
        assert_eq!(texts(&plan.container), ["10.1.0.5", "10.1.0.6", "fd00::5"]);
        assert!(
            plan.layer3
                .ips
                .iter()
                .all(|ip| ip.interface == Some(1) && ip.gateway.is_some())
        );
    }
}
