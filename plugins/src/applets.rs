//! The table of plugins in this binary.

use cni_conf::dispatch::Plugin;

/// A plugin and the name that it is installed and called under.
#[derive(Clone, Copy)]
pub struct Applet {
    /// The exact base name of `argv[0]`, which is also its `type` in configurations.
    pub name: &'static str,
    /// What serves the calls.
    pub plugin: &'static dyn Plugin,
}

/// Every plugin, in the order of the help text.
pub const ALL: &[Applet] = &[
    Applet {
        name: "bridge",
        plugin: &crate::bridge::Bridge,
    },
    Applet {
        name: "loopback",
        plugin: &crate::loopback::Loopback,
    },
    Applet {
        name: "ptp",
        plugin: &crate::ptp::Ptp,
    },
    Applet {
        name: "tuning",
        plugin: &crate::tuning::Tuning,
    },
    Applet {
        name: "bandwidth",
        plugin: &crate::bandwidth::Bandwidth,
    },
    Applet {
        name: "portmap",
        plugin: &crate::portmap::Portmap,
    },
    Applet {
        name: "firewall",
        plugin: &crate::firewall::Firewall,
    },
    Applet {
        name: "host-local",
        plugin: &crate::attach::ipam::HOST_LOCAL,
    },
    Applet {
        name: "static",
        plugin: &ipam::Static,
    },
];

/// The plugin of exactly this name.
pub fn find(applets: &[Applet], name: &str) -> Option<Applet> {
    applets.iter().copied().find(|applet| applet.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_match_exactly() {
        for applet in ALL {
            assert_eq!(
                ALL.iter().filter(|other| other.name == applet.name).count(),
                1
            );
        }
        assert!(find(ALL, "bridge").is_some());
        for near in ["Bridge", "bridge.exe", "bridge ", "", "trestle"] {
            assert!(find(ALL, near).is_none(), "{near:?}");
        }
    }
}
