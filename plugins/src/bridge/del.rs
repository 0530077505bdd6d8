//! DEL and GC: both find what is to go by its owner, and need neither the namespace nor `prevResult`.

use cni_conf::error::Error;
use cni_conf::json;
use cni_conf::request::{Attachment, AttachmentId, Call, Request};
use serde::Deserialize;

use crate::attach::container::Container;
use crate::attach::ipam::{self, Ipam, IpamConf};
use crate::attach::masq;
use crate::attach::owner::Owner;
use crate::attach::veth;
use crate::host::Rtnl;

/// The part of the configuration that removing needs. The rest may be invalid by now.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wire {
    ipam: IpamConf,
}

pub(super) fn del(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let conf: Wire = json::from_value(&request.conf)?;
    let owner = Owner::of(request, attachment);
    let ipam = conf
        .ipam
        .plugin()
        .and_then(|name| name.map(|name| Ipam::find(request, name)).transpose());
    let interface = remove_interface(attachment, &owner);
    let masquerade = masq::remove(&owner);
    // An address may be given to another container only when this one can't use it any more.
    let address = interface.and_then(|()| match ipam? {
        Some(ipam) => ipam.del(attachment),
        None => Ok(()),
    });
    Error::join([address, masquerade].into_iter().filter_map(Result::err)).map_or(Ok(()), Err)
}

fn remove_interface(attachment: &Attachment, owner: &Owner) -> Result<(), Error> {
    let host = Rtnl::new()?;
    if veth::delete(&host, owner)? {
        return Ok(());
    }
    // Not made by us, or gone already.
    if let Some(container) = Container::open_if_there(attachment)? {
        veth::delete_in_container(&host, &container, owner)?;
    }
    Ok(())
}

pub(super) fn gc(request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
    let conf: Wire = json::from_value(&request.conf)?;
    let mut errors = match Rtnl::new() {
        Ok(host) => veth::collect(&host, &request.network, valid),
        Err(error) => vec![error.into()],
    };
    errors.extend(masq::collect(&request.network, valid).err());
    errors.extend(ipam::forward(request, &conf.ipam, Call::Gc(Some(valid.to_vec()))).err());
    Error::join(errors).map_or(Ok(()), Err)
}
