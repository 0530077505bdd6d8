//! Bridge netfilter: bridged packets go through the host's IP rules too.
//!
//! A Service's address is translated by rules of the IP layer. Of two containers on one bridge, the answer
//! goes from one port to the other without passing that layer, so it is not translated back, and the
//! client refuses it: it comes from an address that was not asked. The module br_netfilter hands bridged
//! packets to the rules of the IP layer where either the host-wide sysctls or the bridge's own attributes
//! say so (net/bridge/br_netfilter_hooks.c: `brnf_call_iptables || br_opt_get(br, BROPT_NF_CALL_IPTABLES)`).
//!
//! All functions work on the network namespace that the calling thread is in; the sysctls belong to one
//! from Linux 5.3, to the whole machine before.

use std::fs;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use crate::host::rtnl::{BridgeChange, Link, Rtnl};
use crate::host::{HostError, Sysctl, module};

/// What a person does where bridge netfilter can't be switched on.
pub const REMEDY: &str = "Run `modprobe br_netfilter` on the host, have it loaded at boot \
    (/etc/modules-load.d), and set net.bridge.bridge-nf-call-iptables and \
    net.bridge.bridge-nf-call-ip6tables to 1; or set \"bridgeNetfilter\": \"off\" if no Service is used.";

/// The two sysctls, for IPv4 and IPv6.
const KEYS: [&str; 2] = ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"];

/// How it is switched on (`bridgeNetfilter`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// `"sysctl"`: for all bridges, by the host-wide sysctls.
    Sysctl,
    /// `"bridge"`: for one bridge, by its own attributes.
    Bridge,
    /// `"off"`: nothing is touched.
    Off,
}

/// Makes sure that packets of `bridge` go through the IP layer's rules, loading the module if need be.
///
/// # Errors
/// [`HostError::ProgramMissing`] or [`HostError::ProgramFailed`] when the module is absent and can't be
/// loaded; [`HostError::Sysctl`] when the setting can't be written. Callers add [`REMEDY`].
pub fn ensure(rtnl: &Rtnl, bridge: &Link, mode: Mode) -> Result<(), HostError> {
    match mode {
        Mode::Off => Ok(()),
        Mode::Sysctl => {
            let set = || {
                KEYS.iter()
                    .try_for_each(|key| Sysctl::bridge(key).ensure("1").map(drop))
            };
            match set() {
                Err(error) if error.not_found() => {
                    load()?;
                    set()
                }
                outcome => outcome,
            }
        }
        Mode::Bridge => {
            if load()? {
                // The module switches itself on for every bridge when it is loaded. Nobody asked for that.
                KEYS.iter()
                    .try_for_each(|key| Sysctl::bridge(key).ensure("0").map(drop))?;
            }
            if by_itself(bridge) {
                return Ok(());
            }
            let change = BridgeChange {
                nf_call_iptables: Some(true),
                nf_call_ip6tables: Some(true),
                ..BridgeChange::default()
            };
            rtnl.set_bridge(bridge.index, &change)
        }
    }
}

/// Whether packets of `bridge` go through the rules of the IP layer, of either version.
pub fn is_on(bridge: &Link) -> bool {
    [false, true].into_iter().any(|v6| is_on_for(bridge, v6))
}

/// Whether its packets of one version of IP do: each has a switch of its own.
pub fn is_on_for(bridge: &Link, v6: bool) -> bool {
    let own = bridge.bridge.and_then(|settings| match v6 {
        true => settings.nf_call_ip6tables,
        false => settings.nf_call_iptables,
    });
    let host_wide = Sysctl::bridge(KEYS[usize::from(v6)]).read();
    own == Some(true) || host_wide.is_ok_and(|value| value == "1")
}

/// Loads the module unless it is there, and tells whether it did.
fn load() -> Result<bool, HostError> {
    if is_loaded() {
        return Ok(false);
    }
    module::load("br_netfilter")?;
    Ok(true)
}

fn is_loaded() -> bool {
    Sysctl::bridge(KEYS[0]).exists()
}

fn by_itself(bridge: &Link) -> bool {
    bridge.bridge.is_some_and(|settings| {
        settings.nf_call_iptables == Some(true) && settings.nf_call_ip6tables == Some(true)
    })
}

/// Whether what [`ensure`] made is still so: a sentence for each difference.
///
/// # Errors
/// [`HostError::Sysctl`] when a setting that exists can't be read.
pub fn check(bridge: &Link, mode: Mode) -> Result<Vec<String>, HostError> {
    if mode == Mode::Off {
        return Ok(Vec::new());
    }
    if !is_loaded() {
        return Ok(vec![
            "the module br_netfilter is no longer loaded".to_owned(),
        ]);
    }
    if mode == Mode::Bridge {
        return Ok(if by_itself(bridge) || sysctls_off()?.is_empty() {
            Vec::new()
        } else {
            vec![format!(
                "bridge {} no longer passes its packets to the IP layer's rules (nf_call_iptables, nf_call_ip6tables)",
                bridge.name
            )]
        });
    }
    // What one bridge does by itself is as good for its containers.
    if by_itself(bridge) {
        return Ok(Vec::new());
    }
    Ok(sysctls_off()?
        .into_iter()
        .map(|sysctl| format!("{sysctl} is no longer 1"))
        .collect())
}

fn sysctls_off() -> Result<Vec<Sysctl>, HostError> {
    let mut off = Vec::new();
    for key in KEYS {
        let sysctl = Sysctl::bridge(key);
        if sysctl.read()? != "1" {
            off.push(sysctl);
        }
    }
    Ok(off)
}

/// Whether [`ensure`] will succeed, as far as that can be told without changing anything.
///
/// # Errors
/// What is in the way. Callers add [`REMEDY`].
pub fn status(mode: Mode) -> Result<(), HostError> {
    if mode == Mode::Off {
        return Ok(());
    }
    if !is_loaded() {
        return loadable();
    }
    if mode == Mode::Bridge {
        return Ok(());
    }
    sysctls_off()?.iter().try_for_each(writable)
}

fn writable(sysctl: &Sysctl) -> Result<(), HostError> {
    let file = Path::new("/proc/sys").join(sysctl.to_string().replace('.', "/"));
    access(&file, AccessFlags::W_OK).map_err(|errno: Errno| HostError::Sysctl {
        action: "write",
        name: sysctl.to_string(),
        source: errno.into(),
    })
}

/// Whether the running kernel's module directory has the module and there is a program to load it.
fn loadable() -> Result<(), HostError> {
    let operation = "find kernel module br_netfilter";
    let release = nix::sys::utsname::uname()
        .map(|uname| uname.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    let list = Path::new("/lib/modules").join(release).join("modules.dep");
    let known = fs::read_to_string(list).is_ok_and(|text| text.contains("/br_netfilter.ko"));
    if !known {
        return Err(HostError::Unsupported {
            operation: operation.to_owned(),
            remedy: REMEDY,
        });
    }
    module::can_load(operation)
}
