//! Rules that CHECK finds missing, put back by what ADD wrote down.

use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};

use super::conf::{Policy, Settings};
use super::others::Others;
use super::select::Backends;
use super::wanted::Wanted;
use super::{NAME, ensure, ports, remove_all};
use crate::attach::chained;
use crate::attach::record::Records;
use crate::owner::{Owner, Owners};

/// Serves a container that lives. One that goes meanwhile removes its record before its rules: what was put back for it is
/// removed again.
pub(super) fn repair(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let records = Records::of(request, NAME)?;
    let owner = Owner::of(request, attachment);
    let recorded = records.find(&owner);
    let Some(recorded) = recorded.filter(|recorded| recorded.is_living()) else {
        return Ok(());
    };
    let previous = chained::previous(&recorded.request)?;
    let settings = Settings::read(request)?;
    let wanted = Wanted::new(&recorded.request, &recorded.attachment, previous, &settings)?;
    if wanted.addresses.is_empty() {
        return Ok(());
    }
    let mut backends = Backends::choose(&settings)?;
    let addresses = wanted.addresses.clone();
    let others = Others::new(request, &settings, &records, &owner, addresses);
    if settings.policy == Policy::Isolated {
        ports::isolate(previous)?;
    }
    ensure(&mut backends, &wanted, &others, &settings, &owner)?;
    others.remove_vanished();
    match records.has(&recorded) {
        true => Ok(()),
        false => remove_all(request, &Owners::one(&owner), &wanted.addresses, &|| false),
    }
}
