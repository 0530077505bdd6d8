//! The list that a network's plugins stand in. A plugin is told its own configuration only; the list it stands in is
//! looked up where runtimes keep it, for the sake of better advice. Nothing depends on finding it.

use std::fs;
use std::path::Path;

use cni_conf::json;
use cni_conf::names::NetworkName;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use crate::host::regular;

/// Where runtimes keep network configurations unless told otherwise.
const CONF_DIR: &str = "/etc/cni/net.d";

#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    name: String,
    plugins: Vec<Value>,
}

/// A network's list, as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub struct List {
    /// The plugins' configurations, in their order.
    plugins: Vec<Value>,
}

impl List {
    /// The list of this network, if it is where lists usually are.
    pub fn find(network: &NetworkName) -> Option<Self> {
        Self::find_in(Path::new(CONF_DIR), network)
    }

    fn find_in(dir: &Path, network: &NetworkName) -> Option<Self> {
        let mut files: Vec<_> = fs::read_dir(dir).ok()?.flatten().collect();
        // The first one is the one that runtimes take.
        files.sort_by_key(std::fs::DirEntry::file_name);
        files.iter().find_map(|file| {
            let value: Value = serde_json::from_slice(&regular::read(&file.path()).ok()?).ok()?;
            let list: Wire = json::from_value(&value).ok()?;
            let plugins = list.plugins;
            (list.name == network.as_str() && !plugins.is_empty()).then_some(Self { plugins })
        })
    }

    /// The configuration of the first plugin of this type in it.
    pub fn plugin(&self, name: &str) -> Option<&Value> {
        self.plugins.iter().find(|plugin| plugin["type"] == name)
    }

    /// The prefixes of `nonMasqueradeCIDRs` that are more than the plugin's own subnets: where other nodes' containers are.
    pub fn elsewhere(&self) -> Vec<IpNet> {
        let masked = self.plugins.iter().filter_map(|plugin| {
            let prefixes = prefixes(key(plugin, "nonMasqueradeCIDRs")?);
            let own = key(plugin, "ipam").map(subnets).unwrap_or_default();
            let elsewhere = move |prefix: &IpNet| !own.iter().any(|own| own.contains(prefix));
            Some(prefixes.into_iter().filter(elsewhere))
        });
        masked.flatten().collect()
    }
}

/// The value of a key of a configuration, whatever its case.
pub fn key<'a>(conf: &'a Value, name: &str) -> Option<&'a Value> {
    let mut entries = conf.as_object()?.iter();
    let (_, value) = entries.find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value)
}

fn prefixes(value: &Value) -> Vec<IpNet> {
    let texts = value.as_array().into_iter().flatten();
    texts
        .filter_map(|text| text.as_str()?.parse().ok())
        .collect()
}

/// The subnets of an IPAM configuration, wherever it has them.
fn subnets(ipam: &Value) -> Vec<IpNet> {
    match ipam {
        Value::Array(values) => values.iter().flat_map(subnets).collect(),
        Value::Object(entries) => {
            let own = entries
                .iter()
                .flat_map(|(key, value)| match value.as_str() {
                    Some(text) if key == "subnet" => text.parse().into_iter().collect(),
                    _ => subnets(value),
                });
            own.collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> NetworkName {
        "net".try_into().unwrap()
    }

    #[test]
    fn the_list_of_the_network_is_found_among_others() {
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(dir.path().join(file), text).unwrap();
        write(
            "1.conflist",
            r#"{"name": "other", "plugins": [{"type": "firewall"}]}"#,
        );
        write(
            "2.conflist",
            r#"{"name": "net", "plugins": [{"type": "bridge"}, {"type": "portmap"}]}"#,
        );
        write("3.conf", "garbage");
        let list = List::find_in(dir.path(), &network()).unwrap();
        assert!(list.plugin("portmap").is_some() && list.plugin("firewall").is_none());
        assert_eq!(List::find_in(&dir.path().join("missing"), &network()), None);
    }

    #[test]
    fn where_other_nodes_containers_are_is_more_than_the_networks_own_subnets() {
        let list = |prefixes: Value| List {
            plugins: vec![serde_json::json!({
                "type": "bridge", "nonMasqueradeCIDRs": prefixes,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.1.1.0/24"}], [{"subnet": "fd00::/64"}]]}
            })],
        };
        let elsewhere = |prefixes| {
            let found = list(prefixes).elsewhere();
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            elsewhere(serde_json::json!(["10.1.0.0/16", "fd00::/64"])),
            ["10.1.0.0/16"]
        );
        assert_eq!(
            elsewhere(serde_json::json!(["10.1.1.0/25"])),
            Vec::<String>::new()
        );
        assert_eq!(elsewhere(Value::Null), Vec::<String>::new());
    }
}
