//! Filling in a template.
//!
//! A template is a list in which texts such as `"{{podRanges}}"` stand for values. Such a text is replaced as a whole, by a value
//! of the type that belongs there; in an array, a value that is an array itself brings its members. There is no other syntax, so
//! what comes out is well-formed whatever goes in.

use ipnet::IpNet;
use serde_json::{Map, Value, json};
use thiserror::Error;

/// What is filled in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Values {
    /// The subnets of this node's pods.
    pub(crate) pods: Vec<IpNet>,
    /// The prefixes of all pods of the cluster.
    pub(crate) cluster: Vec<IpNet>,
    /// The networks that this node's InternalIPs are in.
    pub(crate) nodes: Vec<IpNet>,
    /// The MTU of the link that has them, in bytes.
    pub(crate) mtu: Option<u32>,
}

/// Why a template can't be filled in.
#[derive(Debug, PartialEq, Eq, Error)]
pub(crate) enum FillError {
    #[error(
        "there is no value {{{{{0}}}}}; there are podCIDRs, podRanges, clusterCIDRs, nodeCIDRs and mtu"
    )]
    Unknown(String),
    #[error("{{{{clusterCIDRs}}}} needs --cluster-cidrs")]
    NoCluster,
    #[error(
        "{{{{nodeCIDRs}}}} and {{{{mtu}}}} need an InternalIP of this node that one of its links has"
    )]
    NoUplink,
}

/// The template with its values.
pub(super) fn fill(template: &Value, values: &Values) -> Result<Value, FillError> {
    match template {
        Value::String(text) => match name_in(text) {
            Some(name) => values.get(name),
            None => Ok(template.clone()),
        },
        Value::Array(members) => {
            let mut filled = Vec::new();
            for member in members {
                let stands_for_one = member.as_str().and_then(name_in).is_some();
                match fill(member, values)? {
                    Value::Array(several) if stands_for_one => filled.extend(several),
                    one => filled.push(one),
                }
            }
            Ok(Value::Array(filled))
        }
        Value::Object(members) => {
            let mut filled = Map::new();
            for (key, member) in members {
                filled.insert(key.clone(), fill(member, values)?);
            }
            Ok(Value::Object(filled))
        }
        other => Ok(other.clone()),
    }
}

fn name_in(text: &str) -> Option<&str> {
    text.strip_prefix("{{")?.strip_suffix("}}").map(str::trim)
}

impl Values {
    fn get(&self, name: &str) -> Result<Value, FillError> {
        match name {
            "podCIDRs" => Ok(texts(&self.pods)),
            "podRanges" => {
                let ranges = self
                    .pods
                    .iter()
                    .map(|net| json!([{"subnet": net.to_string()}]));
                Ok(ranges.collect())
            }
            "clusterCIDRs" if self.cluster.is_empty() => Err(FillError::NoCluster),
            "clusterCIDRs" => Ok(texts(&self.cluster)),
            "nodeCIDRs" if self.nodes.is_empty() => Err(FillError::NoUplink),
            "nodeCIDRs" => Ok(texts(&self.nodes)),
            "mtu" => Ok(self.mtu.ok_or(FillError::NoUplink)?.into()),
            other => Err(FillError::Unknown(other.to_owned())),
        }
    }
}

fn texts(nets: &[IpNet]) -> Value {
    nets.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_of_the_type_that_belongs_there() {
        let values = Values {
            pods: vec!["10.1.0.0/24".parse().unwrap()],
            cluster: vec!["10.0.0.0/8".parse().unwrap()],
            nodes: Vec::new(),
            mtu: Some(9000),
        };
        let template = json!({"a": "{{podCIDRs}}", "b": ["x", "{{ clusterCIDRs }}", ["{{podCIDRs}}"]], "c": "{{mtu}}",
            "d": "mtu {{mtu}}", "{{mtu}}": null});
        let filled = json!({"a": ["10.1.0.0/24"], "b": ["x", "10.0.0.0/8", ["10.1.0.0/24"]], "c": 9000,
            "d": "mtu {{mtu}}", "{{mtu}}": null});
        assert_eq!(fill(&template, &values), Ok(filled));
    }

    #[test]
    fn what_is_missing_is_said() {
        let nothing = Values::default();
        let failure = |text: &str| fill(&json!([text]), &nothing).unwrap_err();
        assert_eq!(failure("{{clusterCIDRs}}"), FillError::NoCluster);
        assert_eq!(failure("{{mtu}}"), FillError::NoUplink);
        assert_eq!(failure("{{x}}"), FillError::Unknown("x".into()));
        let said = failure("{{x}}").to_string();
        assert!(said.starts_with("there is no value {{x}};"), "{said}");
    }
}
