//! MAC addresses for what nobody asked a particular one for. All are locally administered unicast addresses, and all
//! are given when an interface is created: udev leaves such an address alone (`NET_ADDR_SET`).

use std::fs::File;
use std::io::Read;
use std::net::IpAddr;

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};
use cni_conf::result::IpConfig;

use crate::owner::Owner;

/// A random address.
pub fn random() -> Result<MacAddr, Error> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Error::new(Code::Io, format!("read /dev/urandom: {error}")))?;
    bytes[0] = (bytes[0] & 0xfc) | 0x02;
    Ok(MacAddr::new(bytes))
}

/// The address that belongs to a container's first IPv4 address, if it has one.
pub fn of_ips(ips: &[IpConfig]) -> Option<MacAddr> {
    ips.iter().find_map(|ip| match ip.address.addr() {
        IpAddr::V4(ip) => Some(MacAddr::from_ipv4(ip)),
        IpAddr::V6(_) => None,
    })
}

/// The address of the host's veth end.
///
/// It begins with `fe`: a bridge whose own address was not fixed takes the lowest of its ports' addresses, and must
/// not change it when containers come and go.
pub fn of_host_end(owner: &Owner) -> MacAddr {
    MacAddr::new(owner.host_mac())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_addresses_are_local_unicast() {
        for _ in 0..20 {
            let mac = random().unwrap();
            assert!(mac.is_unicast() && mac.bytes()[0] & 2 != 0, "{mac}");
        }
    }
}
