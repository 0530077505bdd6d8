//! The gateway of a container's subnet.

use std::net::IpAddr;

use cni_conf::error::Error;
use cni_conf::result::IpConfig;
use ipnet::IpNet;

/// The gateway that the IPAM plugin gave, or else the first address of the subnet.
///
/// Refused are a gateway that is the container itself, one of the other family, and none where the prefix leaves
/// no room for one.
pub fn of(ip: &IpConfig) -> Result<IpAddr, Error> {
    let address = ip.address.addr();
    let gateway = match ip.gateway {
        Some(gateway) => gateway,
        None if ip.address.prefix_len() == ip.address.max_prefix_len() => {
            return Err(Error::config(format!(
                "the IPAM plugin gave the address {} without a gateway, and its subnet has no other address",
                ip.address
            ))
            .with_details("set \"gateway\" in the \"ipam\" section, or use a shorter prefix"));
        }
        None => first_address(&ip.address),
    };
    if gateway == address {
        return Err(Error::config(format!(
            "the IPAM plugin gave {gateway} to the container, which is the host's own gateway address"
        ))
        .with_details(
            "exclude the gateway from the range, or set \"gateway\" to another address of the subnet",
        ));
    }
    if gateway.is_ipv4() != address.is_ipv4() {
        return Err(Error::config(format!(
            "gateway {gateway} and address {} are of different families",
            ip.address
        )));
    }
    Ok(gateway)
}

/// True if the gateway lies outside the subnet of the address that it serves.
pub fn is_outside(ip: &IpConfig) -> bool {
    ip.gateway
        .is_some_and(|gateway| !ip.address.contains(&gateway))
}

/// The first address behind the subnet's own.
pub fn first_address(subnet: &IpNet) -> IpAddr {
    match subnet.network() {
        IpAddr::V4(network) => IpAddr::V4((u32::from(network).saturating_add(1)).into()),
        IpAddr::V6(network) => IpAddr::V6((u128::from(network).saturating_add(1)).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(address: &str, gateway: Option<&str>) -> IpConfig {
        IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        }
    }

    #[test]
    fn a_missing_gateway_is_the_first_address_of_the_subnet() {
        for (address, gateway, expected) in [
            ("10.1.0.130/25", None, "10.1.0.129"),
            ("fd00::5/64", None, "fd00::1"),
            ("10.1.0.5/24", Some("10.1.0.254"), "10.1.0.254"),
            ("10.1.0.5/32", Some("169.254.1.1"), "169.254.1.1"),
        ] {
            assert_eq!(of(&ip(address, gateway)).unwrap().to_string(), expected);
        }
    }

    #[test]
    fn gateways_that_cant_be_are_refused() {
        for (address, gateway) in [
            ("10.1.0.1/24", None),
            ("10.1.0.9/24", Some("10.1.0.9")),
            ("10.1.0.9/24", Some("fd00::1")),
            ("10.1.0.9/32", None),
            ("fd00::9/128", None),
        ] {
            let error = of(&ip(address, gateway)).unwrap_err();
            assert!(
                error.msg.contains(address.split('/').next().unwrap()),
                "{error}"
            );
        }
    }
}
