//! Link-layer addresses. IP addresses and prefixes are those of `std::net` and the `ipnet` crate.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

/// A 48-bit Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

/// A text that is no 48-bit Ethernet address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a MAC address: write six hexadecimal bytes like \"0a:58:0a:01:00:02\"")]
pub struct MacAddrError(String);

impl MacAddr {
    /// The address made of these bytes in transmission order.
    pub const fn new(bytes: [u8; 6]) -> Self {
        Self(bytes)
    }

    /// The bytes in transmission order.
    pub const fn bytes(self) -> [u8; 6] {
        self.0
    }

    /// True if an interface may have this address: not multicast, not all zero (the kernel's
    /// `is_valid_ether_addr`).
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && self.0 != [0; 6]
    }

    /// The locally administered address that belongs to an IPv4 address: `0a:58` and its four bytes.
    ///
    /// Whoever gets the same IPv4 address again gets the same MAC address, so the neighbours' ARP caches stay
    /// right. The prefix is the one that Kubernetes networks have used for this purpose since kubenet.
    pub fn from_ipv4(ip: Ipv4Addr) -> Self {
        let [a, b, c, d] = ip.octets();
        Self([0x0a, 0x58, a, b, c, d])
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = MacAddrError;

    /// Accepts `aa:bb:cc:dd:ee:ff` and `aa-bb-cc-dd-ee-ff`, in either case.
    fn from_str(text: &str) -> Result<Self, MacAddrError> {
        let error = || MacAddrError(text.to_owned());
        let separator = if text.contains('-') { '-' } else { ':' };
        let mut bytes = [0; 6];
        let mut parts = text.split(separator);
        for byte in &mut bytes {
            let part = parts.next().ok_or_else(error)?;
            if part.len() != 2 || !part.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() {
            Err(error())
        } else {
            Ok(Self(bytes))
        }
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// `0.0.0.0/0` or `::/0`, the prefix of a default route, in the family of `address`.
pub fn default_prefix(address: IpAddr) -> IpNet {
    match address {
        IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
    }
}

/// True for a prefix that matches every address of its family.
pub fn is_default_prefix(prefix: &IpNet) -> bool {
    prefix.prefix_len() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_and_written() {
        let mac: MacAddr = "0A:58:0a:01:00:ff".parse().unwrap();
        assert_eq!(mac.to_string(), "0a:58:0a:01:00:ff");
        assert_eq!("0a-58-0a-01-00-ff".parse(), Ok(mac));
        for bad in [
            "",
            "0a:58:0a:01:00",
            "0a:58:0a:01:00:ff:00",
            "0a:58:0a:01:00:+f",
            "0a580a0100ff",
            "0:1:2:3:4:5",
        ] {
            assert!(bad.parse::<MacAddr>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_unicast_addresses_fit_an_interface() {
        assert!(MacAddr::from_ipv4(Ipv4Addr::new(10, 1, 0, 2)).is_unicast());
        assert!(!MacAddr::new([0; 6]).is_unicast());
        assert!(!MacAddr::new([0xff; 6]).is_unicast());
        assert!(!MacAddr::new([1, 0, 0, 0, 0, 1]).is_unicast());
    }
}
