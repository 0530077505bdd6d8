//! Delegation to the IPAM plugin that a configuration names.
//!
//! The plugin is looked up on CNI_PATH by its name, as the specification says ("Section 4: Plugin Delegation").
//! Where what is found there is this very binary, the plugin is called in-process: same contract, no child. By the name of a
//! plugin that is none for addresses it would call itself without end, so that is refused.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use cni_conf::dispatch::{self, Plugin};
use cni_conf::error::{Code, Error};
use cni_conf::json;
use cni_conf::names::PluginName;
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use cni_conf::result::CniResult;
use cni_conf::version::SpecVersion;
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::Value;

use super::liveness::KernelLiveness;
use crate::host::child::{self, End};

/// Tells an IPAM plugin, which may be one that calls us again, how many of us have handed on the call by then.
const NESTING: &str = "TRESTLE_DELEGATIONS";

/// How often a call is handed on at most. Once is what everybody needs; a plugin that has itself as its IPAM plugin would go on
/// for ever, and from one on whose failed ADD calls DEL, with twice as many processes each time.
const DEEPEST: u32 = 3;

/// How long another IPAM plugin may take: longer than runtimes wait for a container's network (the kubelet's four minutes).
/// Those that ask a server repeat that for a while.
const LIMIT: Duration = Duration::from_secs(300);

/// The `ipam` section of a configuration, as far as the delegating plugin reads it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct IpamConf {
    /// Name of the IPAM plugin; absent or empty for none.
    #[serde(rename = "type")]
    pub plugin: Option<String>,
}

impl IpamConf {
    /// The validated name, or `None` where addresses are nobody's business.
    pub fn plugin(&self) -> Result<Option<PluginName>, Error> {
        match self.plugin.as_deref() {
            None | Some("") => Ok(None),
            Some(name) => PluginName::try_from(name)
                .map(Some)
                .map_err(|error| Error::config(format!("field \"ipam.type\": {error}"))),
        }
    }
}

/// An IPAM plugin, found.
pub struct Ipam<'a> {
    request: &'a Request,
    name: PluginName,
    place: Place,
}

enum Place {
    /// In this binary.
    Here(&'static dyn Plugin),
    /// Another executable.
    There(PathBuf),
}

/// The plugin `host-local`, with the kernel's view of which containers live.
pub static HOST_LOCAL: ipam::HostLocal = ipam::HostLocal::new(&KernelLiveness);

/// The IPAM plugins of this binary.
fn built_in(name: &PluginName) -> Option<&'static dyn Plugin> {
    match name.as_str() {
        "host-local" => Some(&HOST_LOCAL),
        "static" => Some(&ipam::Static),
        _ => None,
    }
}

impl<'a> Ipam<'a> {
    /// Looks the plugin up on CNI_PATH.
    pub fn find(request: &'a Request, name: PluginName) -> Result<Self, Error> {
        let found = request
            .cni_path
            .iter()
            .map(|dir| dir.join(name.as_str()))
            .find_map(|path| program(&path).map(|found| (path, found)));
        let Some((path, found)) = found else {
            let dirs: Vec<_> = request
                .cni_path
                .iter()
                .map(|dir| dir.display().to_string())
                .collect();
            return Err(Error::new(
                Code::Delegate,
                if dirs.is_empty() {
                    format!("field \"ipam.type\": IPAM plugin {name}: CNI_PATH names no directory")
                } else {
                    let dirs = dirs.join(":");
                    format!("field \"ipam.type\": IPAM plugin {name} is not in {dirs}")
                },
            )
            .with_details(
                "install it there, or correct \"ipam.type\" or the runtime's plugin directory",
            ));
        };
        let place = match built_in(&name) {
            Some(plugin) if is_this_binary(&found) => Place::Here(plugin),
            // A room of its own, which this one knows nothing of.
            None if name.as_str() == "dhcp" => Place::There(path),
            None if is_this_binary(&found) || is_a_copy(&path, &found) => {
                return Err(no_ipam_plugin(&name));
            }
            _ => Place::There(path),
        };
        if matches!(place, Place::There(_)) && nesting() >= DEEPEST {
            return Err(nested_too_deeply(&name));
        }
        Ok(Self {
            request,
            name,
            place,
        })
    }

    /// Whether addresses are given by what is written down here, so that nobody has to be told by the container's interface.
    pub fn keeps_leases(&self) -> bool {
        matches!(self.name.as_str(), "host-local" | "static")
    }

    /// Whether it asks a server by the container's interface, which has to be there and connected before.
    pub fn needs_interface(&self) -> bool {
        self.name.as_str() == "dhcp"
    }

    /// Asks for addresses. At least one comes back.
    pub fn add(&self, attachment: &Attachment) -> Result<CniResult, Error> {
        let result = match self.run(Call::Add(attachment.clone()))? {
            Some(result) => result,
            None => return Err(self.nonsense("it printed no result")),
        };
        if result.ips.is_empty() {
            // Nothing may stay reserved by an answer that can't be used.
            let mut error = self.nonsense("its result has no address");
            if let Err(left) = self.del(attachment) {
                error = error.with_details(left.to_string());
            }
            return Err(error);
        }
        Ok(result)
    }

    /// Gives the addresses back.
    pub fn del(&self, attachment: &Attachment) -> Result<(), Error> {
        self.run(Call::Del(attachment.clone())).map(drop)
    }

    /// Compares the addresses of `prevResult` with what the plugin remembers.
    pub fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        self.run(Call::Check(attachment.clone())).map(drop)
    }

    /// Hands on a verb that is not about one attachment: GC or STATUS.
    pub fn delegate(&self, call: Call) -> Result<(), Error> {
        self.run(call).map(drop)
    }

    fn run(&self, call: Call) -> Result<Option<CniResult>, Error> {
        match &self.place {
            Place::Here(plugin) => dispatch::call(*plugin, self.request, &call),
            Place::There(path) => self.execute(path, &call),
        }
    }

    /// Runs the plugin with this process's environment, but for the verb and what `trestle gc` was not given in it.
    fn execute(&self, path: &Path, call: &Call) -> Result<Option<CniResult>, Error> {
        let mut command = Command::new(path);
        command
            .env("CNI_COMMAND", verb(call))
            .env(NESTING, (nesting() + 1).to_string())
            .envs(self.variables(call))
            .stderr(Stdio::inherit());
        let conf = self.request.conf.to_string();
        let end = child::run(&mut command, conf.as_bytes(), LIMIT).map_err(|error| {
            Error::new(
                Code::Delegate,
                format!("run IPAM plugin {}: {error}", path.display()),
            )
        })?;
        let End::Exited { output, .. } = end else {
            return Err(Error::new(
                Code::TryAgainLater,
                format!(
                    "IPAM plugin {}: it was still running after {} s and was killed",
                    self.name,
                    LIMIT.as_secs()
                ),
            ));
        };
        if !output.status.success() {
            return Err(self.failure(&output));
        }
        if !matches!(call, Call::Add(_)) {
            return Ok(None);
        }
        let value: Value = serde_json::from_slice(&output.stdout)
            .map_err(|error| self.nonsense(&format!("its result is no JSON: {error}")))?;
        CniResult::from_json(&value, self.request.version)
            .map(Some)
            .map_err(|error| self.nonsense(&format!("its result can't be read: {error}")))
    }

    /// The names of an attachment, and where plugins are.
    fn variables(&self, call: &Call) -> Vec<(&'static str, OsString)> {
        let mut variables = Vec::new();
        if let Ok(path) = std::env::join_paths(&self.request.cni_path) {
            variables.push(("CNI_PATH", path));
        }
        if let Call::Add(attachment) | Call::Del(attachment) | Call::Check(attachment) = call {
            variables.push(("CNI_CONTAINERID", attachment.container.as_str().into()));
            variables.push(("CNI_IFNAME", attachment.ifname.as_str().into()));
        }
        variables
    }

    /// The plugin's own error object if it printed one, or what can be said about its end.
    fn failure(&self, output: &Output) -> Error {
        #[derive(Deserialize)]
        struct Wire {
            code: u32,
            #[serde(default)]
            msg: String,
            #[serde(default)]
            details: String,
        }
        let object = serde_json::from_slice(&output.stdout)
            .ok()
            .and_then(|value: Value| json::from_value::<Wire>(&value).ok());
        match object {
            Some(Wire { code, msg, details }) => Error {
                code: Code::Foreign(code),
                msg: format!("IPAM plugin {}: {msg}", self.name),
                details,
            },
            None => self.nonsense(&format!(
                "it failed without an error object ({})",
                output.status
            )),
        }
    }

    fn nonsense(&self, problem: &str) -> Error {
        Error::new(
            Code::Delegate,
            format!("IPAM plugin {}: {problem}", self.name),
        )
    }
}

/// Hands GC or STATUS on to the IPAM plugin of a request, if it names one. STATUS and GC exist since 1.1.0; both are
/// called with that version only.
pub fn delegate(request: &Request, conf: &IpamConf, call: Call) -> Result<(), Error> {
    debug_assert!(request.version >= SpecVersion::V1_1_0);
    match conf.plugin()? {
        Some(name) => Ipam::find(request, name)?.delegate(call),
        None => Ok(()),
    }
}

/// Who holds which addresses of a network, as far as our own `host-local` gave them.
pub fn leases(request: &Request) -> Result<Vec<(AttachmentId, Vec<IpNet>)>, Error> {
    if is_host_local(request)? {
        HOST_LOCAL.leases(request)
    } else {
        Ok(Vec::new())
    }
}

/// What our own `host-local` keeps for the network of a request, if that is its IPAM plugin.
pub fn store_state(request: &Request) -> Result<Option<ipam::StoreState>, Error> {
    is_host_local(request)?
        .then(|| HOST_LOCAL.state(request))
        .transpose()
}

/// The subnets that containers get addresses of, as far as the configuration tells.
pub fn subnets(request: &Request) -> Result<Vec<IpNet>, Error> {
    if is_host_local(request)? {
        HOST_LOCAL.subnets(request)
    } else {
        Ok(Vec::new())
    }
}

fn is_host_local(request: &Request) -> Result<bool, Error> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Wire {
        ipam: IpamConf,
    }
    let Wire { ipam } = json::from_value(&request.conf)?;
    Ok(ipam.plugin.as_deref() == Some("host-local"))
}

fn verb(call: &Call) -> &'static str {
    match call {
        Call::Add(_) => "ADD",
        Call::Del(_) => "DEL",
        Call::Check(_) => "CHECK",
        Call::Gc(_) => "GC",
        Call::Status => "STATUS",
    }
}

/// The file at a path, if it is a program.
fn program(path: &Path) -> Option<fs::Metadata> {
    let found = fs::metadata(path).ok()?;
    (found.is_file() && found.mode() & 0o111 != 0).then_some(found)
}

/// How many of us have handed on this call.
fn nesting() -> u32 {
    let text = std::env::var(NESTING);
    text.ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn nested_too_deeply(name: &PluginName) -> Error {
    Error::config(format!(
        "field \"ipam.type\": {name} is the IPAM plugin of an IPAM plugin of an IPAM plugin: {DEEPEST} have handed on \
         this call already"
    ))
    .with_details("an IPAM plugin is one that gives addresses, such as host-local")
}

fn no_ipam_plugin(name: &PluginName) -> Error {
    Error::config(format!("field \"ipam.type\": {name} is no IPAM plugin")).with_details(
        "those of trestle are host-local, static and dhcp; others have to be installed",
    )
}

/// Whether a file is a copy of this binary.
fn is_a_copy(path: &Path, found: &fs::Metadata) -> bool {
    let own = Path::new("/proc/self/exe");
    fs::metadata(own).is_ok_and(|own| own.len() == found.len())
        && matches!((fs::read(path), fs::read(own)), (Ok(found), Ok(own)) if found == own)
}

fn is_this_binary(found: &fs::Metadata) -> bool {
    let own = fs::metadata("/proc/self/exe");
    own.is_ok_and(|own| (found.dev(), found.ino()) == (own.dev(), own.ino()))
}
