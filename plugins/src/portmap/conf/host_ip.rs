//! The host's address that a port is opened on: what is one, and on which no container could ever answer.

use std::net::{IpAddr, Ipv4Addr};

use cni_conf::addr;
use cni_conf::json::FieldError;

use super::{HostAddress, Masquerade};

/// Reads `hostIP`.
///
/// # Errors
/// Says why it is no address.
pub(super) fn read(text: &str) -> Result<HostAddress, FieldError> {
    if text.is_empty() {
        return Ok(HostAddress::Any);
    }
    let address = addr::parse_ip("hostIP", text, "this is no IP address")?.to_canonical();
    Ok(if address.is_unspecified() {
        HostAddress::AnyOf(address)
    } else {
        HostAddress::One(address)
    })
}

/// Refuses addresses on which a container can't answer whatever the host looks like, with what to do about it.
pub(super) fn refuse_mute(
    address: IpAddr,
    masquerade: Masquerade,
) -> Result<(), (FieldError, &'static str)> {
    let any = "leave \"hostIP\" out to open the port on all addresses of the host";
    let (problem, remedy) = match address {
        _ if address.is_multicast() => ("a host has no multicast address of its own", any),
        IpAddr::V4(Ipv4Addr::BROADCAST) => ("the broadcast address is no host's own", any),
        IpAddr::V6(address) if address.is_loopback() => (
            "no packet from ::1 may leave the host, so no container can answer there (there is no route_localnet for IPv6)",
            "set \"hostIP\" to \"127.0.0.1\" for the host itself, or to another of its IPv6 addresses",
        ),
        IpAddr::V6(address) if address.is_unicast_link_local() => (
            "packets of link-local addresses are not forwarded, so no container can answer there",
            "set \"hostIP\" to an address of the host that is routed, or leave it out",
        ),
        IpAddr::V4(address) if address.is_loopback() && masquerade == Masquerade::Never => (
            "no packet from 127.0.0.1 may leave the host under that address, and \"snat\" is false, so no container can \
             answer there",
            "remove \"snat\": false, or set \"hostIP\" to another address of the host",
        ),
        _ => return Ok(()),
    };
    Err((FieldError::new("hostIP", address, problem), remedy))
}
