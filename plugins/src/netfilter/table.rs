//! The nftables table `inet trestle`, which all parts of trestle share.
//!
//! Each part has objects of its own in it, whose names begin with the part's: `masq/…`, `portmap/…`. Whoever
//! removes the last of its own objects takes the table along if nobody else's are left.

use nix::errno::Errno;

use crate::host::HostError;
use crate::host::nft::{Batch, Family, Nft, TableRef};

/// The table.
pub const TABLE: TableRef<'static> = TableRef {
    family: Family::Inet,
    name: "trestle",
};

/// Deletes the table if it has neither chains nor sets. One that gets some meanwhile stays.
///
/// # Errors
/// What the kernel says.
pub fn delete_if_empty(nft: &mut Nft) -> Result<(), HostError> {
    if !nft.chains(Some(TABLE))?.is_empty() || !nft.sets(TABLE)?.is_empty() {
        return Ok(());
    }
    let mut batch = Batch::new();
    batch.delete_empty_table(TABLE);
    unless_in_use(nft.commit(batch)).map(drop)
}

/// Commits deletions that the kernel refuses when somebody has begun to use one of the objects (`EBUSY`).
/// Says whether they took effect; what is gone already counts as deleted.
///
/// # Errors
/// Everything else that the kernel says.
pub fn unless_in_use(outcome: Result<(), HostError>) -> Result<bool, HostError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.not_found() => Ok(true),
        Err(error) if error.errno() == Some(Errno::EBUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes chains and sets that are there and that nobody uses, in the transaction that `batch` begins, and the table when
/// it has nothing else. Chains that lead to others come first.
///
/// The caller has looked: a refused transaction makes the kernel wait for a grace period. It decides nothing, for the
/// kernel itself refuses to delete a set that has got an element meanwhile.
///
/// # Errors
/// What the kernel says.
pub fn delete_unused<'a>(
    nft: &mut Nft,
    mut batch: Batch,
    chains: impl IntoIterator<Item = &'a str>,
    sets: impl IntoIterator<Item = &'a str>,
) -> Result<(), HostError> {
    for chain in chains {
        batch.delete_chain(TABLE.object(chain));
    }
    for set in sets {
        batch.delete_empty_set(TABLE.object(set));
    }
    match unless_in_use(nft.commit(batch))? {
        true => delete_if_empty(nft),
        false => Ok(()),
    }
}
