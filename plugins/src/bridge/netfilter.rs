//! The key `bridgeNetfilter`.
//!
//! A Service address is translated by rules of the IP layer. Packets between two containers of one bridge don't get
//! there unless bridge netfilter is on, and then an answer would come back from an address that nobody asked.

use cni_conf::diagnostics::warn;
use cni_conf::error::{Code, Error};
use cni_conf::json::FieldError;

use crate::attach::bridge_netfilter::{self, Mode, REMEDY};
use crate::attach::check::failed;
use crate::host::rtnl::Link;
use crate::host::{HostError, Rtnl};

/// The key `bridgeNetfilter`, with its default filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Netfilter {
    pub(super) mode: Mode,
    /// Asked for by name: then not to have it is an error, and otherwise a warning.
    pub(super) by_name: bool,
}

impl Netfilter {
    /// Reads the key; absent or empty, it is on for a gateway.
    pub(super) fn read(text: &str, gateway: bool) -> Result<Self, Error> {
        let mode = match text {
            "" if gateway => Mode::Sysctl,
            "" | "off" => Mode::Off,
            "sysctl" => Mode::Sysctl,
            "bridge" => Mode::Bridge,
            other => {
                let problem = "the values are \"sysctl\", \"bridge\" and \"off\"";
                return Err(
                    FieldError::new("bridgeNetfilter", format!("{other:?}"), problem).into(),
                );
            }
        };
        Ok(Self {
            mode,
            by_name: !text.is_empty(),
        })
    }

    /// ADD: makes sure of it.
    pub(super) fn ensure(self, host: &Rtnl, bridge: &Link) -> Result<(), Error> {
        self.judge(
            bridge_netfilter::ensure(host, bridge, self.mode),
            Code::Kernel,
        )
    }

    /// STATUS: whether ADD could make sure of it.
    pub(super) fn status(self) -> Result<(), Error> {
        self.judge(bridge_netfilter::status(self.mode), Code::NotAvailable)
    }

    /// CHECK: whether it is on still. Where it could not be had and was not asked for by name, ADD said so.
    pub(super) fn check(self, bridge: &Link) -> Result<(), Error> {
        let differences = bridge_netfilter::check(bridge, self.mode)?;
        if differences.is_empty() || (!self.by_name && bridge_netfilter::status(self.mode).is_err())
        {
            return Ok(());
        }
        Err(failed(differences.join("; ")).with_details(REMEDY))
    }

    fn judge(self, outcome: Result<(), HostError>, code: Code) -> Result<(), Error> {
        let Err(error) = outcome else { return Ok(()) };
        if self.by_name {
            return Err(
                Error::new(code, format!("field \"bridgeNetfilter\": {error}"))
                    .with_details(REMEDY),
            );
        }
        warn(format_args!(
            "bridge netfilter is not available ({error}): a Service address may not answer from its own node. {REMEDY}"
        ));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_has_bridge_netfilter_unless_it_is_switched_off() {
        for (text, gateway, mode, by_name) in [
            ("", true, Mode::Sysctl, false),
            ("", false, Mode::Off, false),
            ("sysctl", false, Mode::Sysctl, true),
            ("bridge", true, Mode::Bridge, true),
            ("off", true, Mode::Off, true),
        ] {
            assert_eq!(
                Netfilter::read(text, gateway).unwrap(),
                Netfilter { mode, by_name }
            );
        }
        let error = Netfilter::read("yes", true).unwrap_err();
        assert!(
            error.msg.contains("bridgeNetfilter") && error.msg.contains("yes"),
            "{error}"
        );
    }
}
