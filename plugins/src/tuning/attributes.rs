//! Attributes of an interface that can be tuned.

use cni_conf::addr::MacAddr;
use cni_conf::error::{Code, Error};

use crate::host::Rtnl;
use crate::host::rtnl::{Link, LinkChange};

/// Attributes to set, or as they were. `None` leaves one alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mac: Option<MacAddr>,
    /// In bytes.
    pub(super) mtu: Option<u32>,
    pub(super) promisc: Option<bool>,
    pub(super) allmulti: Option<bool>,
    /// In packets.
    pub(super) tx_queue_len: Option<u32>,
}

impl Attributes {
    /// True if there is nothing to set.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// What `link` has now of those that are set here.
    pub(super) fn of(&self, link: &Link) -> Result<Self, Error> {
        if self.mac.is_some() && link.mac.is_none() {
            return Err(Error::new(
                Code::UnsupportedField,
                format!(
                    "interface {} can have no MAC address: it is no Ethernet device",
                    link.name
                ),
            )
            .with_details("remove \"mac\" from the tuning plugin's configuration"));
        }
        Ok(Self {
            mac: self.mac.and(link.mac).map(MacAddr::new),
            mtu: self.mtu.map(|_| link.mtu),
            promisc: self.promisc.map(|_| link.promisc),
            allmulti: self.allmulti.map(|_| link.allmulti),
            tx_queue_len: self.tx_queue_len.map(|_| link.tx_queue_len),
        })
    }

    /// These, and of `other` what is not set here.
    pub(super) fn or(&self, other: &Self) -> Self {
        Self {
            mac: self.mac.or(other.mac),
            mtu: self.mtu.or(other.mtu),
            promisc: self.promisc.or(other.promisc),
            allmulti: self.allmulti.or(other.allmulti),
            tx_queue_len: self.tx_queue_len.or(other.tx_queue_len),
        }
    }

    /// Sets them on a link.
    pub(super) fn apply(&self, rtnl: &Rtnl, link: u32) -> Result<(), Error> {
        if self.is_empty() {
            return Ok(());
        }
        rtnl.set_link(
            link,
            &LinkChange {
                mac: self.mac.map(MacAddr::bytes),
                mtu: self.mtu,
                promisc: self.promisc,
                allmulti: self.allmulti,
                tx_queue_len: self.tx_queue_len,
                ..LinkChange::default()
            },
        )?;
        Ok(())
    }

    /// One sentence for each attribute that `now` has another value of.
    pub(super) fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |name: &str, wanted: Option<String>, is: Option<String>| {
            if let Some(wanted) = wanted
                && is.as_ref() != Some(&wanted)
            {
                let is = is.unwrap_or_else(|| "unknown".into());
                found.push(format!("{name} is {is}, not {wanted}"));
            }
        };
        let text = |flag: Option<bool>| flag.map(|on| on.to_string());
        let number = |value: Option<u32>| value.map(|value| value.to_string());
        compare(
            "mac",
            self.mac.map(|mac| mac.to_string()),
            now.mac.map(|mac| mac.to_string()),
        );
        compare("mtu", number(self.mtu), number(now.mtu));
        compare("promisc", text(self.promisc), text(now.promisc));
        compare("allmulti", text(self.allmulti), text(now.allmulti));
        compare(
            "txQLen",
            number(self.tx_queue_len),
            number(now.tx_queue_len),
        );
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_asked_for_is_compared() {
        let wanted = Attributes {
            mtu: Some(1400),
            allmulti: Some(true),
            ..Attributes::default()
        };
        let now = Attributes {
            mtu: Some(1500),
            allmulti: Some(true),
            promisc: Some(true),
            ..Attributes::default()
        };
        assert_eq!(wanted.differences(&now), ["mtu is 1500, not 1400"]);
        assert!(wanted.differences(&wanted).is_empty());
    }

    #[test]
    fn what_was_saved_first_stays() {
        let first = Attributes {
            mtu: Some(1500),
            ..Attributes::default()
        };
        let second = Attributes {
            mtu: Some(1400),
            promisc: Some(false),
            ..Attributes::default()
        };
        let both = first.or(&second);
        assert_eq!(
            (both.mtu, both.promisc, both.mac),
            (Some(1500), Some(false), None)
        );
    }
}
