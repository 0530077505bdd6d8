//! The checks of a network list alone, without a host.
//!
//! Which keys a plugin knows is not written down here: it is what its own code reads, watched while it does.

use std::path::{Path, PathBuf};

use cni_conf::json::{self, Seen};
use cni_conf::names::{NetworkName, PluginName};
use cni_conf::request::{Attachment, CniArgs, Request};
use cni_conf::version::SpecVersion;
use serde_json::{Value, json};

use super::locate::{Locations, Place};
use super::report::Severity;
use crate::attach::record::Records;
use crate::log;
use crate::registry;

/// Keys of a list that libcni reads.
const LIST_KEYS: [&str; 7] = [
    "cniVersion",
    "cniVersions",
    "name",
    "disableCheck",
    "disableGC",
    "loadOnlyInlinedPlugins",
    "plugins",
];

/// Keys of a plugin's configuration that libcni and the specification know, whatever the plugin does.
const PLUGIN_KEYS: [&str; 10] = [
    "cniVersion",
    "name",
    "type",
    "capabilities",
    "prevResult",
    "runtimeConfig",
    "args",
    "ipam",
    "dns",
    "ipMasq",
];

/// Objects whose keys are anybody's.
const FREE: [&str; 4] = ["capabilities", "prevResult", "runtimeConfig", "args"];

/// Plugins that change what another one has made, and what they can't do without.
const CHAINED: [&str; 3] = ["portmap", "firewall", "bandwidth"];

/// Something wrong in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) id: &'static str,
    pub(crate) severity: Severity,
    pub(crate) place: Place,
    /// What is wrong, in one sentence.
    pub(crate) problem: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

/// The flaws of a list, in the order of the text.
pub(crate) fn flaws(text: &str) -> Vec<Flaw> {
    let mut linter = Linter {
        locations: Locations::of(text),
        flaws: Vec::new(),
    };
    match serde_json::from_str::<Value>(text) {
        Ok(whole) if whole.is_object() => linter.list(&whole),
        Ok(_) => linter.invalid("", "the configuration is no JSON object", ""),
        Err(error) => linter.flaws.push(Flaw {
            id: "list-invalid",
            severity: Severity::Fail,
            place: (error.line().max(1), error.column().max(1)),
            problem: format!("this is no JSON: {}", without_place(&error.to_string())),
            remedy:
                "correct it; runtimes pass over a file that is no JSON, or refuse to start pods"
                    .into(),
        }),
    }
    linter.flaws.sort_by_key(|flaw| flaw.place);
    linter.flaws
}

/// serde_json tells the place at the end of its messages.
fn without_place(message: &str) -> &str {
    message.split(" at line ").next().unwrap_or(message)
}

struct Linter {
    locations: Locations,
    flaws: Vec<Flaw>,
}

impl Linter {
    fn add(
        &mut self,
        id: &'static str,
        severity: Severity,
        path: &str,
        problem: String,
        remedy: String,
    ) {
        self.flaws.push(Flaw {
            id,
            severity,
            place: self.locations.find(path),
            problem,
            remedy,
        });
    }

    fn invalid(&mut self, path: &str, problem: &str, remedy: &str) {
        let remedy = match remedy {
            "" => "correct the list; see docs/differences.md and the CNI specification",
            remedy => remedy,
        };
        self.add(
            "list-invalid",
            Severity::Fail,
            path,
            problem.to_owned(),
            remedy.to_owned(),
        );
    }

    fn list(&mut self, whole: &Value) {
        let version = self.version(whole);
        let name = whole["name"].as_str().unwrap_or_default();
        let name = match NetworkName::try_from(name) {
            Ok(name) => name,
            Err(error) => {
                self.invalid("name", &format!("field \"name\": {error}"), "");
                return;
            }
        };
        let Some(plugins) = whole.get("plugins") else {
            self.member("", whole, &name, version, true);
            return;
        };
        self.list_keys(whole);
        let Some(plugins) = plugins.as_array() else {
            self.invalid(
                "plugins",
                "field \"plugins\": this is no array of plugins",
                "",
            );
            return;
        };
        if plugins.is_empty() && whole["loadOnlyInlinedPlugins"] == true {
            self.invalid("plugins", "the list has no plugin", "");
        }
        for (index, plugin) in plugins.iter().enumerate() {
            self.member(
                &format!("plugins[{index}]"),
                plugin,
                &name,
                version,
                index == 0,
            );
        }
    }

    fn version(&mut self, whole: &Value) -> SpecVersion {
        let text = whole["cniVersion"].as_str().unwrap_or_default();
        if text.is_empty() {
            return SpecVersion::V0_1_0;
        }
        text.parse().unwrap_or_else(|()| {
            let problem = format!("CNI version {text:?} is none that trestle speaks");
            let remedy = format!("set \"cniVersion\" to one of {}", SpecVersion::list());
            self.add(
                "version-unsupported",
                Severity::Fail,
                "cniVersion",
                problem,
                remedy,
            );
            SpecVersion::LATEST
        })
    }

    fn member(
        &mut self,
        path: &str,
        conf: &Value,
        name: &NetworkName,
        version: SpecVersion,
        first: bool,
    ) {
        let at = |key: &str| join(path, key);
        let kind = conf["type"].as_str().unwrap_or_default();
        let plugin = match PluginName::try_from(kind) {
            Ok(plugin) => plugin,
            Err(error) => {
                self.invalid(&at("type"), &format!("field \"type\": {error}"), "");
                return;
            }
        };
        if first && CHAINED.contains(&kind) {
            let problem =
                format!("{kind} stands first, but changes what a plugin before it has made");
            self.invalid(
                &at("type"),
                &problem,
                "put it behind the plugin that makes the interface, such as bridge or ptp",
            );
        }
        let mut conf = conf.clone();
        // As libcni does before it calls a plugin.
        conf["name"] = json!(name.as_str());
        conf["cniVersion"] = json!(version);
        self.capability(path, &conf, kind);
        let request = Request {
            version,
            network: name.clone(),
            plugin,
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        };
        self.read(path, kind, &request);
    }

    /// Has the plugin read its configuration, and its IPAM plugin the same.
    fn read(&mut self, path: &str, kind: &str, request: &Request) {
        let ipam = request.conf["ipam"]["type"]
            .as_str()
            .filter(|ipam| *ipam != kind);
        let readers = [Some(kind), ipam].into_iter().flatten();
        let Some(attachment) = some_attachment() else {
            return;
        };
        let (outcomes, seen) = json::watch(|| {
            // Every plugin writes a log where it is told to.
            let _ = log::file_of(&request.conf);
            let read = |name| {
                if matches!(name, "portmap" | "firewall") {
                    // What it writes down and where is read apart.
                    let _ = Records::of(request, "lint");
                }
                (name, registry::parse_conf(name, request, &attachment))
            };
            readers.map(read).collect::<Vec<_>>()
        });
        for (name, outcome) in &outcomes {
            let Some(Err(error)) = outcome else { continue };
            if *name == "host-local" && gets_ranges(&request.conf) {
                continue;
            }
            let problem = format!("{kind}: {}", error.msg);
            let field = self.field_of(path, &error.msg);
            if !self.flaws.iter().any(|flaw| flaw.problem == problem) {
                self.invalid(&join(path, &field), &problem, &error.details);
            }
        }
        // Nothing is known of the keys of other people's plugins.
        if outcomes.iter().all(|(_, outcome)| outcome.is_some()) {
            self.keys(&request.conf, path, &seen);
        }
    }

    /// The path that an error of a plugin names first, as far as there is something.
    fn field_of(&self, path: &str, message: &str) -> String {
        let trimmed = |word: &str| {
            let ends = |c: char| matches!(c, '"' | ':' | ',' | ';' | '(' | ')');
            word.trim_matches(ends).to_owned()
        };
        let mut words = message.split(' ').map(trimmed);
        let there = |word: &String| self.locations.has(&join(path, word));
        words
            .find(|word| !word.is_empty() && there(word))
            .unwrap_or_default()
    }

    /// Reports the keys that nobody has asked for.
    fn keys(&mut self, value: &Value, path: &str, seen: &Seen) {
        match value {
            Value::Object(map) => {
                let Some(mut known) = seen.keys_of(value) else {
                    return;
                };
                let is_plugin = map.contains_key("type") && map.contains_key("cniVersion");
                known.push("type");
                if is_plugin {
                    known.extend(PLUGIN_KEYS);
                }
                self.unknown(value, path, &known);
                for (key, inner) in map {
                    if !FREE.iter().any(|free| free.eq_ignore_ascii_case(key)) {
                        self.keys(inner, &join(path, key), seen);
                    }
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.keys(item, &format!("{path}[{index}]"), seen);
                }
            }
            _ => {}
        }
    }

    /// Tools keep things of their own in lists, so only what looks like a mistake is reported there.
    fn list_keys(&mut self, whole: &Value) {
        let mut whole = whole.clone();
        if let Some(map) = whole.as_object_mut() {
            map.retain(|key, _| nearest(key, &LIST_KEYS).is_some());
        }
        self.unknown(&whole, "", &LIST_KEYS);
    }

    fn unknown(&mut self, object: &Value, path: &str, known: &[&str]) {
        for key in object.as_object().into_iter().flat_map(|map| map.keys()) {
            if known.iter().any(|it| it.eq_ignore_ascii_case(key)) || is_comment(key) {
                continue;
            }
            let problem = format!("key {key:?} is not known here, so it has no effect");
            let remedy = match nearest(key, known) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "remove it, or see the plugin's documentation".to_owned(),
            };
            self.add(
                "key-unknown",
                Severity::Warn,
                &join(path, key),
                problem,
                remedy,
            );
        }
    }

    fn capability(&mut self, path: &str, conf: &Value, kind: &str) {
        let (name, loss) = match kind {
            "portmap" => ("portMappings", "no host port is ever mapped"),
            "bandwidth" if !has_own_rates(conf) => ("bandwidth", "no traffic is ever shaped"),
            _ => return,
        };
        if conf["capabilities"][name] == true {
            return;
        }
        let problem = format!(
            "{kind} has no capability {name:?}: runtimes don't tell it what is wanted, and {loss}"
        );
        let remedy = format!("add \"capabilities\": {{\"{name}\": true}} to it");
        self.add(
            "capability-missing",
            Severity::Warn,
            &join(path, "type"),
            problem,
            remedy,
        );
    }
}

fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", key) => key.to_owned(),
        (path, "") => path.to_owned(),
        (path, key) => format!("{path}.{key}"),
    }
}

fn has_own_rates(conf: &Value) -> bool {
    ["ingressRate", "egressRate"]
        .iter()
        .any(|key| conf.get(key).is_some())
}

/// Whether host-local's ranges come from the runtime, which nobody knows here.
fn gets_ranges(conf: &Value) -> bool {
    conf["capabilities"]["ipRanges"] == true
}

fn some_attachment() -> Option<Attachment> {
    Some(Attachment {
        container: "container".try_into().ok()?,
        ifname: "eth0".try_into().ok()?,
        netns: Some(PathBuf::from("/")),
        args: CniArgs::default(),
        netns_override: false,
    })
}

/// JSON has no comments, so people write keys that nobody reads.
fn is_comment(key: &str) -> bool {
    key.starts_with(['_', '#', '/', '$']) || key.to_ascii_lowercase().contains("comment")
}

/// The known key that somebody may have meant.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let key = key.to_ascii_lowercase();
    let measured = known
        .iter()
        .map(|it| (distance(&key, &it.to_ascii_lowercase()), *it));
    let (distance, near) = measured.min()?;
    // A third of the key may be wrong.
    (distance <= 1 + key.len() / 4).then_some(near)
}

/// How many letters must be added, taken away or changed to make one text of another (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, letter) in one.chars().take(64).enumerate() {
        let mut corner = row[0];
        row[0] = line + 1;
        for (column, against) in other.iter().enumerate() {
            let changed = corner + usize::from(letter != *against);
            corner = row[column + 1];
            row[column + 1] = changed.min(corner + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

/// A list's file with its flaws.
pub(crate) struct Linted {
    pub(crate) path: PathBuf,
    /// The flaws, or why it could not be read.
    pub(crate) flaws: Result<Vec<Flaw>, String>,
}

/// Reads and checks a file.
pub(crate) fn file(path: &Path) -> Linted {
    let read = super::list::read_text(path).map_err(|(_, problem)| problem);
    Linted {
        path: path.to_owned(),
        flaws: read.map(|text| flaws(&text)),
    }
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
