//! The table of plugins in this binary.

use std::fmt;

use cni_conf::dispatch::Plugin;
use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};

/// Name of the binary itself; called by it, trestle is a command line for people.
pub const BINARY: &str = "trestle";

/// A plugin and the name that it is installed and called under.
#[derive(Clone, Copy)]
pub struct BuiltIn {
    /// The exact base name of `argv[0]`, which is also its `type` in configurations.
    pub name: &'static str,
    /// What serves the calls.
    pub plugin: &'static dyn Plugin,
}

impl fmt::Debug for BuiltIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// Every plugin, in the order of the help text.
pub const ALL: &[BuiltIn] = &[
    BuiltIn {
        name: "bridge",
        plugin: &crate::bridge::Bridge,
    },
    BuiltIn {
        name: "loopback",
        plugin: &crate::loopback::Loopback,
    },
    BuiltIn {
        name: "ptp",
        plugin: &crate::ptp::Ptp,
    },
    BuiltIn {
        name: "macvlan",
        plugin: &crate::macvlan::Macvlan,
    },
    BuiltIn {
        name: "ipvlan",
        plugin: &crate::ipvlan::Ipvlan,
    },
    BuiltIn {
        name: "vlan",
        plugin: &crate::vlan::Vlan,
    },
    BuiltIn {
        name: "dummy",
        plugin: &crate::dummy::Dummy,
    },
    BuiltIn {
        name: "tap",
        plugin: &crate::tap::Tap,
    },
    BuiltIn {
        name: "host-device",
        plugin: &crate::host_device::HostDevice,
    },
    BuiltIn {
        name: "vrf",
        plugin: &crate::vrf::Vrf,
    },
    BuiltIn {
        name: "sbr",
        plugin: &crate::sbr::Sbr,
    },
    BuiltIn {
        name: "tuning",
        plugin: &crate::tuning::Tuning,
    },
    BuiltIn {
        name: "bandwidth",
        plugin: &crate::bandwidth::Bandwidth,
    },
    BuiltIn {
        name: "portmap",
        plugin: &crate::portmap::Portmap,
    },
    BuiltIn {
        name: "firewall",
        plugin: &crate::firewall::Firewall,
    },
    BuiltIn {
        name: "host-local",
        plugin: &crate::attach::ipam::HOST_LOCAL,
    },
    BuiltIn {
        name: "static",
        plugin: &ipam::Static,
    },
    BuiltIn {
        name: "dhcp",
        plugin: &crate::dhcp::Dhcp,
    },
];

/// The plugin of exactly this name.
pub fn find(registry: &[BuiltIn], name: &str) -> Option<BuiltIn> {
    registry
        .iter()
        .copied()
        .find(|built_in| built_in.name == name)
}

/// Reads the configuration of the plugin called `name` as its ADD does, and nothing else: no file, no kernel.
/// `None` if it has no such configuration. For fuzzing and for advice.
#[doc(hidden)]
pub fn parse_conf(
    name: &str,
    request: &Request,
    attachment: &Attachment,
) -> Option<Result<(), Error>> {
    Some(match name {
        "bridge" => crate::bridge::parse_conf(request, attachment),
        "ptp" => crate::ptp::parse_conf(request),
        "macvlan" => crate::macvlan::parse_conf(request, attachment),
        "ipvlan" => crate::ipvlan::parse_conf(request),
        "vlan" => crate::vlan::parse_conf(request),
        "dummy" => crate::dummy::parse_conf(request),
        "tap" => crate::tap::parse_conf(request, attachment),
        "host-device" => crate::host_device::parse_conf(request),
        "vrf" => crate::vrf::parse_conf(request),
        "sbr" => crate::sbr::parse_conf(request),
        "tuning" => crate::tuning::parse_conf(request, attachment),
        "bandwidth" => crate::bandwidth::parse_conf(request),
        "portmap" => crate::portmap::parse_conf(request),
        "firewall" => crate::firewall::parse_conf(request),
        "host-local" => ipam::HostLocal::parse_conf(request, attachment),
        "dhcp" => crate::dhcp::parse_conf(request, attachment),
        // It has nothing but its configuration.
        "static" => ipam::Static.add(request, attachment).map(drop),
        _ => return None,
    })
}

/// Puts back what CHECK of the plugin called `name` finds missing on the host, for an attachment that lives, and nothing in
/// the container. `None` if there is nothing that it could put back.
pub fn repair(name: &str, request: &Request, attachment: &Attachment) -> Option<Result<(), Error>> {
    Some(match name {
        "bridge" => crate::bridge::repair(request, attachment),
        "ptp" => crate::ptp::repair(request, attachment),
        "portmap" => crate::portmap::repair(request, attachment),
        "firewall" => crate::firewall::repair(request, attachment),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_match_exactly() {
        for built_in in ALL {
            assert_eq!(
                ALL.iter()
                    .filter(|other| other.name == built_in.name)
                    .count(),
                1
            );
        }
        assert!(find(ALL, "bridge").is_some());
        for near in ["Bridge", "bridge.exe", "bridge ", "", "trestle"] {
            assert!(find(ALL, near).is_none(), "{near:?}");
        }
    }
}
