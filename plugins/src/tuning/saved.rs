//! What is written down about an interface before it is tuned.

use cni_conf::json;
use cni_conf::names::NetworkName;
use serde::{Deserialize, Serialize};

use super::attributes::Attributes;
use crate::attach::container::Container;
use crate::attach::settings;
use crate::host::rtnl::Link;

/// Content of a file. Keys and types are the Go plugin's as far as it has them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Saved {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) mac: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) promisc: Option<bool>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) mtu: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allmulti: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tx_q_len: Option<u32>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) network: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) netns_cookie: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ifindex: Option<u32>,
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

impl Saved {
    /// What is saved of an interface. What an earlier plugin of the same list saved of it stays.
    pub(super) fn new(
        network: &NetworkName,
        container: &Container,
        link: &Link,
        attributes: &Attributes,
        earlier: Option<&Self>,
    ) -> Self {
        let this = Self {
            network: network.to_string(),
            // Before Linux 5.14 there is no cookie, and a file of an earlier plugin is not known again.
            netns_cookie: container.netns.cookie().ok(),
            ifindex: Some(link.index),
            ..Self::default()
        };
        let attributes = match earlier {
            Some(earlier) if earlier.is_of(&this) == Some(true) => {
                earlier.attributes().or(attributes)
            }
            _ => *attributes,
        };
        Self {
            mac: attributes
                .mac
                .map(|mac| mac.to_string())
                .unwrap_or_default(),
            promisc: attributes.promisc,
            mtu: attributes.mtu.unwrap_or_default(),
            allmulti: attributes.allmulti,
            tx_q_len: attributes.tx_queue_len,
            ..this
        }
    }

    /// Whether both are about one interface; `None` if that can't be told.
    pub(super) fn is_of(&self, other: &Self) -> Option<bool> {
        let (cookie, other_cookie) = (self.netns_cookie?, other.netns_cookie?);
        Some((cookie, self.ifindex) == (other_cookie, other.ifindex))
    }

    pub(super) fn attributes(&self) -> Attributes {
        Attributes {
            mac: settings::mac("mac", &self.mac).ok(),
            mtu: Some(self.mtu).filter(|mtu| *mtu != 0),
            promisc: self.promisc,
            allmulti: self.allmulti,
            tx_queue_len: self.tx_q_len,
        }
    }

    /// Reads a file's content; `None` if it is not whole.
    pub(super) fn parse(content: &[u8]) -> Option<Self> {
        let value = serde_json::from_slice(content).ok()?;
        json::from_value(&value).ok()
    }
}
