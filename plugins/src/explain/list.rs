//! A network's configuration as it stands in a file: a list of plugins or a single one.

use std::path::{Path, PathBuf};

use cni_conf::json;
use cni_conf::names::{NetworkName, PluginName};
use cni_conf::request::Request;
use cni_conf::version::SpecVersion;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::applets::{self, Applet};

/// The part of a list, or of a single plugin's configuration, that is read here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(rename = "cniVersion")]
    version: String,
    name: String,
    plugins: Option<Vec<Value>>,
}

/// A file that is no network's configuration.
#[derive(Debug, Error)]
#[error("{}: {problem}", path.display())]
pub(crate) struct ListError {
    /// The file.
    pub(crate) path: PathBuf,
    /// What is wrong with it.
    pub(crate) problem: String,
}

/// One plugin of a network.
pub(crate) struct Member {
    /// What it is called with.
    pub(crate) request: Request,
    /// The plugin, if it is one of this binary.
    pub(crate) applet: Option<Applet>,
}

/// A network.
pub(crate) struct Network {
    pub(crate) name: NetworkName,
    /// Its plugins, in the order of the list.
    pub(crate) members: Vec<Member>,
}

impl Network {
    /// Reads the configuration `text` of the file `path`. Plugins they delegate to are looked for in `bin_dir`.
    ///
    /// # Errors
    /// [`ListError`], which names the file.
    pub(crate) fn parse(path: &Path, text: &[u8], bin_dir: &Path) -> Result<Self, ListError> {
        let wrong = |problem: String| ListError {
            path: path.to_owned(),
            problem,
        };
        let whole: Value =
            serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
        let wire: Wire = json::from_value(&whole).map_err(|error| wrong(error.to_string()))?;
        let name = NetworkName::try_from(wire.name.as_str())
            .map_err(|error| wrong(format!("field \"name\": {error}")))?;
        let version = match wire.version.as_str() {
            "" => SpecVersion::V0_1_0,
            text => text
                .parse()
                .map_err(|()| wrong(format!("CNI version {text:?} is unknown")))?,
        };
        let plugins = wire.plugins.unwrap_or_else(|| vec![whole]);
        let members = plugins.into_iter().enumerate().map(|(index, conf)| {
            Member::new(conf, &name, version, bin_dir)
                .map_err(|problem| wrong(format!("plugin {}: {problem}", index + 1)))
        });
        let members = members.collect::<Result<_, _>>()?;
        Ok(Self { name, members })
    }
}

impl Member {
    fn new(
        mut conf: Value,
        network: &NetworkName,
        version: SpecVersion,
        bin_dir: &Path,
    ) -> Result<Self, String> {
        let kind = conf["type"]
            .as_str()
            .ok_or("it has no \"type\"")?
            .to_owned();
        let plugin = PluginName::try_from(kind.as_str())
            .map_err(|error| format!("field \"type\": {error}"))?;
        // As libcni does before it calls a plugin.
        conf["name"] = json!(network.as_str());
        conf["cniVersion"] = json!(version);
        Ok(Self {
            applet: applets::find(applets::ALL, &kind),
            request: Request {
                version,
                network: network.clone(),
                plugin,
                conf,
                cni_path: vec![PathBuf::from(bin_dir)],
                prev_result: None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Network, String> {
        Network::parse(Path::new("f"), text.as_bytes(), Path::new("/bin"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_list_and_a_single_plugin_are_read() {
        let list = r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "bridge"}, {"type": "other"}]}"#;
        let network = parse(list).unwrap();
        assert_eq!(network.members.len(), 2);
        assert_eq!(network.members[0].request.conf["name"], "n");
        assert!(network.members[0].applet.is_some() && network.members[1].applet.is_none());
        let single = parse(r#"{"name": "n", "type": "bridge"}"#).unwrap();
        assert_eq!(single.members[0].request.version, SpecVersion::V0_1_0);
    }

    #[test]
    fn what_is_wrong_is_said_with_the_file() {
        for (text, says) in [
            ("x", "f: "),
            ("{}", "name"),
            (r#"{"name": "../x", "plugins": []}"#, "../x"),
            (r#"{"name": "n", "plugins": [{}]}"#, "plugin 1"),
            (r#"{"name": "n", "plugins": [{"type": "../sh"}]}"#, "../sh"),
            (r#"{"name": "n", "plugins": [5]}"#, "plugin 1"),
            (
                r#"{"name": "n", "cniVersion": "9", "plugins": []}"#,
                "\"9\"",
            ),
        ] {
            let error = parse(text).map(|_| ()).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }
}
