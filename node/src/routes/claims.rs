//! Prefixes that are taken, and by whom.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

/// Prefixes that don't overlap, each with its owner.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// By family and first address: the last address, the prefix and the owner.
    taken: BTreeMap<(bool, u128), (u128, IpNet, String)>,
}

impl Claims {
    /// Takes a prefix for `owner`. Returns who has one that it overlaps with, and which, if somebody does.
    pub(super) fn take(&mut self, net: IpNet, owner: &str) -> Result<(), (IpNet, &str)> {
        let (family, first, last) = span(net);
        let before = self.taken.range(..=(family, last)).next_back();
        let overlaps =
            before.is_some_and(|((other, _), (end, ..))| *other == family && *end >= first);
        if !overlaps {
            let entry = (last, net, owner.to_owned());
            self.taken.insert((family, first), entry);
            return Ok(());
        }
        let holder = self.taken.range(..=(family, last)).next_back();
        Err(holder.map_or((net, ""), |(_, (_, net, owner))| (*net, owner.as_str())))
    }
}

/// The family, and the first and last address as numbers.
pub(super) fn span(net: IpNet) -> (bool, u128, u128) {
    let (v6, first) = number(net.network());
    let (_, last) = number(net.broadcast());
    (v6, first, last)
}

/// The family and the address as a number.
pub(super) fn number(address: IpAddr) -> (bool, u128) {
    match address {
        IpAddr::V4(address) => (false, u32::from(address).into()),
        IpAddr::V6(address) => (true, address.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_is_taken_once_however_it_is_cut() {
        let mut claims = Claims::default();
        for (text, owner) in [
            ("10.244.1.0/24", "a"),
            ("10.244.3.0/24", "b"),
            ("fd00::/64", "a"),
        ] {
            assert_eq!(claims.take(net(text), owner), Ok(()));
        }
        for (text, holder) in [
            ("10.244.1.0/24", "a"),
            ("10.244.1.128/25", "a"),
            ("10.244.0.0/23", "a"),
            ("10.244.2.0/23", "b"),
            ("0.0.0.0/0", "b"),
            ("fd00::8000:0:0:0/65", "a"),
            ("::/0", "a"),
        ] {
            let (_, owner) = claims.take(net(text), "c").unwrap_err();
            assert_eq!(owner, holder, "{text}");
        }
        assert_eq!(claims.take(net("10.244.2.0/24"), "c"), Ok(()));
        // Numbers of one family mean nothing in the other.
        assert_eq!(claims.take(net("::a00:0/104"), "c"), Ok(()));
    }
}
