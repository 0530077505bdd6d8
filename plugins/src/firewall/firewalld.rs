//! firewalld: the containers' addresses are sources of a zone that lets everything through.
//!
//! The sources are of firewalld's runtime configuration, as with the Go plugin: `firewall-cmd --reload` and a restart
//! forget them. CHECK notices, and the next ADD puts those of all the network's containers back; who they are is in our
//! own nftables sets, since firewalld keeps no owners.

use std::fs;
use std::net::IpAddr;

use cni_conf::error::{Code, Error};
use ipnet::IpNet;

use crate::host::HostError;
use crate::host::dbus::{Call, SystemBus, Value, unexpected};

const SERVICE: &str = "org.fedoraproject.FirewallD1";
const OBJECT: &str = "/org/fedoraproject/FirewallD1";
const ZONES: &str = "org.fedoraproject.FirewallD1.zone";
const POLICIES: &str = "org.fedoraproject.FirewallD1.policy";

/// The administrator's policy for who may open connections to containers. It can only be made permanently, so ADD doesn't.
const POLICY: &str = "trestle-ingress";

/// firewalld's names for a source that is where it should be, is in another zone, and is in none.
const ALREADY_SET: &str = "ZONE_ALREADY_SET";
const CONFLICT: &str = "ZONE_CONFLICT";
const UNKNOWN: &str = "UNKNOWN_SOURCE";

/// firewalld of this machine.
pub(super) struct Firewalld {
    bus: SystemBus,
}

impl Firewalld {
    /// Looks for it on the system bus.
    pub(super) fn find() -> Result<Option<Self>, HostError> {
        let Some(mut bus) = SystemBus::connect()? else {
            return Ok(None);
        };
        let runs = bus.has(SERVICE)?;
        Ok(runs.then_some(Self { bus }))
    }

    /// Whether it may guard this network namespace. A bus can be reached from other namespaces too, such as that of a
    /// rootless engine; there, firewalld's zones are about other packets. Where its process can't be looked at, it may.
    pub(super) fn may_be_here(&mut self) -> bool {
        let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/net")).ok();
        let process = self.bus.process(SERVICE).ok();
        let there = process.and_then(|id| namespace(&id.to_string()));
        there.is_none() || there == namespace("thread-self")
    }

    /// Puts the addresses into the zone.
    pub(super) fn ensure(&mut self, addresses: &[IpAddr], zone: &str) -> Result<(), Error> {
        for address in addresses {
            match self.call("addSource", *address, zone) {
                Err(HostError::ServiceRefused { complaint, .. })
                    if complaint.starts_with(ALREADY_SET) => {}
                Err(HostError::ServiceRefused { complaint, .. })
                    if complaint.starts_with(CONFLICT) =>
                {
                    return Err(in_another_zone(*address, zone));
                }
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    /// Puts back those of the network's containers that the zone has lost. `members` gives who they are, and is asked
    /// again afterwards: one that left meanwhile may have found nothing to remove.
    pub(super) fn restore(
        &mut self,
        zone: &str,
        members: impl Fn() -> Result<Vec<IpAddr>, HostError>,
    ) -> Result<(), HostError> {
        let purpose = format!("firewalld: getSources of zone {zone}");
        let arguments = [zone];
        let call = Call::new(SERVICE, OBJECT, ZONES, "getSources", &arguments);
        let Value::Texts(present) = self.bus.call(&purpose, &call)? else {
            return Err(unexpected(&purpose));
        };
        let mut lost = members()?;
        lost.retain(|address| !present.contains(&source(*address)));
        if lost.is_empty() {
            return Ok(());
        }
        for address in &lost {
            match self.call("addSource", *address, zone) {
                // Another ADD was faster, or the zone was another one when that container came.
                Err(HostError::ServiceRefused { .. }) => {}
                outcome => drop(outcome?),
            }
        }
        let members = members()?;
        lost.retain(|address| !members.contains(address));
        self.remove_sources(&lost, zone)
    }

    /// Takes the addresses out of the zone, as far as they are there. Carries on after an error.
    pub(super) fn remove(&mut self, addresses: &[IpAddr], zone: &str) -> Result<(), Error> {
        let errors = addresses.iter().filter_map(|address| {
            let taken = self.remove_sources(std::slice::from_ref(address), zone);
            taken.err().map(Error::from)
        });
        Error::join(errors).map_or(Ok(()), Err)
    }

    fn remove_sources(&mut self, addresses: &[IpAddr], zone: &str) -> Result<(), HostError> {
        for address in addresses {
            match self.call("removeSource", *address, zone) {
                Err(HostError::ServiceRefused { complaint, .. })
                    if complaint.starts_with(UNKNOWN) || complaint.starts_with(CONFLICT) => {}
                outcome => drop(outcome?),
            }
        }
        Ok(())
    }

    /// A sentence for each address that is not in the zone.
    pub(super) fn check(
        &mut self,
        addresses: &[IpAddr],
        zone: &str,
    ) -> Result<Vec<String>, HostError> {
        let mut differences = Vec::new();
        for address in addresses {
            if self.call("querySource", *address, zone)? != Value::Truth(true) {
                differences.push(format!("{address} is not in firewalld's zone {zone}"));
            }
        }
        Ok(differences)
    }

    /// Whether there is the policy that [`ingress_commands`] make.
    pub(super) fn has_ingress_policy(&mut self) -> Result<bool, HostError> {
        let purpose = "firewalld: getPolicies";
        let call = Call::new(SERVICE, OBJECT, POLICIES, "getPolicies", &[]);
        match self.bus.call(purpose, &call)? {
            Value::Texts(policies) => Ok(policies.iter().any(|policy| policy == POLICY)),
            _ => Err(unexpected(purpose)),
        }
    }

    fn call(&mut self, method: &str, address: IpAddr, zone: &str) -> Result<Value, HostError> {
        let purpose = format!("firewalld: {method} {address} in zone {zone}");
        let arguments = [zone, &source(address)];
        let call = Call::new(SERVICE, OBJECT, ZONES, method, &arguments);
        self.bus.call(&purpose, &call)
    }
}

/// What lets these prefixes open connections to the sources of a zone, for a shell. Being sources of the zone themselves
/// would let them reach the host's own services, too.
pub(super) fn ingress_commands(prefixes: &[IpNet], zone: &str) -> Vec<String> {
    let policy = |what: &str| format!("firewall-cmd --permanent --policy={POLICY} {what}");
    let mut commands = vec![
        format!("firewall-cmd --permanent --new-policy={POLICY}"),
        policy("--add-ingress-zone=ANY"),
        policy(&format!("--add-egress-zone={zone}")),
    ];
    commands.extend(prefixes.iter().map(|prefix| {
        let family = if prefix.addr().is_ipv4() {
            "ipv4"
        } else {
            "ipv6"
        };
        let rule = format!(r#"rule family="{family}" source address="{prefix}" accept"#);
        policy(&format!("--add-rich-rule='{rule}'"))
    }));
    commands.push("firewall-cmd --reload".to_owned());
    commands
}

/// firewalld compares sources as they are written. The Go plugin writes host prefixes.
fn source(address: IpAddr) -> String {
    IpNet::from(address).to_string()
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

fn in_another_zone(address: IpAddr, zone: &str) -> Error {
    let source = source(address);
    Error::new(
        Code::Conflict,
        format!(
            "firewalld has the source {source} in another zone than {zone}, which decides about its packets"
        ),
    )
    .with_details(format!(
        "`firewall-cmd --get-zone-of-source={source}` tells which; set \"firewalldZone\" to it, or take the source \
         out with `firewall-cmd --zone=ZONE --remove-source={source}`"
    ))
}
