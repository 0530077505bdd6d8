//! A call of a plugin: the environment and the network configuration, validated.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::error::{Code, Error};
use crate::json;
use crate::names::{ContainerId, IfName, NetworkName, PluginName};
use crate::result::CniResult;
use crate::version::SpecVersion;

/// Largest network configuration that is read, in bytes.
pub const CONFIG_MAX: usize = 1 << 20;

/// The environment of a call (CNI 1.1.0, section 2 "Parameters"), as it was found.
#[derive(Debug, Clone, Default)]
pub struct Environment(BTreeMap<OsString, OsString>);

impl Environment {
    /// The variables of this process that begin with `CNI_`.
    pub fn from_os() -> Self {
        std::env::vars_os().collect()
    }

    /// The value of a variable; one that is empty counts as absent, as in Go.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
            .filter(|value| !value.is_empty())
    }

    fn text(&self, name: &'static str) -> Result<Option<&str>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(text)),
                None => Err(environment_error(format!("{name} {value:?} is not UTF-8"))),
            },
        }
    }

    fn name<T>(&self, name: &'static str) -> Result<Option<T>, Error>
    where
        T: for<'a> TryFrom<&'a str>,
        for<'a> <T as TryFrom<&'a str>>::Error: ToString,
    {
        match self.text(name)? {
            None => Ok(None),
            Some(text) => match T::try_from(text) {
                Ok(value) => Ok(Some(value)),
                Err(error) => Err(environment_error(format!("{name}: {}", error.to_string()))),
            },
        }
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(variables: I) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        Self(
            variables
                .filter(|(name, _)| name.as_bytes().starts_with(b"CNI_"))
                .collect(),
        )
    }
}

fn environment_error(msg: String) -> Error {
    Error::new(Code::InvalidEnvironment, msg)
}

/// The verb of a call, with what belongs to it alone.
#[derive(Debug, Clone)]
pub enum Call {
    /// Attach a container, or change what an earlier plugin of the list attached.
    Add(Attachment),
    /// Undo ADD, whatever is left of it.
    Del(Attachment),
    /// See whether everything is as ADD left it.
    Check(Attachment),
    /// Remove everything that belongs to attachments outside this list. Without a list nothing is known, and nothing
    /// is removed; an empty one means that no attachment is valid.
    Gc(Option<Vec<AttachmentId>>),
    /// Say whether ADD would be served.
    Status,
}

/// What every verb but VERSION is called with.
#[derive(Debug, Clone)]
pub struct Request {
    /// Version of the configuration; the result is written in it.
    pub version: SpecVersion,
    /// Name of the network.
    pub network: NetworkName,
    /// `type` of the configuration.
    pub plugin: PluginName,
    /// The whole network configuration.
    pub conf: Value,
    /// Directories that hold plugins, from CNI_PATH, without its empty entries.
    pub cni_path: Vec<PathBuf>,
    /// What the plugins before this one made. Always there for CHECK, never for GC and STATUS.
    pub prev_result: Option<CniResult>,
}

/// One interface of one container, which ADD, DEL and CHECK are about.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// ID of the container.
    pub container: ContainerId,
    /// Name of the interface in the container.
    pub ifname: IfName,
    /// Path of the container's network namespace. Always there for ADD and CHECK.
    pub netns: Option<PathBuf>,
    /// Extra arguments, from CNI_ARGS.
    pub args: CniArgs,
    /// True if the plugin may work on its own namespace (`CNI_NETNS_OVERRIDE`).
    pub netns_override: bool,
}

impl Attachment {
    /// The part that names it.
    pub fn id(&self) -> AttachmentId {
        AttachmentId {
            container: self.container.clone(),
            ifname: self.ifname.clone(),
        }
    }

    /// The namespace's path, or the error that CNI_NETNS is missing.
    pub fn netns(&self) -> Result<&Path, Error> {
        self.netns
            .as_deref()
            .ok_or_else(|| missing_variables(&["CNI_NETNS"]))
    }
}

/// What names an attachment within its network.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct AttachmentId {
    /// ID of the container.
    #[serde(rename = "containerID")]
    pub container: ContainerId,
    /// Name of the interface in the container.
    pub ifname: IfName,
}

/// The pairs of CNI_ARGS: `KEY=value` with `;` between them.
///
/// Keys that a plugin does not know are ignored with or without `IgnoreUnknown`: one variable serves every
/// plugin of a list, and each knows only its own keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CniArgs(BTreeMap<String, String>);

impl CniArgs {
    /// Splits the text of CNI_ARGS. A pair without `=` is an error.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut pairs = BTreeMap::new();
        for pair in text.split(';').filter(|pair| !pair.is_empty()) {
            let Some((key, value)) = pair.split_once('=') else {
                return Err(
                    environment_error(format!("CNI_ARGS: {pair:?} is not KEY=value"))
                        .with_details("write pairs like \"IP=10.1.0.7;MAC=0a:58:0a:01:00:07\""),
                );
            };
            pairs.insert(key.to_owned(), value.to_owned());
        }
        Ok(Self(pairs))
    }

    /// The value of a key, in exactly this spelling; an empty one counts as absent.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }
}

/// The keys of a network configuration that the protocol itself reads.
#[derive(Deserialize)]
struct Header {
    name: Option<String>,
    #[serde(rename = "type")]
    plugin: Option<String>,
    #[serde(rename = "prevResult")]
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<AttachmentId>>,
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<AttachmentId>>,
}

/// Reads and validates a call: the value of CNI_COMMAND (any but VERSION), the other variables, and the configuration
/// from stdin. Nothing but the arguments is looked at.
pub fn read(verb: &str, env: &Environment, stdin: &[u8]) -> Result<(Request, Call), Error> {
    let (conf, version) = parse_config(stdin)?;
    parse(verb, env, conf, version?)
}

/// Reads one JSON object, and its `cniVersion`; a missing or empty one is 0.1.0.
pub(crate) fn parse_config(stdin: &[u8]) -> Result<(Value, Result<SpecVersion, Error>), Error> {
    let decoding = |msg: String| {
        Error::new(Code::Decoding, msg)
            .with_details("the network configuration is expected on stdin as one JSON object")
    };
    if stdin.len() > CONFIG_MAX {
        return Err(decoding(format!(
            "the network configuration is larger than {CONFIG_MAX} bytes"
        )));
    }
    let conf: Value = serde_json::from_slice(stdin)
        .map_err(|error| decoding(format!("decode the network configuration: {error}")))?;
    if !conf.is_object() {
        return Err(decoding(
            "decode the network configuration: not a JSON object".into(),
        ));
    }
    #[derive(Deserialize)]
    struct Versioned {
        #[serde(rename = "cniVersion", default)]
        version: String,
    }
    let Versioned { version } = json::from_value(&conf)?;
    let version = match version.as_str() {
        "" => Ok(SpecVersion::V0_1_0),
        text => text.parse().map_err(|()| {
            Error::new(
                Code::IncompatibleVersion,
                format!("incompatible CNI version: the configuration says {text:?}"),
            )
            .with_details(format!(
                "set \"cniVersion\" to one of {}",
                SpecVersion::list()
            ))
        }),
    };
    Ok((conf, version))
}

/// Validates a call. `verb` is the value of CNI_COMMAND, any but VERSION.
pub(crate) fn parse(
    verb: &str,
    env: &Environment,
    conf: Value,
    version: SpecVersion,
) -> Result<(Request, Call), Error> {
    let needs_version = |needed: SpecVersion| {
        if version >= needed {
            return Ok(());
        }
        Err(Error::new(
            Code::IncompatibleVersion,
            format!("{verb} needs cniVersion {needed} or newer, the configuration says {version}"),
        ))
    };
    let header: Header = json::from_value(&conf)?;
    let call = match verb {
        "ADD" => Call::Add(attachment(env, true)?),
        "DEL" => Call::Del(attachment(env, false)?),
        "CHECK" => {
            needs_version(SpecVersion::V0_4_0)?;
            Call::Check(attachment(env, true)?)
        }
        "GC" => {
            needs_version(SpecVersion::V1_1_0)?;
            require(env, &["CNI_PATH"])?;
            Call::Gc(header.valid_attachments.or(header.attachments))
        }
        "STATUS" => {
            needs_version(SpecVersion::V1_1_0)?;
            require(env, &["CNI_PATH"])?;
            Call::Status
        }
        other => {
            return Err(
                environment_error(format!("CNI_COMMAND {other:?} is unknown"))
                    .with_details("the verbs are ADD, DEL, CHECK, GC, STATUS and VERSION"),
            );
        }
    };
    let request = Request {
        version,
        network: network_name(header.name)?,
        plugin: plugin_name(header.plugin)?,
        cni_path: env.get("CNI_PATH").map(plugin_dirs).unwrap_or_default(),
        prev_result: prev_result(&call, header.prev_result.as_ref(), version)?,
        conf,
    };
    Ok((request, call))
}

/// The directories of CNI_PATH. An empty entry is none: to a shell it would be the working directory, and whatever lies there
/// would be run as a plugin.
fn plugin_dirs(path: &OsStr) -> Vec<PathBuf> {
    std::env::split_paths(path)
        .filter(|dir| !dir.as_os_str().is_empty())
        .collect()
}

fn network_name(name: Option<String>) -> Result<NetworkName, Error> {
    match name.filter(|name| !name.is_empty()) {
        Some(name) => Ok(name.try_into()?),
        None => Err(Error::config("the network configuration has no \"name\"")),
    }
}

fn plugin_name(plugin: Option<String>) -> Result<PluginName, Error> {
    match plugin.filter(|plugin| !plugin.is_empty()) {
        Some(plugin) => Ok(plugin.try_into()?),
        None => Err(Error::config("the network configuration has no \"type\"")),
    }
}

/// `prevResult`: CHECK can't do without, DEL must not fail over it, GC and STATUS have none.
fn prev_result(
    call: &Call,
    value: Option<&Value>,
    version: SpecVersion,
) -> Result<Option<CniResult>, Error> {
    let read =
        value.map(|value| CniResult::from_json(value, version).map_err(|e| e.within("prevResult")));
    match (call, read) {
        (Call::Gc(_) | Call::Status, _) => Ok(None),
        (Call::Del(_), Some(Err(error))) => {
            crate::diagnostics::warn(format_args!("DEL goes on without prevResult: {error}"));
            Ok(None)
        }
        (Call::Check(_), None) => Err(Error::config(
            "CHECK needs the result of ADD in \"prevResult\"",
        )),
        (_, None) => Ok(None),
        (_, Some(read)) => Ok(Some(read?)),
    }
}

fn attachment(env: &Environment, netns_required: bool) -> Result<Attachment, Error> {
    let required: &[_] = if netns_required {
        &["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"]
    } else {
        &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]
    };
    require(env, required)?;
    let mut ifname: IfName = env
        .name("CNI_IFNAME")?
        .ok_or_else(|| missing_variables(required))?;
    if netns_required {
        let refused = |error| environment_error(format!("CNI_IFNAME: {error}"));
        ifname = ifname.for_new().map_err(refused)?;
    }
    Ok(Attachment {
        container: env
            .name("CNI_CONTAINERID")?
            .ok_or_else(|| missing_variables(required))?,
        ifname,
        netns: env.get("CNI_NETNS").map(PathBuf::from),
        args: CniArgs::parse(env.text("CNI_ARGS")?.unwrap_or_default())?,
        netns_override: env
            .text("CNI_NETNS_OVERRIDE")?
            .is_some_and(|value| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True")),
    })
}

fn require(env: &Environment, names: &[&str]) -> Result<(), Error> {
    let missing: Vec<_> = names
        .iter()
        .copied()
        .filter(|name| env.get(name).is_none())
        .collect();
    if missing.is_empty() {
        Ok(())
    } else {
        Err(missing_variables(&missing))
    }
}

fn missing_variables(names: &[&str]) -> Error {
    environment_error(format!(
        "required environment variables are missing: {}",
        names.join(", ")
    ))
    .with_details("CNI plugins are run by a container runtime or by cnitool")
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
