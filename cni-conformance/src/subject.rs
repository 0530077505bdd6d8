//! The plugin that is checked, and what it is called with.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::call::Call;
use crate::checks;
use crate::known::known;
use crate::report::{PluginReport, Report};

/// Programs that lie beside plugins and are none.
const NO_PLUGINS: [&str; 3] = ["trestle", "cnitool", "trestle-conformance"];

/// The host's end and the container's end of the interface that a chained plugin finds.
pub(crate) const HOST_END: &str = "veth0";
pub(crate) const MACS: [&str; 2] = ["02:00:00:00:00:01", "02:00:00:00:00:02"];

/// A plugin to put the checks to.
#[derive(Debug, Clone)]
pub struct Subject {
    program: PathBuf,
    conf: Option<Value>,
    chained: bool,
    prepare: String,
}

impl Subject {
    /// The plugin whose executable this is. A name of the Go plugin's brings a configuration along.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        let mut subject = Self {
            program: program.into(),
            conf: None,
            chained: false,
            prepare: String::new(),
        };
        if let Some(known) = known(&subject.name()) {
            subject.conf = Some(known.conf);
            subject.chained = known.chained;
            subject.prepare = known.prepare;
        }
        subject
    }

    /// The keys of a configuration that ADD succeeds with, besides `cniVersion`, `name`, `type` and `prevResult`. Without it only
    /// what needs no working configuration is checked.
    pub fn conf(mut self, conf: Value) -> Self {
        self.conf = Some(conf);
        self
    }

    /// The plugin stands behind another one: it is given a `prevResult`, and the container has an interface `eth0` with
    /// the address 10.1.0.2/24 that it tells of.
    pub fn chained(mut self) -> Self {
        self.chained = true;
        self
    }

    /// Shell commands that each throw-away host gets before the plugin is called, such as `ip link add up0 type dummy`. The container's
    /// namespace is `pod` to `ip`.
    pub fn prepare(mut self, script: impl Into<String>) -> Self {
        self.prepare = script.into();
        self
    }

    /// Put all checks to it.
    pub fn check(&self) -> Report {
        Report {
            plugins: vec![self.check_one()],
        }
    }

    pub(crate) fn check_one(&self) -> PluginReport {
        let versions = self.versions();
        PluginReport {
            name: self.name(),
            program: self.program.clone(),
            findings: checks::run_all(self, &versions),
            versions,
        }
    }

    /// The plugin's name, which is its file's.
    pub fn name(&self) -> String {
        let name = self.program.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// The directory that it lies in.
    pub(crate) fn directory(&self) -> PathBuf {
        match self.program.parent() {
            Some(directory) if directory != Path::new("") => directory.to_owned(),
            _ => PathBuf::from("."),
        }
    }

    pub(crate) fn is_chained(&self) -> bool {
        self.chained
    }

    pub(crate) fn has_conf(&self) -> bool {
        self.conf.is_some()
    }

    /// What VERSION says, as far as it can be read.
    fn versions(&self) -> Vec<String> {
        let call = Call {
            verb: Some("VERSION".to_owned()),
            ..Call::default()
        };
        let input = br#"{"cniVersion": "1.0.0"}"#;
        let program = self.directory().join(self.name());
        let answer = call.run(&program, &self.directory(), input);
        let answer = answer.and_then(|answer| answer.result());
        let list = answer
            .ok()
            .and_then(|mut object| object.remove("supportedVersions"));
        list.iter()
            .filter_map(Value::as_array)
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    }

    /// The configuration that a runtime hands over, in this version of the specification.
    pub(crate) fn network(&self, version: &str) -> Value {
        let mut network = self.conf.clone().unwrap_or_else(|| json!({}));
        network["cniVersion"] = version.into();
        network["name"] = "net".into();
        network["type"] = self.name().into();
        if self.chained {
            network["prevResult"] = previous(version);
        }
        network
    }

    /// The commands that make what the plugin finds on the host.
    pub(crate) fn preparation(&self) -> String {
        let interface = format!(
            "ip link add {HOST_END} address {host} type veth peer name eth0 address {inside} netns pod
             ip addr add 10.1.0.1/24 dev {HOST_END}
             ip link set {HOST_END} up
             ip -n pod link set lo up
             ip -n pod addr add 10.1.0.2/24 dev eth0
             ip -n pod link set eth0 up
             ip -n pod route add default via 10.1.0.1\n",
            host = MACS[0],
            inside = MACS[1]
        );
        let interface = if self.chained {
            interface
        } else {
            String::new()
        };
        interface + &self.prepare
    }
}

/// The result of the plugin before a chained one.
fn previous(version: &str) -> Value {
    let route = json!([{"dst": "0.0.0.0/0", "gw": "10.1.0.1"}]);
    if version < "0.3.0" {
        return json!({
            "cniVersion": version,
            "ip4": {"ip": "10.1.0.2/24", "gateway": "10.1.0.1", "routes": route},
        });
    }
    let mut address = json!({"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1});
    if version < "1.0.0" {
        address["version"] = "4".into();
    }
    json!({
        "cniVersion": version,
        "interfaces": [
            {"name": HOST_END, "mac": MACS[0]},
            {"name": "eth0", "mac": MACS[1], "sandbox": crate::stage::NETNS}
        ],
        "ips": [address],
        "routes": route,
    })
}

/// The plugins of a directory: its executables, save for programs that are known to be none (`trestle`, `cnitool`).
///
/// # Errors
/// When the directory can't be read or has no plugin in it.
pub fn plugins_of(directory: &Path) -> io::Result<Vec<Subject>> {
    let mut programs = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        // Symbolic links are followed: many a directory is full of them.
        let metadata = fs::metadata(&path)?;
        let none = path
            .file_name()
            .is_some_and(|name| NO_PLUGINS.iter().any(|none| name == *none));
        if metadata.is_file() && metadata.permissions().mode() & 0o111 != 0 && !none {
            programs.push(path);
        }
    }
    programs.sort();
    if programs.is_empty() {
        let said = format!("no executable in {}", directory.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, said));
    }
    Ok(programs.into_iter().map(Subject::new).collect())
}
