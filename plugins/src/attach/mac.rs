//! MAC addresses for what nobody asked a particular one for. All are locally administered unicast addresses, and all
//! are given when an interface is created: udev leaves such an address alone (`NET_ADDR_SET`).

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv6Addr};

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};
use cni_conf::result::IpConfig;

use crate::owner::{Owner, fnv1a};

/// A random address.
pub fn random() -> Result<MacAddr, Error> {
    let mut bytes = [0; 6];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .map_err(|error| Error::new(Code::Io, format!("read /dev/urandom: {error}")))?;
    bytes[0] = (bytes[0] & 0xfc) | 0x02;
    Ok(MacAddr::new(bytes))
}

/// What an address begins with that belongs to an IPv6 address: `6a` is locally administered, and not what those of IPv4
/// addresses (`0a:58`) and of hosts' ends (`fe`) begin with.
const OF_IPV6: u8 = 0x6a;

/// The address that belongs to a container's first IPv4 address, or else to its first IPv6 address. So whoever remembers
/// an address is right about the next container that gets it.
pub fn of_ips(ips: &[IpConfig]) -> Option<MacAddr> {
    let addresses: Vec<IpAddr> = ips.iter().map(|ip| ip.address.addr()).collect();
    of_addresses(&addresses)
}

/// The same for bare addresses.
pub fn of_addresses(addresses: &[IpAddr]) -> Option<MacAddr> {
    let of_ipv4 = addresses.iter().find_map(|address| match address {
        IpAddr::V4(ip) => Some(MacAddr::from_ipv4(*ip)),
        IpAddr::V6(_) => None,
    });
    of_ipv4.or_else(|| {
        addresses.iter().find_map(|address| match address {
            IpAddr::V6(ip) => Some(of_ipv6(*ip)),
            IpAddr::V4(_) => None,
        })
    })
}

/// The last 40 bits of an IPv6 address, mixed with a hash of those before them: different for any two addresses that
/// differ only at their end, as those of a subnet do, and by all likelihood for those of different subnets. Neighbours
/// remember these, so they must never change.
fn of_ipv6(ip: Ipv6Addr) -> MacAddr {
    let octets = ip.octets();
    let (before, last) = octets.split_at(11);
    let hash = fnv1a(before).to_be_bytes();
    let mut mac = [OF_IPV6; 6];
    for (byte, (last, mixed)) in mac[1..].iter_mut().zip(last.iter().zip(hash)) {
        *byte = last ^ mixed;
    }
    MacAddr::new(mac)
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

    fn of(addresses: &[&str]) -> Option<String> {
        let ip = |address: &&str| IpConfig {
            interface: None,
            address: address.parse().unwrap(),
            gateway: None,
        };
        let ips: Vec<_> = addresses.iter().map(ip).collect();
        of_ips(&ips).map(|mac| mac.to_string())
    }

    #[test]
    fn the_mac_belongs_to_the_first_ipv4_address_or_else_to_the_first_ipv6_address() {
        assert_eq!(of(&[]), None);
        let v4 = of(&["fd00::2/64", "10.1.0.2/24", "10.1.0.3/24"]);
        assert_eq!(v4.as_deref(), Some("0a:58:0a:01:00:02"));
        let v6 = of(&["fd00::2/64", "fd00::3/64"]);
        assert_eq!(v6, of(&["fd00::2/128"]));
        // Neighbours remember it over an upgrade.
        assert_eq!(v6.as_deref(), Some("6a:da:25:4d:5b:36"));
    }

    #[test]
    fn ipv6_addresses_of_a_subnet_have_a_mac_each() {
        let macs: std::collections::BTreeSet<_> = (0..2000_u32)
            .flat_map(|host| {
                let low = |prefix: &str| of(&[&format!("{prefix}:{host:x}/64")]).unwrap();
                [low("fd00:1:"), low("fd00:2:"), low("2001:db8:1:")]
            })
            .collect();
        assert_eq!(macs.len(), 6000);
        for mac in macs {
            let mac: MacAddr = mac.parse().unwrap();
            assert!(mac.is_unicast() && mac.bytes()[0] & 2 != 0, "{mac}");
        }
    }

    #[test]
    fn random_addresses_are_local_unicast() {
        for _ in 0..20 {
            let mac = random().unwrap();
            assert!(mac.is_unicast() && mac.bytes()[0] & 2 != 0, "{mac}");
        }
    }
}
