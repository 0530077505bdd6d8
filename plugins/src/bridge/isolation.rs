//! `portIsolation` beyond the bridge: what the host would route from one isolated port to another.

use std::net::IpAddr;

use cni_conf::addr::MacAddr;
use cni_conf::diagnostics::warn;
use cni_conf::error::Error;
use cni_conf::request::Request;
use cni_conf::result::IpConfig;

use crate::attach::check::failed;
use crate::attach::isolation::{self, Isolated};
use crate::attach::masq;
use crate::host::HostError;
use crate::owner::{Owner, Owners};

/// ADD: before the port is up.
pub(super) fn ensure(
    request: &Request,
    owner: &Owner,
    interface: &str,
    ips: &[IpConfig],
    mac: MacAddr,
) -> Result<(), Error> {
    let addresses = addresses(ips);
    let wanted = Isolated {
        owner,
        interface,
        addresses: &addresses,
        mac,
    };
    match isolation::ensure(&wanted, &|| masq::living(request).unwrap_or_default()) {
        // The bridge does its part without.
        Err(error @ HostError::ProgramMissing { .. }) => {
            warn(format_args!(
                "portIsolation: {error}. Until nft is installed, containers of the bridge that send to the gateway's MAC \
                 address are routed to each other"
            ));
            Ok(())
        }
        outcome => Ok(outcome?),
    }
}

/// Undoes it.
pub(super) fn remove(owner: &Owner) -> Result<(), Error> {
    Ok(isolation::remove(&Owners::one(owner))?)
}

/// CHECK: whether it holds still. Where there is no `nft`, ADD said so.
pub(super) fn check(
    owner: &Owner,
    interface: &str,
    ips: &[IpConfig],
    mac: MacAddr,
) -> Result<(), Error> {
    let addresses = addresses(ips);
    let differences = isolation::check(&Isolated {
        owner,
        interface,
        addresses: &addresses,
        mac,
    })?;
    if differences.is_empty() || crate::host::nft::ruleset::NFT.find("isolate").is_err() {
        return Ok(());
    }
    Err(failed(differences.join("; ")))
}

fn addresses(ips: &[IpConfig]) -> Vec<IpAddr> {
    ips.iter().map(|ip| ip.address.addr()).collect()
}
