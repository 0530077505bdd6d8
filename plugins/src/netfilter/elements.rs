//! Elements of sets and maps, whose comments say whose they are: put, removed and looked for by netlink.
//!
//! What comes and goes with a container is an element, so that neither a packet nor an ADD costs more when there are
//! many. The kernel takes all changes of a transaction or none, and refuses a key that is there. Between a look and a
//! change another process may have been quicker; then the answer says so and the caller looks again.

use std::borrow::Cow;

use super::table::{self, TABLE};
use crate::host::HostError;
use crate::host::lock;
use crate::host::nft::{Batch, Element, Family, Nft, ObjectRef, Refused, TableRef};

/// How often a change that another process crossed is tried again.
pub const ATTEMPTS: u32 = 20;

/// How many elements one transaction deletes, so that it fits into a socket's buffer.
const AT_ONCE: usize = 1000;

/// A set or map, by table and name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    family: Family,
    table: Cow<'static, str>,
    name: Cow<'static, str>,
}

impl Set {
    /// One of our own table.
    pub fn own(name: impl Into<Cow<'static, str>>) -> Self {
        Self {
            family: TABLE.family,
            table: Cow::Borrowed(TABLE.name),
            name: name.into(),
        }
    }

    /// One of somebody else's table.
    pub fn in_table(table: TableRef<'_>, name: String) -> Self {
        Self {
            family: table.family,
            table: Cow::Owned(table.name.to_owned()),
            name: Cow::Owned(name),
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// It, for netlink.
    pub fn object(&self) -> ObjectRef<'_> {
        let table = TableRef {
            family: self.family,
            name: &self.table,
        };
        table.object(&self.name)
    }
}

/// An element and the set that it is in.
pub type Placed = (Set, Element);

/// Whose an element is; nothing where it does not say.
pub fn comment(element: &Element) -> &str {
    element.comment.as_deref().unwrap_or_default()
}

/// What became of elements that were to be put into their sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// All are there.
    Done,
    /// A set is missing, or a chain that an element leads to. Nothing has changed.
    RulesMissing,
    /// One of the keys is somebody else's. Nothing has changed.
    Taken,
}

/// What is done about a key that somebody has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnTaken {
    /// Nothing: the answer is [`Put::Taken`].
    Refuse,
    /// The element takes its place. For addresses: IPAM gave it to this container, so whoever had it before is gone,
    /// and its DEL, late as it may be, must not find the element any more.
    Replace,
}

/// Puts elements into their sets in one transaction. Those of `shared` may be there already and keep their comment then.
///
/// # Errors
/// What else the kernel says, with the element that it is about.
pub fn put(
    nft: &mut Nft,
    shared: &[Placed],
    own: &[Placed],
    on_taken: OnTaken,
) -> Result<Put, Refused> {
    let mut batch = ensured(shared);
    for (set, element) in own {
        batch.add_elements(set.object(), std::slice::from_ref(element));
    }
    match (commit(nft, &batch)?, on_taken) {
        (Put::Taken, OnTaken::Replace) => replace(nft, shared, own),
        (outcome, _) => Ok(outcome),
    }
}

/// The same, with [`OnTaken::Replace`], where some keys are known to be taken. What is there already as it should be is part of the transaction,
/// too: it may go along with another container before it.
///
/// # Errors
/// As [`put`].
pub fn replace(nft: &mut Nft, shared: &[Placed], own: &[Placed]) -> Result<Put, Refused> {
    // It spares others of us a few attempts, so it may be out of reach.
    let _lock = lock::take();
    let mut present = Vec::with_capacity(own.len());
    for (set, element) in own {
        let found = nft.element(set.object(), element);
        present.push(found.map_err(|error| Refused {
            error,
            element: None,
        })?);
    }
    let mut batch = ensured(shared);
    let all = || own.iter().zip(&present);
    for ((set, element), found) in all() {
        if let Some(found) = found.as_ref().filter(|found| *found != element) {
            batch.delete_elements(set.object(), std::slice::from_ref(found));
        }
    }
    for ((set, element), found) in all() {
        let alone = std::slice::from_ref(element);
        match found.as_ref() == Some(element) {
            true => batch.ensure_elements(set.object(), alone),
            false => batch.add_elements(set.object(), alone),
        };
    }
    commit(nft, &batch)
}

fn ensured(shared: &[Placed]) -> Batch {
    let mut batch = Batch::new();
    for (set, element) in shared {
        batch.ensure_elements(set.object(), std::slice::from_ref(element));
    }
    batch
}

fn commit(nft: &mut Nft, batch: &Batch) -> Result<Put, Refused> {
    match nft.transact(batch) {
        Ok(()) => Ok(Put::Done),
        Err(refused) if refused.error.not_found() => Ok(Put::RulesMissing),
        Err(refused) if refused.error.already_exists() => Ok(Put::Taken),
        Err(refused) => Err(refused),
    }
}

/// The elements of a set or map; none where there is no such set.
///
/// # Errors
/// What the kernel says.
pub fn list(nft: &mut Nft, set: &Set) -> Result<Vec<Element>, HostError> {
    match nft.elements(set.object()) {
        Err(error) if error.not_found() => Ok(Vec::new()),
        outcome => outcome,
    }
}

/// Those of the elements that are not in their sets as they should be, each with what is there instead.
///
/// # Errors
/// What the kernel says.
pub fn missing<'a>(
    nft: &mut Nft,
    elements: &'a [Placed],
) -> Result<Vec<(&'a Placed, Option<Element>)>, HostError> {
    let mut missing = Vec::new();
    for placed in elements {
        let found = nft.element(placed.0.object(), &placed.1)?;
        if found.as_ref() != Some(&placed.1) {
            missing.push((placed, found));
        }
    }
    Ok(missing)
}

/// What was removed from a set.
#[derive(Debug)]
pub struct Removed {
    /// The elements.
    pub elements: Vec<Element>,
    /// Whether the set may have become of no use, by this removal or before. Whether it has, [`are_empty`] tells: of two
    /// containers that leave at once the one that looks later sees none left.
    pub may_be_last: bool,
}

/// Removes the elements of a set whose comment `goes` says so of. Without the set there are none.
///
/// # Errors
/// What the kernel says.
pub fn remove(nft: &mut Nft, set: &Set, goes: &dyn Fn(&str) -> bool) -> Result<Removed, HostError> {
    let (mut removed, mut attempt) = (Vec::new(), 0);
    loop {
        attempt += 1;
        let mut going = list(nft, set)?;
        let was_empty = going.is_empty();
        going.retain(|element| goes(comment(element)));
        match remove_these(nft, set, going, &mut removed) {
            Ok(()) => {
                let may_be_last = was_empty || !removed.is_empty();
                return Ok(Removed {
                    elements: removed,
                    may_be_last,
                });
            }
            // Another process removed one of them; look again which are left.
            Err(error) if error.not_found() && attempt < ATTEMPTS => {}
            Err(error) => return Err(error),
        }
    }
}

fn remove_these(
    nft: &mut Nft,
    set: &Set,
    mut elements: Vec<Element>,
    removed: &mut Vec<Element>,
) -> Result<(), HostError> {
    while !elements.is_empty() {
        let rest = elements.split_off(elements.len().min(AT_ONCE));
        let mut batch = Batch::new();
        batch.delete_elements(set.object(), &elements);
        nft.commit(batch)?;
        removed.append(&mut elements);
        elements = rest;
    }
    Ok(())
}

/// Removes elements one by one as far as they are there and unchanged.
///
/// # Errors
/// What the kernel says.
pub fn remove_unchanged(nft: &mut Nft, elements: &[Placed]) -> Result<(), HostError> {
    for (set, element) in elements {
        if nft.element(set.object(), element)?.as_ref() == Some(element) {
            let mut batch = Batch::new();
            batch.delete_elements(set.object(), std::slice::from_ref(element));
            table::unless_in_use(nft.commit(batch))?;
        }
    }
    Ok(())
}

/// Whether none of the sets has an element. One that does not exist has none.
///
/// # Errors
/// What the kernel says.
pub fn are_empty<'a>(
    nft: &mut Nft,
    sets: impl IntoIterator<Item = ObjectRef<'a>>,
) -> Result<bool, HostError> {
    for set in sets {
        match nft.is_empty(set) {
            Ok(true) => {}
            Err(error) if error.not_found() => {}
            outcome => return outcome,
        }
    }
    Ok(true)
}
