//! Host ports that CHECK finds missing, mapped again by what ADD wrote down.

use cni_conf::error::Error;
use cni_conf::request::{Attachment, Request};

use super::{NAME, map_again};
use crate::attach::record::Records;
use crate::owner::Owner;

/// Maps the ports of a container that lives. What its ADD did not write down is not known.
pub(super) fn repair(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    let records = Records::of(request, NAME)?;
    let recorded = records.find(&Owner::of(request, attachment));
    if let Some(recorded) = recorded.filter(|recorded| recorded.is_living()) {
        map_again(&recorded, &records, "put back the mapped ports of");
    }
    Ok(())
}
