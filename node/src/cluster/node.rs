//! A Node, as much of it as matters here. A cluster has thousands, each with kilobytes of images and conditions.

use std::borrow::Cow;
use std::net::IpAddr;

use ipnet::IpNet;
use k8s_openapi::ClusterResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The wire's form: what is not named here is skipped while it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Wire {
    metadata: WireMeta,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct WireMeta {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    creation_timestamp: Option<Time>,
}

/// A Node of the API.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(from = "Wire")]
pub(crate) struct Node {
    metadata: ObjectMeta,
    spec: Spec,
    status: Status,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    #[serde(rename = "podCIDR")]
    pod_cidr: Option<String>,
    #[serde(rename = "podCIDRs")]
    pod_cidrs: Option<Vec<String>>,
    taints: Option<Vec<Value>>,
}

#[derive(Debug, Clone, Default, Deserialize, Serialize)]
#[serde(default)]
struct Status {
    addresses: Option<Vec<Address>>,
    conditions: Option<Vec<Condition>>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct Address {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
}

impl From<Wire> for Node {
    fn from(wire: Wire) -> Self {
        let metadata = ObjectMeta {
            name: wire.metadata.name,
            uid: wire.metadata.uid,
            resource_version: wire.metadata.resource_version,
            creation_timestamp: wire.metadata.creation_timestamp,
            ..ObjectMeta::default()
        };
        Self {
            metadata,
            spec: wire.spec,
            status: wire.status,
        }
    }
}

impl Resource for Node {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// What a node announces about its pods.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// When the API server made the object, in nanoseconds since 1970. A node can't choose it.
    pub(crate) since: i128,
    /// The subnets of its pods.
    pub(crate) subnets: Vec<IpNet>,
    /// What stands for a subnet and is none.
    pub(crate) garbage: Vec<String>,
    /// Its addresses of the type InternalIP.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Facts {
    /// Whether it has no subnet, as a node that is new.
    pub(crate) fn announces_nothing(&self) -> bool {
        self.subnets.is_empty() && self.garbage.is_empty()
    }
}

/// What matters of the agent's own node beside that.
#[derive(Debug, Clone, Default)]
pub(crate) struct OwnNode {
    pub(crate) uid: String,
    /// What it is at, for changes that must not undo others'.
    pub(crate) resource_version: String,
    pub(crate) taints: Vec<Value>,
    /// The condition NetworkUnavailable; none where nobody set it.
    pub(crate) network_unavailable: Option<bool>,
}

impl OwnNode {
    /// Whether nothing but its version differs, which every heartbeat changes.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let matters = |it: &Self| (it.uid.clone(), it.taints.clone(), it.network_unavailable);
        matters(self) == matters(other)
    }
}

impl Node {
    /// Its name; empty for an object without one, which no API server gives out.
    pub(crate) fn name(&self) -> &str {
        self.metadata.name.as_deref().unwrap_or_default()
    }

    /// What it announces.
    pub(crate) fn facts(&self) -> Facts {
        let created = self.metadata.creation_timestamp.as_ref();
        let mut facts = Facts {
            since: created.map_or(i128::MAX, |time| time.0.as_nanosecond()),
            ..Facts::default()
        };
        let several = self.spec.pod_cidrs.iter().flatten();
        let single = self.spec.pod_cidr.iter();
        for text in several.chain(single).filter(|text| !text.is_empty()) {
            match text.parse::<IpNet>() {
                Ok(net) if !facts.subnets.contains(&net.trunc()) => facts.subnets.push(net.trunc()),
                Ok(_) => {}
                Err(_) if facts.garbage.contains(text) => {}
                Err(_) => facts.garbage.push(text.clone()),
            }
        }
        let internal = self.status.addresses.iter().flatten();
        let internal = internal.filter(|address| address.kind == "InternalIP");
        facts.addresses = internal
            .filter_map(|address| address.address.parse().ok())
            .collect();
        facts
    }

    /// What matters if it is the agent's own.
    pub(crate) fn own(&self) -> OwnNode {
        let mut conditions = self.status.conditions.iter().flatten();
        let condition = conditions.find(|it| it.kind == "NetworkUnavailable");
        OwnNode {
            uid: self.metadata.uid.clone().unwrap_or_default(),
            resource_version: self.metadata.resource_version.clone().unwrap_or_default(),
            taints: self.spec.taints.clone().unwrap_or_default(),
            network_unavailable: condition.map(|it| it.status != "False"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn facts(node: Value) -> Facts {
        serde_json::from_value::<Node>(node).unwrap().facts()
    }

    #[test]
    fn both_spellings_of_subnets_are_read_once() {
        let node = json!({"metadata": {"name": "a"}, "spec": {"podCIDR": "10.244.1.0/24",
            "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"]}});
        let subnets: Vec<String> = facts(node)
            .subnets
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(subnets, ["10.244.1.0/24", "fd00:1::/64"]);
    }

    #[test]
    fn only_internal_addresses_count_and_garbage_is_told_apart() {
        let node = json!({"metadata": {"name": "a", "creationTimestamp": "2026-11-30T21:04:05Z"},
            "spec": {"podCIDR": "10.244.1.0", "podCIDRs": ["10.244.1.0", "", "10.244.1.7/24"], "taints": null},
            "status": {"addresses": [{"type": "ExternalIP", "address": "203.0.113.1"},
                {"type": "InternalIP", "address": "192.168.0.1"}, {"type": "InternalIP", "address": "x"}]}});
        let facts = facts(node);
        assert_eq!(facts.garbage, ["10.244.1.0"]);
        assert_eq!(facts.subnets, ["10.244.1.0/24".parse::<IpNet>().unwrap()]);
        assert_eq!(facts.addresses, ["192.168.0.1".parse::<IpAddr>().unwrap()]);
        assert_eq!(facts.since, 1_796_072_645_000_000_000);
    }

    #[test]
    fn a_node_with_nothing_in_it_is_a_node() {
        for node in [
            json!({}),
            json!({"metadata": {"name": "a"}, "spec": {}, "status": {"addresses": null}}),
        ] {
            assert_eq!(facts(node).subnets, []);
        }
    }
}
