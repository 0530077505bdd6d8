//! A network's configuration as it stands in a file: a list of plugins or a single one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cni_conf::json;
use cni_conf::names::{NetworkName, PluginName};
use cni_conf::request::{CONFIG_MAX, Request};
use cni_conf::version::SpecVersion;
use serde::Deserialize;
use serde_json::{Value, json};
use thiserror::Error;

use crate::registry::{self, BuiltIn};

/// The part of a list, or of a single plugin's configuration, that is read here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    #[serde(rename = "cniVersion")]
    version: String,
    name: String,
    plugins: Option<Vec<Value>>,
    #[serde(rename = "loadOnlyInlinedPlugins")]
    only_inlined: bool,
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
#[derive(Debug)]
pub(crate) struct Member {
    /// What it is called with.
    pub(crate) request: Request,
    /// The plugin, if it is one of this binary.
    pub(crate) built_in: Option<BuiltIn>,
}

/// A network.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) name: NetworkName,
    /// The version of the list.
    pub(crate) version: SpecVersion,
    /// Its plugins, in the order of the list.
    pub(crate) members: Vec<Member>,
    /// Whether the file is a list; else it is a single plugin.
    pub(crate) is_list: bool,
    only_inlined: bool,
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
        let is_list = wire.plugins.is_some();
        let plugins = wire.plugins.unwrap_or_else(|| vec![whole]);
        let members = plugins.into_iter().enumerate().map(|(index, conf)| {
            Member::new(conf, &name, version, bin_dir)
                .map_err(|problem| wrong(format!("plugin {}: {problem}", index + 1)))
        });
        let members = members.collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            version,
            members,
            is_list,
            only_inlined: wire.only_inlined,
        })
    }
}

/// The names of files that runtimes take for network configurations (libcni, `ConfFiles`).
const EXTENSIONS: [&str; 3] = ["conf", "conflist", "json"];

/// A file of the directory of network lists.
#[derive(Debug)]
pub(crate) struct ListFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// What is in it, as far as it is text.
    pub(crate) text: String,
    /// The network, or what is wrong.
    pub(crate) network: Result<Network, String>,
}

impl ListFile {
    /// Reads one file. For a list that does not say `loadOnlyInlinedPlugins` the files of the folder beside it that has
    /// the network's name belong to it too (libcni, `NetworkConfFromFile`).
    pub(crate) fn read(path: &Path, bin_dir: &Path) -> Self {
        let read = read_text(path);
        let network = read.and_then(|text| {
            let mut network = Network::parse(path, text.as_bytes(), bin_dir)
                .map_err(|error| error.problem)
                .map_err(|problem| (text.clone(), problem))?;
            network
                .add_directory(path, bin_dir)
                .map_err(|problem| (text.clone(), problem))?;
            Ok((text, network))
        });
        let (text, network) = match network {
            Ok((text, network)) => (text, Ok(network)),
            Err((text, problem)) => (text, Err(problem)),
        };
        Self {
            path: path.to_owned(),
            text,
            network,
        }
    }
}

pub(super) fn read_text(path: &Path) -> Result<String, (String, String)> {
    let nothing = |problem: String| (String::new(), problem);
    let found = fs::metadata(path).map_err(|error| nothing(error.to_string()))?;
    if !found.is_file() {
        return Err(nothing("it is no file".into()));
    }
    if found.len() > CONFIG_MAX as u64 {
        return Err(nothing(format!("it is larger than {CONFIG_MAX} bytes")));
    }
    let bytes = fs::read(path).map_err(|error| nothing(error.to_string()))?;
    String::from_utf8(bytes).map_err(|_| nothing("it is no text".into()))
}

/// The network lists of a directory, in the order in which runtimes take them.
///
/// # Errors
/// Where the directory can't be read.
pub(crate) fn read_dir(dir: &Path, bin_dir: &Path) -> Result<Vec<ListFile>, String> {
    let files =
        files_of(dir, &EXTENSIONS).map_err(|error| format!("read {}: {error}", dir.display()))?;
    let read = |path: &PathBuf| ListFile::read(path, bin_dir);
    Ok(files.iter().map(read).collect())
}

fn files_of(dir: &Path, extensions: &[&str]) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let extension = path.extension().and_then(|it| it.to_str());
        if extension.is_some_and(|it| extensions.contains(&it)) && !path.is_dir() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

impl Network {
    fn add_directory(&mut self, path: &Path, bin_dir: &Path) -> Result<(), String> {
        if !self.is_list || self.only_inlined {
            return Ok(());
        }
        let folder = path.with_file_name(self.name.as_str());
        for file in files_of(&folder, &["conf"]).unwrap_or_default() {
            let wrong = |problem: String| format!("{}: {problem}", file.display());
            let text = read_text(&file).map_err(|(_, problem)| wrong(problem))?;
            let conf = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            let member = Member::new(conf, &self.name, self.version, bin_dir).map_err(wrong)?;
            self.members.push(member);
        }
        Ok(())
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
            built_in: registry::find(registry::ALL, &kind),
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
        assert!(network.members[0].built_in.is_some() && network.members[1].built_in.is_none());
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
