//! DEL and GC of plugins that connect a container with a veth pair. Both find what is to go by its owner, and need
//! neither the namespace nor `prevResult`.

use cni_conf::error::Error;
use cni_conf::json;
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use serde::Deserialize;

use super::collect;
use super::container::Container;
use super::ipam::{self, Ipam, IpamConf};
use super::isolation;
use super::masquerade;
use super::veth;
use crate::host::Rtnl;
use crate::owner::{Owner, Owners};

/// The part of the configuration that removing needs. The rest may be invalid by now.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    ipam: IpamConf,
    port_isolation: bool,
}

/// Removes the pair and gives the addresses back.
pub fn del(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let conf: Wire = json::from_value(&request.conf)?;
    let owner = Owner::of(request, attachment);
    let ipam = conf
        .ipam
        .plugin()
        .and_then(|name| name.map(|name| Ipam::find(request, name)).transpose());
    // One that tells a server needs the interface for it.
    let told = match &ipam {
        Ok(Some(ipam)) if ipam.needs_interface() => Some(ipam.del(attachment)),
        _ => None,
    };
    // Begun before the interface goes and finished after it: the kernel makes both wait for the same grace period.
    let masquerade = masquerade::begin_removal(&owner);
    let isolation = match conf.port_isolation {
        true => isolation::remove(&Owners::one(&owner)).map_err(Error::from),
        false => Ok(()),
    };
    let interface = remove_interface(attachment, &owner);
    // The configuration may have changed since ADD.
    let isolation = match &interface {
        Ok(Removed::Ours { isolated: true }) if !conf.port_isolation => {
            isolation::remove(&Owners::one(&owner)).map_err(Error::from)
        }
        _ => isolation,
    };
    let masquerade = masquerade
        .and_then(masquerade::Removal::finish)
        .map_err(Error::from);
    let of_the_go_plugin = match interface {
        Ok(Removed::Ours { .. }) => Ok(()),
        _ => masquerade::remove_of_the_go_plugin(&owner).map_err(Error::from),
    };
    // An address may be given to another container only when this one can't use it any more.
    let address = interface.and_then(|_| match (told, ipam?) {
        (Some(told), _) => told,
        (None, Some(ipam)) => ipam.del(attachment),
        (None, None) => Ok(()),
    });
    let outcomes = [address, masquerade, of_the_go_plugin, isolation];
    Error::join(outcomes.into_iter().filter_map(Result::err)).map_or(Ok(()), Err)
}

/// What was removed.
enum Removed {
    /// A pair that we had made.
    Ours {
        /// Its host end was an isolated port of a bridge.
        isolated: bool,
    },
    /// A pair that we had not made, or none.
    Other,
}

fn remove_interface(attachment: &Attachment, owner: &Owner) -> Result<Removed, Error> {
    let host = Rtnl::new()?;
    if let Some(link) = veth::find(&host, owner)?
        && host.delete_link(link.index)?
    {
        let isolated = link.port.is_some_and(|port| port.isolated);
        return Ok(Removed::Ours { isolated });
    }
    if let Some(container) = Container::open_if_there(attachment)? {
        veth::delete_in_container(&host, &container, owner)?;
    }
    Ok(Removed::Other)
}

/// Removes what belongs to no attachment of `valid`. `bridge` is the one whose ports the network's host ends are, if any.
pub fn gc(request: &Request, valid: &[AttachmentId], bridge: Option<&str>) -> Result<(), Error> {
    let conf: Wire = json::from_value(&request.conf)?;
    let mut errors = match Rtnl::new() {
        Ok(host) => collect::pairs(&host, &request.network, valid, bridge),
        Err(error) => vec![error.into()],
    };
    errors.extend(
        masquerade::gc(&request.network, valid)
            .err()
            .map(Error::from),
    );
    let dead = Owners::all_but(&request.network, valid);
    errors.extend(isolation::remove(&dead).err().map(Error::from));
    errors.extend(ipam::delegate(request, &conf.ipam, Call::Gc(Some(valid.to_vec()))).err());
    Error::join(errors).map_or(Ok(()), Err)
}
