//! Values that several plugins' configurations have in common.

use std::ops::RangeInclusive;

use cni_conf::addr::MacAddr;
use cni_conf::error::Error;
use cni_conf::json::FieldError;

/// Smallest and largest MTU of a veth device in bytes (`ETH_MIN_MTU` and `ETH_MAX_MTU` of the kernel).
const MTU: RangeInclusive<i64> = 68..=65535;

/// `mtu`: bytes, or 0 for the kernel's default.
pub fn mtu(mtu: i64) -> Result<Option<u32>, Error> {
    match mtu {
        0 => Ok(None),
        mtu if MTU.contains(&mtu) => Ok(u32::try_from(mtu).ok()),
        mtu => Err(FieldError::new(
            "mtu",
            mtu,
            "an MTU is 68 to 65535 bytes, or 0 for the kernel's default",
        )
        .into()),
    }
}

/// A MAC address that an interface can have. `source` says where the text comes from.
pub fn mac(source: &str, text: &str) -> Result<MacAddr, Error> {
    let mac: MacAddr = text
        .parse()
        .map_err(|error| Error::config(format!("{source}: {error}")))?;
    if !mac.is_unicast() {
        return Err(Error::config(format!(
            "{source}: {mac} is a group or zero address, no interface can have it"
        ))
        .with_details("the lowest bit of a MAC address's first byte must be 0"));
    }
    Ok(mac)
}
