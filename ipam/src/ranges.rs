//! Which addresses a network may hand out, and in which order. Pure arithmetic, no I/O.
//!
//! Both families are numbers of 128 bits here, so one code serves both, and nothing ever enumerates a range:
//! a /64 costs as much as a /30. The rules are those of the Go plugin's `host-local`, since both
//! may work on the same state: a range has at least a /30 (IPv4) or /126 (IPv6) as its subnet, its gateway is
//! the subnet's first address unless given, and addresses are handed out round-robin.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use thiserror::Error;

/// A value in the description of a range that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {value:?} {problem}")]
pub struct RangeError {
    /// Path of the field, such as `ipam.ranges[0][1].rangeStart`.
    pub field: String,
    /// The value that was found.
    pub value: String,
    /// What is wrong with it.
    pub problem: String,
    /// What to write instead.
    pub remedy: String,
}

impl RangeError {
    fn new(
        field: &str,
        value: impl ToString,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            value: value.to_string(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// The same error with its field seen from one level further out.
    #[must_use]
    pub fn within(mut self, parent: &str) -> Self {
        self.field = match self.field.as_str() {
            "" => parent.into(),
            index if index.starts_with('[') => format!("{parent}{index}"),
            field => format!("{parent}.{field}"),
        };
        self
    }
}

/// The number of an address within its family.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address with this number in the family of `like`. Numbers beyond the family's end do not occur: every
/// number comes out of a subnet of that family.
fn address(like: IpAddr, number: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from(u32::try_from(number).unwrap_or(u32::MAX))),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(number)),
    }
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

/// Consecutive addresses of one subnet that may be handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    subnet: IpNet,
    first: u128,
    last: u128,
    gateway: IpAddr,
}

impl Range {
    /// A range of `subnet`, from `start` to `end` inclusive; both default to the subnet's ends.
    ///
    /// The network address and the IPv4 broadcast address are never part of it, even if `start` or `end` name
    /// them. The last IPv6 address is an ordinary one (RFC 4291 has no broadcast). `gateway` may lie outside
    /// the subnet.
    pub fn new(
        subnet: IpNet,
        start: Option<IpAddr>,
        end: Option<IpAddr>,
        gateway: Option<IpAddr>,
    ) -> Result<Self, RangeError> {
        check_subnet(subnet)?;
        for (field, value) in [
            ("rangeStart", start),
            ("rangeEnd", end),
            ("gateway", gateway),
        ] {
            if let Some(value) = value {
                check_member(field, value, subnet)?;
            }
        }
        let lowest = number(subnet.network()) + 1;
        let highest = number(subnet.broadcast()) - u128::from(subnet.addr().is_ipv4());
        if let (Some(start), Some(end)) = (start, end)
            && number(start) > number(end)
        {
            return Err(RangeError::new(
                "rangeEnd",
                end,
                format!("comes before rangeStart {start}"),
                "write the lower address as rangeStart and the higher one as rangeEnd",
            ));
        }
        let range = Self {
            subnet,
            first: start.map_or(lowest, number).max(lowest),
            last: end.map_or(highest, number).min(highest),
            gateway: gateway.unwrap_or_else(|| address(subnet.addr(), lowest)),
        };
        if range.first > range.last {
            return Err(RangeError::new(
                if start.is_some() {
                    "rangeStart"
                } else {
                    "rangeEnd"
                },
                start.or(end).unwrap_or(subnet.addr()),
                format!("leaves no address of {subnet} to hand out"),
                format!(
                    "use addresses between {} and {}",
                    address(subnet.addr(), lowest),
                    address(subnet.addr(), highest)
                ),
            ));
        }
        Ok(range)
    }

    /// The subnet that the addresses lie in.
    pub fn subnet(&self) -> IpNet {
        self.subnet
    }

    /// The gateway that goes with these addresses; it is never handed out.
    pub fn gateway(&self) -> IpAddr {
        self.gateway
    }

    /// The lowest address of the range.
    pub fn first(&self) -> IpAddr {
        address(self.subnet.addr(), self.first)
    }

    /// The highest address of the range.
    pub fn last(&self) -> IpAddr {
        address(self.subnet.addr(), self.last)
    }

    /// True if the address lies between the first and the last one, the gateway included.
    pub fn contains(&self, address: IpAddr) -> bool {
        same_family(address, self.subnet.addr())
            && (self.first..=self.last).contains(&number(address))
    }

    fn overlaps(&self, other: &Self) -> bool {
        same_family(self.subnet.addr(), other.subnet.addr())
            && self.first <= other.last
            && other.first <= self.last
    }

    /// Addresses from first to last. Never overflows: the network address is not among them.
    fn len(&self) -> u128 {
        self.last - self.first + 1
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first(), self.last())
    }
}

fn check_subnet(subnet: IpNet) -> Result<(), RangeError> {
    let smallest = subnet.max_prefix_len() - 2;
    if subnet.prefix_len() > smallest {
        return Err(RangeError::new(
            "subnet",
            subnet,
            "is too small to allocate from",
            format!("use a /{smallest} or larger"),
        ));
    }
    if subnet.addr() != subnet.network() {
        return Err(RangeError::new(
            "subnet",
            subnet,
            "has host bits set",
            format!("write {}", subnet.trunc()),
        ));
    }
    if is_mapped(subnet.addr()) {
        return Err(RangeError::new(
            "subnet",
            subnet,
            "is an IPv4 subnet in IPv6 notation",
            "write it as an IPv4 subnet",
        ));
    }
    Ok(())
}

fn is_mapped(address: IpAddr) -> bool {
    address.to_canonical() != address
}

fn check_member(field: &str, value: IpAddr, subnet: IpNet) -> Result<(), RangeError> {
    if !same_family(value, subnet.addr()) {
        return Err(RangeError::new(
            field,
            value,
            format!("is not of the same family as the subnet {subnet}"),
            "use IPv4 with IPv4 and IPv6 with IPv6; each family has a range set of its own",
        ));
    }
    if field != "gateway" && !subnet.contains(&value) {
        return Err(RangeError::new(
            field,
            value,
            format!("does not lie in the subnet {subnet}"),
            format!(
                "use an address between {} and {}",
                subnet.network(),
                subnet.broadcast()
            ),
        ));
    }
    Ok(())
}

/// Ranges of one family out of which a container gets one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeSet {
    ranges: Vec<Range>,
    /// Gateways that lie inside some range of the set, by number.
    gateways: BTreeSet<u128>,
}

impl RangeSet {
    /// A set of ranges, which are used in this order. They are of one family and don't overlap.
    pub fn new(ranges: Vec<Range>) -> Result<Self, RangeError> {
        let Some(first) = ranges.first() else {
            return Err(RangeError::new(
                "",
                "[]",
                "is a range set without a range",
                "give it a range like {\"subnet\": \"10.1.0.0/16\"}",
            ));
        };
        for (index, range) in ranges.iter().enumerate() {
            let path = format!("[{index}]");
            if !same_family(first.subnet.addr(), range.subnet.addr()) {
                return Err(RangeError::new(
                    "subnet",
                    range.subnet,
                    format!("is of another family than {} in the same set", first.subnet),
                    "put each family into a range set of its own",
                )
                .within(&path));
            }
            if let Some(other) = ranges[..index].iter().find(|other| other.overlaps(range)) {
                return Err(overlap(range, other).within(&path));
            }
        }
        let gateways = ranges
            .iter()
            .map(|range| range.gateway)
            .filter(|gateway| ranges.iter().any(|range| range.contains(*gateway)))
            .map(number)
            .collect();
        let set = Self { ranges, gateways };
        if set.capacity() == 0 {
            return Err(RangeError::new(
                "",
                &set,
                "holds no address but its gateway",
                "widen the range or move the gateway out of it",
            ));
        }
        Ok(set)
    }

    /// The ranges, in order of use.
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// How many addresses the set can hand out.
    pub fn capacity(&self) -> u128 {
        self.span() - self.gateways.len() as u128
    }

    /// Addresses of all ranges, gateways included. Ranges don't overlap, so the sum fits.
    fn span(&self) -> u128 {
        self.ranges.iter().map(Range::len).sum()
    }

    /// The range that an address lies in.
    pub fn range_of(&self, address: IpAddr) -> Option<&Range> {
        self.ranges.iter().find(|range| range.contains(address))
    }

    /// True if the address is some range's gateway.
    pub fn is_gateway(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.gateway == address)
    }

    /// True if the set may hand this address out.
    pub fn offers(&self, address: IpAddr) -> bool {
        self.range_of(address).is_some() && !self.is_gateway(address)
    }

    /// Every address that may be handed out, each once: from the one after `last`, and round.
    ///
    /// A `last` that lies in no range of the set (the configuration has changed) starts at the beginning.
    pub fn walk(&self, last: Option<IpAddr>) -> Walk<'_> {
        let position = last.and_then(|last| {
            let index = self.ranges.iter().position(|range| range.contains(last))?;
            Some((index, number(last)))
        });
        let mut walk = Walk {
            set: self,
            index: 0,
            next: self.ranges[0].first,
            left: self.span(),
        };
        if let Some((index, last)) = position {
            walk.index = index;
            walk.next = last;
            walk.advance();
        }
        walk
    }

    /// The first address after `last`, round-robin, that is not in `used`. Takes time in proportion to `used`.
    pub fn first_free(&self, last: Option<IpAddr>, used: &BTreeSet<IpAddr>) -> Option<IpAddr> {
        self.walk(last).find(|address| !used.contains(address))
    }

    /// The first pair of ranges, one of each set, that have an address in common, as an error.
    pub fn check_disjoint(&self, other: &Self) -> Result<(), RangeError> {
        for (index, range) in self.ranges.iter().enumerate() {
            if let Some(common) = other.ranges.iter().find(|common| common.overlaps(range)) {
                return Err(overlap(range, common).within(&format!("[{index}]")));
            }
        }
        Ok(())
    }
}

fn overlap(range: &Range, other: &Range) -> RangeError {
    RangeError::new(
        "",
        range,
        format!("overlaps with the range {other}"),
        "give each range addresses of its own with rangeStart and rangeEnd",
    )
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.ranges.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{range}")?;
        }
        Ok(())
    }
}

/// The round through a set; see [`RangeSet::walk`].
#[derive(Debug, Clone)]
pub struct Walk<'a> {
    set: &'a RangeSet,
    index: usize,
    next: u128,
    left: u128,
}

impl Walk<'_> {
    fn advance(&mut self) {
        if self.next < self.set.ranges[self.index].last {
            self.next += 1;
        } else {
            self.index = (self.index + 1) % self.set.ranges.len();
            self.next = self.set.ranges[self.index].first;
        }
    }
}

impl Iterator for Walk<'_> {
    type Item = IpAddr;

    fn next(&mut self) -> Option<IpAddr> {
        while self.left > 0 {
            let (here, number) = (self.index, self.next);
            self.left -= 1;
            self.advance();
            if !self.set.gateways.contains(&number) {
                return Some(address(self.set.ranges[here].subnet.addr(), number));
            }
        }
        None
    }
}

#[cfg(test)]
#[path = "ranges_tests.rs"]
mod tests;
