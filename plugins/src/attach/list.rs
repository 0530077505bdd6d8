//! Which other plugins a network's list names. A plugin is told its own configuration only; the list it stands in is
//! looked up where runtimes keep it, for the sake of better advice. Nothing depends on finding it.

use std::fs;
use std::path::Path;

use cni_conf::json;
use cni_conf::names::NetworkName;
use serde::Deserialize;
use serde_json::Value;

/// Where runtimes keep network configurations unless told otherwise.
const CONF_DIR: &str = "/etc/cni/net.d";

#[derive(Default, Deserialize)]
#[serde(default)]
struct List {
    name: String,
    plugins: Vec<Member>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Member {
    #[serde(rename = "type")]
    plugin: String,
}

/// True if the list of this network is known and has this plugin in it.
pub fn names_plugin(network: &NetworkName, plugin: &str) -> bool {
    in_dir(Path::new(CONF_DIR), network, plugin)
}

fn in_dir(dir: &Path, network: &NetworkName, plugin: &str) -> bool {
    let lists = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let bytes = fs::read(entry.path()).ok()?;
            let value: Value = serde_json::from_slice(&bytes).ok()?;
            json::from_value::<List>(&value).ok()
        });
    lists
        .filter(|list| list.name == network.as_str())
        .any(|list| list.plugins.iter().any(|member| member.plugin == plugin))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let net = NetworkName::try_from("net").unwrap();
        assert!(in_dir(dir.path(), &net, "portmap"));
        assert!(!in_dir(dir.path(), &net, "firewall"));
        assert!(!in_dir(&dir.path().join("missing"), &net, "portmap"));
    }
}
