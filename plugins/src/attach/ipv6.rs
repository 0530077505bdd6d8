//! Settings of IPv6 on links, which have no other way than /proc/sys.
//!
//! That may be mounted read-only, as in containers and in CI. A container without an IPv6 address doesn't fail for it: what
//! it can do without is let be, and what somebody should know is a warning. Where an IPv6 address needs a setting, the
//! remedy is `net.ipv6.conf.default`, which a link has its values from: the link itself is gone when a person reads it.

use cni_conf::diagnostics::warn;
use cni_conf::error::Error;
use nix::errno::Errno;

use super::errors::ignore_not_found;
use crate::host::rtnl::Link;
use crate::host::{HostError, Procfs, Sysctl};

/// IPv6 settings of a container's interface, from within its namespace, before it is up. `dad`: duplicate addresses are
/// looked for. `heeds_routers`: it listens to router advertisements.
pub fn set_up(procfs: &Procfs, ifname: &str, dad: bool, heeds_routers: bool) -> Result<(), Error> {
    let setting = |key| Sysctl::ipv6_conf(ifname, key);
    // Some runtimes switch IPv6 off in new namespaces; addresses were asked for here. To write it takes the kernel's
    // lock of all links, so mostly it is only looked at.
    let enabled = setting("disable_ipv6").ensure_in(procfs, "0");
    enabled.map_err(|error| beforehand(error, "disable_ipv6", "0"))?;
    if !heeds_routers {
        // Addresses come from IPAM: a router's advertisement must not add others or move the default route.
        let accept_ra = setting("accept_ra");
        match accept_ra.write_in(procfs, "0") {
            Err(error) if is_forbidden(&error) && accept_ra.read_in(procfs)? == "0" => {}
            outcome => outcome.map_err(|error| beforehand(error, "accept_ra", "0"))?,
        }
    }
    // An interface that goes down and up again keeps them.
    if_possible(setting("keep_addr_on_down").write_in(procfs, "1"))?;
    if !dad {
        // Nobody has to wait for its link-local address either.
        if_possible(setting("accept_dad").write_in(procfs, "0"))?;
    }
    Ok(())
}

/// Has a container's interface tell its neighbours, whenever it comes up or its MAC address is set from now on, where its
/// IPv6 addresses are.
pub fn notify(procfs: &Procfs, ifname: &str) -> Result<(), HostError> {
    if_possible(Sysctl::ipv6_conf(ifname, "ndisc_notify").write_in(procfs, "1"))
}

/// Switches IPv6 on for a link of the host that is to have such an address.
pub fn enable(link: &str) -> Result<(), Error> {
    ignore_not_found(Sysctl::ipv6_conf(link, "disable_ipv6").ensure("0"))
        .map_err(|error| beforehand(error, "disable_ipv6", "0"))
}

/// Spares a link of the host the search for duplicates of its link-local address, so that it can be used at once.
pub fn skip_detection(link: &str) -> Result<(), HostError> {
    if_possible(Sysctl::ipv6_conf(link, "accept_dad").ensure("0"))
}

/// Has a link of the host ignore router advertisements: nobody may tell the host from inside a container where its
/// routes lead (CVE-2020-10749). What could not be set is [`judge_advertisements`]'s business.
pub fn ignore_advertisements(link: &mut Link) -> Result<(), HostError> {
    // The look is free, a write takes a walk through the kernel's cache of sysctls.
    if link.accept_ra == Some(0) {
        return Ok(());
    }
    match Sysctl::ipv6_conf(&link.name, "accept_ra").write("0") {
        Ok(()) => link.accept_ra = Some(0),
        Err(error) if error.not_found() => link.accept_ra = None,
        Err(error) if is_forbidden(&error) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

/// After [`ignore_advertisements`]: refuses a link that listens to router advertisements where it has IPv6 addresses of a
/// network, and warns where it has none.
pub fn judge_advertisements(link: &Link, ipv6: bool) -> Result<(), Error> {
    let accepts = match link.accept_ra {
        None | Some(0) => false,
        // A host that forwards doesn't, unless told twice (Documentation/networking/ip-sysctl.rst).
        Some(1) => Sysctl::ipv6_conf(&link.name, "forwarding").read()? != "1",
        Some(_) => true,
    };
    if !accepts {
        return Ok(());
    }
    // Once more, for the reason.
    let Err(error) = Sysctl::ipv6_conf(&link.name, "accept_ra").ensure("0") else {
        return Ok(());
    };
    let error = beforehand(error, "accept_ra", "0");
    if ipv6 {
        return Err(error);
    }
    warn(format_args!(
        "{error}; until then a container can send router advertisements to the host (CVE-2020-10749)"
    ));
    Ok(())
}

/// The error of a setting that an IPv6 address needs.
fn beforehand(error: HostError, key: &str, value: &str) -> Error {
    let is_read_only = is_forbidden(&error);
    let error = Error::from(error);
    if !is_read_only {
        return error;
    }
    Error {
        details: format!(
            "set net.ipv6.conf.default.{key} to {value} where /proc/sys can be written, before the link is made, or give \
             no IPv6 addresses to the network"
        ),
        ..error
    }
}

/// A setting that can be done without.
pub fn if_possible<T>(outcome: Result<T, HostError>) -> Result<(), HostError> {
    match outcome {
        Err(error) if is_forbidden(&error) => Ok(()),
        outcome => ignore_not_found(outcome),
    }
}

/// Whether /proc/sys may not be written here.
fn is_forbidden(error: &HostError) -> bool {
    matches!(
        error.errno(),
        Some(Errno::EROFS | Errno::EACCES | Errno::EPERM)
    )
}
