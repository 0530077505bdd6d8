//! firewalld: the containers' addresses are sources of a zone that lets everything through.
//!
//! firewalld is asked through D-Bus, by the program `busctl` of systemd, which is where firewalld is; a D-Bus
//! library of our own would outweigh the rest of this plugin, and firewalld's `firewall-cmd` takes half a second a
//! call. The sources are of firewalld's runtime configuration, as with the reference: `firewall-cmd --reload`
//! forgets them, and CHECK notices.

use std::net::IpAddr;
use std::path::Path;

use cni_conf::error::{Code, Error};
use ipnet::IpNet;

use crate::host::HostError;
use crate::host::program::Program;

const BUSCTL: Program = Program {
    name: "busctl",
    remedy: "Install systemd, which has busctl, or set \"backend\" to \"nftables\" or \"iptables\".",
};

/// Where the system bus listens unless the environment says otherwise (D-Bus specification, "Well-known Message
/// Bus Instances").
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

const SERVICE: &str = "org.fedoraproject.FirewallD1";
const OBJECT: &str = "/org/fedoraproject/FirewallD1";
const ZONES: &str = "org.fedoraproject.FirewallD1.zone";

/// Whether firewalld is on the system bus. Without a bus no process is started.
pub(super) fn runs() -> bool {
    let elsewhere = std::env::var_os("DBUS_SYSTEM_BUS_ADDRESS").is_some();
    if !elsewhere && !Path::new(SYSTEM_BUS).exists() {
        return false;
    }
    let question = [
        "call",
        "org.freedesktop.DBus",
        "/org/freedesktop/DBus",
        "org.freedesktop.DBus",
        "NameHasOwner",
        "s",
        SERVICE,
    ];
    ask("look for firewalld", &question).is_ok_and(|answer| answer.trim() == "b true")
}

/// The error where firewalld is asked for and does not run.
pub(super) fn missing() -> Error {
    Error::new(
        Code::MissingTool,
        "\"backend\" is \"firewalld\", and firewalld is not on the system bus",
    )
    .with_details(
        "start it (systemctl start firewalld), or leave out \"backend\" to have one chosen that works on this host",
    )
}

/// Puts the addresses into the zone.
pub(super) fn ensure(addresses: &[IpAddr], zone: &str) -> Result<(), HostError> {
    for address in addresses {
        match zone_call("addSource", *address, zone) {
            // It is in a zone already; as with the reference, whoever put it there decides.
            Err(HostError::ProgramFailed { complaint, .. })
                if complaint.contains("ZONE_ALREADY_SET")
                    || complaint.contains("ZONE_CONFLICT") => {}
            outcome => drop(outcome?),
        }
    }
    Ok(())
}

/// Takes the addresses out of the zone, if firewalld runs and has them there.
pub(super) fn remove(addresses: &[IpAddr], zone: &str) -> Result<(), Error> {
    if addresses.is_empty() || !runs() {
        return Ok(());
    }
    let mut errors = Vec::new();
    for address in addresses {
        match zone_call("removeSource", *address, zone) {
            Err(HostError::ProgramFailed { complaint, .. })
                if complaint.contains("UNKNOWN_SOURCE") || complaint.contains("ZONE_CONFLICT") => {}
            outcome => errors.extend(outcome.err().map(Error::from)),
        }
    }
    Error::join(errors).map_or(Ok(()), Err)
}

/// A sentence for each address that is not in the zone.
pub(super) fn check(addresses: &[IpAddr], zone: &str) -> Result<Vec<String>, HostError> {
    let mut differences = Vec::new();
    for address in addresses {
        if zone_call("querySource", *address, zone)?.trim() != "b true" {
            differences.push(format!("{address} is not in firewalld's zone {zone}"));
        }
    }
    Ok(differences)
}

fn zone_call(method: &str, address: IpAddr, zone: &str) -> Result<String, HostError> {
    let purpose = format!("firewalld: {method} {address} in zone {zone}");
    // firewalld knows host prefixes from addresses, and so has the reference written them.
    let source = IpNet::from(address).to_string();
    ask(
        &purpose,
        &["call", SERVICE, OBJECT, ZONES, method, "ss", zone, &source],
    )
}

fn ask(purpose: &str, call: &[&str]) -> Result<String, HostError> {
    let options = ["--system", "--auto-start=no", "--timeout=10"];
    BUSCTL.run(purpose, options.iter().chain(call), "")
}
