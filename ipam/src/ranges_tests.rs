use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn range(subnet: &str, start: &str, end: &str, gateway: &str) -> Result<Range, RangeError> {
    let optional = |text: &str| (!text.is_empty()).then(|| ip(text));
    Range::new(
        subnet.parse().unwrap(),
        optional(start),
        optional(end),
        optional(gateway),
    )
}

fn set(ranges: &[(&str, &str, &str, &str)]) -> RangeSet {
    let ranges = ranges.iter().map(|(a, b, c, d)| range(a, b, c, d).unwrap());
    RangeSet::new(ranges.collect()).unwrap()
}

fn walk(set: &RangeSet, last: &str) -> Vec<String> {
    let last = (!last.is_empty()).then(|| ip(last));
    set.walk(last).map(|address| address.to_string()).collect()
}

#[test]
fn a_range_defaults_to_the_whole_subnet_with_the_first_address_as_gateway() {
    let v4 = range("10.1.0.0/24", "", "", "").unwrap();
    assert_eq!((v4.first(), v4.last()), (ip("10.1.0.1"), ip("10.1.0.254")));
    assert_eq!(v4.gateway(), ip("10.1.0.1"));
    let v6 = range("fd00::/64", "", "", "").unwrap();
    assert_eq!(
        (v6.first(), v6.last()),
        (ip("fd00::1"), ip("fd00::ffff:ffff:ffff:ffff"))
    );
    assert_eq!(v6.gateway(), ip("fd00::1"));
}

#[test]
fn network_and_broadcast_are_left_out_even_if_named() {
    let v4 = range("10.1.0.0/24", "10.1.0.0", "10.1.0.255", "").unwrap();
    assert_eq!(v4.to_string(), "10.1.0.1-10.1.0.254");
}

#[test]
fn errors_name_field_value_and_remedy() {
    let cases = [
        (
            "10.1.0.0/31",
            "",
            "",
            "",
            "subnet \"10.1.0.0/31\" is too small",
            "a /30 or larger",
        ),
        (
            "fd00::/127",
            "",
            "",
            "",
            "subnet \"fd00::/127\" is too small",
            "a /126 or larger",
        ),
        (
            "10.1.0.1/24",
            "",
            "",
            "",
            "subnet \"10.1.0.1/24\" has host bits",
            "10.1.0.0/24",
        ),
        (
            "::ffff:10.0.0.0/120",
            "",
            "",
            "",
            "IPv6 notation",
            "IPv4 subnet",
        ),
        (
            "10.1.0.0/24",
            "10.2.0.1",
            "",
            "",
            "rangeStart \"10.2.0.1\" does not lie",
            "10.1.0.0 and",
        ),
        (
            "10.1.0.0/24",
            "",
            "10.2.0.1",
            "",
            "rangeEnd \"10.2.0.1\" does not lie",
            "10.1.0.255",
        ),
        (
            "10.1.0.0/24",
            "10.1.0.9",
            "10.1.0.8",
            "",
            "comes before rangeStart 10.1.0.9",
            "lower",
        ),
        (
            "10.1.0.0/24",
            "fd00::1",
            "",
            "",
            "not of the same family",
            "IPv4 with IPv4",
        ),
        (
            "10.1.0.0/24",
            "",
            "",
            "fd00::1",
            "gateway \"fd00::1\" is not of the same",
            "IPv4",
        ),
        (
            "10.1.0.0/24",
            "10.1.0.255",
            "",
            "",
            "leaves no address",
            "10.1.0.1 and 10.1.0.254",
        ),
        (
            "10.1.0.0/24",
            "",
            "10.1.0.0",
            "",
            "rangeEnd \"10.1.0.0\" leaves no",
            "10.1.0.254",
        ),
    ];
    for (subnet, start, end, gateway, message, remedy) in cases {
        let error = range(subnet, start, end, gateway).unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.remedy.contains(remedy), "{}", error.remedy);
    }
}

#[test]
fn sets_of_mixed_family_overlap_or_nothing_are_refused() {
    let v4 = range("10.1.0.0/24", "", "10.1.0.100", "").unwrap();
    let overlapping = range("10.1.0.0/24", "10.1.0.100", "", "").unwrap();
    let v6 = range("fd00::/64", "", "", "").unwrap();
    let only_gateway = range("10.1.0.0/24", "10.1.0.1", "10.1.0.1", "").unwrap();
    let message = |ranges: &[&Range]| {
        RangeSet::new(ranges.iter().map(|range| (*range).clone()).collect())
            .unwrap_err()
            .within("ranges[0]")
            .to_string()
    };
    assert!(message(&[&v4, &v6]).starts_with("ranges[0][1].subnet \"fd00::/64\" is of another"));
    assert!(message(&[&v4, &overlapping]).contains("overlaps with the range 10.1.0.1-10.1.0.100"));
    assert!(message(&[&only_gateway]).contains("no address but its gateway"));
    assert!(message(&[]).contains("without a range"));

    let (a, b) = (
        RangeSet::new(vec![v4]).unwrap(),
        RangeSet::new(vec![overlapping]).unwrap(),
    );
    assert!(a.check_disjoint(&b).is_err());
    assert!(a.check_disjoint(&RangeSet::new(vec![v6]).unwrap()).is_ok());
}

#[test]
fn the_walk_starts_after_the_last_address_and_wraps() {
    let set = set(&[("10.1.0.0/29", "", "", "")]);
    assert_eq!(
        walk(&set, ""),
        ["10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]
    );
    assert_eq!(
        walk(&set, "10.1.0.4"),
        ["10.1.0.5", "10.1.0.6", "10.1.0.2", "10.1.0.3", "10.1.0.4"]
    );
    assert_eq!(walk(&set, "10.9.0.1"), walk(&set, ""));
    assert_eq!(walk(&set, "fd00::1"), walk(&set, ""));
}

#[test]
fn the_walk_passes_from_range_to_range_and_skips_every_gateway() {
    let set = set(&[
        ("10.1.0.0/24", "10.1.0.5", "10.1.0.7", "10.2.0.5"),
        ("10.2.0.0/24", "10.2.0.4", "10.2.0.6", "10.1.0.6"),
    ]);
    assert_eq!(
        walk(&set, "10.1.0.6"),
        ["10.1.0.7", "10.2.0.4", "10.2.0.6", "10.1.0.5"]
    );
    assert_eq!(set.capacity(), 4);
    assert!(!set.offers(ip("10.2.0.5")) && set.range_of(ip("10.2.0.5")).is_some());
}

#[test]
fn huge_ranges_cost_nothing() {
    let set = set(&[("fd00::/64", "", "", "")]);
    assert_eq!(set.capacity(), (1 << 64) - 2);
    let all = self::set(&[("::/0", "", "", "")]);
    assert_eq!(all.capacity(), u128::MAX - 1);
    let last = Some(ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"));
    assert_eq!(all.walk(last).next(), Some(ip("::2")));
    assert_eq!(
        self::set(&[("0.0.0.0/0", "", "", "")]).capacity(),
        (1 << 32) - 3
    );
}

/// A description of a range in a small subnet: family, offsets of start, end and gateway.
fn description() -> impl Strategy<Value = (IpNet, Option<u8>, Option<u8>, Option<u8>)> {
    let offset = || prop::option::of(0..16u8);
    (any::<bool>(), 0..3u8, offset(), offset(), offset()).prop_map(|(v4, bits, start, end, gw)| {
        let subnet = if v4 {
            format!("10.1.0.0/{}", 28 + bits)
        } else {
            format!("fd00::/{}", 124 + bits)
        };
        (subnet.parse().unwrap(), start, end, gw)
    })
}

fn nth(subnet: IpNet, offset: u8) -> IpAddr {
    match subnet.addr() {
        IpAddr::V4(_) => ip(&format!("10.1.0.{offset}")),
        IpAddr::V6(_) => ip(&format!("fd00::{offset:x}")),
    }
}

/// The addresses of one range by looking at each address of the subnet.
fn brute_force(
    subnet: IpNet,
    start: Option<IpAddr>,
    end: Option<IpAddr>,
    gateway: IpAddr,
) -> Vec<IpAddr> {
    (0..=15)
        .map(|offset| nth(subnet, offset))
        .filter(|address| subnet.contains(address))
        .filter(|address| *address != subnet.network())
        .filter(|address| address.is_ipv6() || *address != subnet.broadcast())
        .filter(|address| start.is_none_or(|start| *address >= start))
        .filter(|address| end.is_none_or(|end| *address <= end))
        .filter(|address| *address != gateway)
        .collect()
}

proptest! {
    #[test]
    fn agrees_with_brute_force((subnet, start, end, gateway) in description(), last in 0..16u8, used in any::<u16>()) {
        let [start, end, gateway] = [start, end, gateway].map(|n| n.map(|n| nth(subnet, n)));
        let bad = [start, end].iter().flatten().any(|a| !subnet.contains(a))
            || matches!((start, end), (Some(a), Some(b)) if a > b);
        let expected = brute_force(subnet, start, end, gateway.unwrap_or(nth(subnet, 1)));
        let built = Range::new(subnet, start, end, gateway).and_then(|r| RangeSet::new(vec![r]));
        prop_assert_eq!(built.is_err(), bad || expected.is_empty());
        let Ok(set) = built else { return Ok(()) };

        prop_assert_eq!(set.capacity(), expected.len() as u128);
        for offset in 0..=15 {
            let address = nth(subnet, offset);
            prop_assert_eq!(set.offers(address), expected.contains(&address));
        }
        let last = nth(subnet, last);
        let split = if set.range_of(last).is_some() {
            expected.iter().filter(|a| **a <= last).count()
        } else {
            0
        };
        let mut rotated = expected.clone();
        rotated.rotate_left(split);
        prop_assert_eq!(set.walk(Some(last)).collect::<Vec<_>>(), rotated.clone());

        let used: BTreeSet<_> = (0..16).filter(|n| used >> n & 1 == 1).map(|n| nth(subnet, n)).collect();
        let free = rotated.into_iter().find(|a| !used.contains(a));
        prop_assert_eq!(set.first_free(Some(last), &used), free);
    }

    #[test]
    fn a_set_walks_all_its_ranges(bounds in prop::collection::btree_set(2..254u8, 2..8), last in any::<u8>()) {
        let bounds: Vec<u8> = bounds.into_iter().collect();
        let ranges: Vec<Range> = bounds
            .chunks_exact(2)
            .map(|pair| range("10.1.0.0/24", &format!("10.1.0.{}", pair[0]), &format!("10.1.0.{}", pair[1]), "").unwrap())
            .collect();
        let expected: Vec<u8> = bounds.chunks_exact(2).flat_map(|pair| pair[0]..=pair[1]).collect();
        let set = RangeSet::new(ranges).unwrap();
        let split = expected.iter().position(|n| *n == last).map_or(0, |position| position + 1);
        let mut rotated: Vec<IpAddr> = expected.iter().map(|n| ip(&format!("10.1.0.{n}"))).collect();
        rotated.rotate_left(split);
        prop_assert_eq!(set.walk(Some(ip(&format!("10.1.0.{last}")))).collect::<Vec<_>>(), rotated);
    }
}
