//! Link-layer addresses, and how IP addresses and prefixes of the configuration are read. Their types are those of
//! `std::net` and the `ipnet` crate.
//!
//! `10.01.0.0` is one address to a reader who takes numbers with leading zeros for decimal and another to one who takes
//! them for octal, as C's `inet_aton` does (CVE-2021-29923). Such a text is refused wherever it stands; Go does so, too.
//! Whatever a person or another program writes is read by [`parse_ip`] and [`parse_net`], or by the functions for serde
//! here, never by the parser of `ipnet`, which takes it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use thiserror::Error;

use crate::json::FieldError;

/// What is wrong with an IPv4 address that has leading zeros, and what to do about it.
const LEADING_ZEROS: &str = "a number with a leading zero is decimal to some and octal to others: write the address without leading zeros";

/// Reads an address. `path` names the field and `expected` says what it is to hold, for the error.
pub fn parse_ip(path: &str, text: &str, expected: &str) -> Result<IpAddr, FieldError> {
    text.parse()
        .map_err(|_| FieldError::new(path, format!("{text:?}"), problem(text, expected)))
}

/// Reads an address with its prefix length. `path` names the field and `expected` says what it is to hold, for the error.
pub fn parse_net(path: &str, text: &str, expected: &str) -> Result<IpNet, FieldError> {
    read_net(text)
        .ok_or_else(|| FieldError::new(path, format!("{text:?}"), problem(text, expected)))
}

/// An address with its prefix length, for serde.
pub(crate) fn net<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    let text = String::deserialize(deserializer)?;
    let expected = "expected an address with its prefix length, like 10.1.0.0/16 or fd00::/64";
    read_net(&text).ok_or_else(|| de::Error::custom(problem(&text, expected)))
}

/// An address for serde, where the empty text means none, as Go writes an unset `net.IP`.
pub(crate) fn optional_ip<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<IpAddr>, D::Error> {
    match Option::<String>::deserialize(deserializer)? {
        Some(text) if !text.is_empty() => {
            let wrong = |_| de::Error::custom(problem(&text, "expected an IP address"));
            text.parse().map(Some).map_err(wrong)
        }
        _ => Ok(None),
    }
}

fn read_net(text: &str) -> Option<IpNet> {
    let (address, length) = text.split_once('/')?;
    let decimal = length.bytes().all(|byte| byte.is_ascii_digit());
    let length = length.parse().ok().filter(|_| decimal)?;
    IpNet::new(address.parse().ok()?, length).ok()
}

/// Why a text is no address.
fn problem<'a>(text: &str, expected: &'a str) -> &'a str {
    let address = text.split('/').next().unwrap_or(text);
    // An IPv6 address may end with one of IPv4.
    let dotted = address.rsplit(':').next().unwrap_or(address);
    let numbers: Vec<&str> = dotted.split('.').collect();
    let decimal = |number: &&str| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let padded = |number: &&str| number.len() > 1 && number.starts_with('0');
    if numbers.len() == 4 && numbers.iter().all(decimal) && numbers.iter().any(padded) {
        LEADING_ZEROS
    } else {
        expected
    }
}

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

    /// Accepts `aa:bb:cc:dd:ee:ff`, `aa-bb-cc-dd-ee-ff` and `aabb.ccdd.eeff`, in either case.
    fn from_str(text: &str) -> Result<Self, MacAddrError> {
        let error = || MacAddrError(text.to_owned());
        let (separator, width) = match text {
            text if text.contains('.') => ('.', 4),
            text if text.contains('-') => ('-', 2),
            _ => (':', 2),
        };
        let mut number: u64 = 0;
        let mut digits = 0;
        for part in text.split(separator) {
            if part.len() != width || !part.bytes().all(|b| b.is_ascii_hexdigit()) || digits == 12 {
                return Err(error());
            }
            let value = u64::from_str_radix(part, 16).map_err(|_| error())?;
            number = number << (4 * width) | value;
            digits += width;
        }
        match number.to_be_bytes() {
            [0, 0, bytes @ ..] if digits == 12 => Ok(Self(bytes)),
            _ => Err(error()),
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
        assert_eq!("0A58.0a01.00ff".parse(), Ok(mac));
        for bad in [
            "",
            "0a58.0a01",
            "0a58.0a01.00ff.0000",
            "0a58.0a01.0ff",
            "0a.58.0a.01.00.ff",
            "0a58:0a01:00ff",
            "0a58.0a01.00ff.",
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

    #[test]
    fn addresses_and_prefixes_are_read() {
        let net = |text| parse_net("subnet", text, "a subnet").map(|net| net.to_string());
        for text in [
            "10.1.0.0/16",
            "fd00::/64",
            "0.0.0.0/0",
            "::ffff:10.1.0.5/120",
        ] {
            assert_eq!(net(text).as_deref(), Ok(text));
        }
        // A length is decimal to everybody.
        assert_eq!(net("10.1.0.0/08").as_deref(), Ok("10.1.0.0/8"));
        for bad in [
            "10.1.0.0",
            "10.1.0.0/",
            "10.1.0.0/33",
            "10.1.0.0/+8",
            "10.1.0.0/-1",
            "10.1.0/24",
            "10.1.0.0/8/8",
            "fd00::/129",
            "fd00::%eth0/64",
            "x/24",
            "",
        ] {
            let error = net(bad).unwrap_err().to_string();
            assert_eq!(error, format!("field \"subnet\": a subnet (it is {bad:?})"));
        }
        let ip = parse_ip("gateway", "fd00:0001::001", "an address").unwrap();
        assert_eq!(ip.to_string(), "fd00:1::1");
        assert!(parse_ip("gateway", "10.1.0.1/24", "an address").is_err());
    }

    #[test]
    fn leading_zeros_are_refused_with_the_remedy() {
        for text in [
            "10.01.0.0/24",
            "010.1.0.0/24",
            "10.1.0.00/24",
            "::ffff:10.1.0.05/120",
        ] {
            let error = parse_net("ipam.subnet", text, "a subnet").unwrap_err();
            let error = error.to_string();
            assert!(
                error.contains("ipam.subnet")
                    && error.contains(text)
                    && error.contains("without leading zeros"),
                "{error}"
            );
        }
        for text in ["10.1.0.08", "00.0.0.0", "::ffff:10.1.0.01"] {
            let error = parse_ip("gateway", text, "an address").unwrap_err();
            assert!(error.to_string().contains("leading zeros"), "{error}");
        }
        for text in ["10.01.0", "10.01.0.x", "10.1.0.256", "0x.01.0.0"] {
            let error = parse_ip("gateway", text, "an address").unwrap_err();
            assert!(error.to_string().contains("an address"), "{error}");
        }
    }
}
