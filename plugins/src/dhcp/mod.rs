//! The `dhcp` plugin: addresses of a server on the network outside.
//!
//! A lease has to be extended for as long as the container lives, and a plugin is there for milliseconds. So the plugin only
//! asks [`daemon`], which is this binary too, and which holds the leases.

mod ask;
mod conf;
pub mod daemon;
mod frame;
mod lease;
pub mod list;
mod machine;
mod message;
mod names;
mod options;
mod protocol;
mod store;

use std::io;

use cni_conf::diagnostics::warn;
use cni_conf::dispatch::Plugin;
use cni_conf::error::{Code, Error};
use cni_conf::request::{Attachment, AttachmentId, Request};
use cni_conf::result::CniResult;

use self::ask::{Trouble, ask};
use self::conf::Settings;
use self::protocol::{Verb, Who};
use self::store::Store;
use crate::attach::check::failed;
use crate::owner::Owner;

/// The plugin.
pub struct Dhcp;

/// Reads the configuration and nothing else.
pub(crate) fn parse_conf(request: &Request, attachment: &Attachment) -> Result<(), Error> {
    Settings::read(request, Some(&attachment.args)).map(drop)
}

impl Plugin for Dhcp {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let settings = Settings::read(request, Some(&attachment.args))?;
        let verb = Verb::Add {
            who: Who::from(&attachment.id()),
            netns: attachment.netns()?.to_owned(),
            wishes: settings.wishes,
        };
        Ok(ask(&settings.socket, &request.network, verb)?)
    }

    fn del(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let who = Who::from(&attachment.id());
        let owner = who.owner(&request.network);
        let verb = Verb::Del { who };
        without_daemon(request, verb, |store| store.remove(&owner))
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let settings = Settings::read(request, Some(&attachment.args))?;
        let verb = Verb::Check {
            who: Who::from(&attachment.id()),
        };
        let held = ask(&settings.socket, &request.network, verb)?;
        let known = request.prev_result.iter().flat_map(|result| &result.ips);
        let known: Vec<_> = known.map(|ip| ip.address).collect();
        match held.ips.iter().find(|ip| !known.contains(&ip.address)) {
            None => Ok(()),
            Some(ip) => Err(failed(format!(
                "the lease of {} is of {}, which is not in prevResult",
                attachment.ifname, ip.address
            ))),
        }
    }

    fn gc(&self, request: &Request, valid: &[AttachmentId]) -> Result<(), Error> {
        let keep: Vec<Owner> = valid
            .iter()
            .map(|id| Owner::new(&request.network, id))
            .collect();
        let verb = Verb::Gc {
            valid: valid.iter().map(Who::from).collect(),
        };
        without_daemon(request, verb, |store| {
            let (records, _) = store.load()?;
            let owners = records.iter().map(store::Record::owner);
            let mut dead =
                owners.filter(|owner| owner.network == request.network && !keep.contains(owner));
            dead.try_for_each(|owner| store.remove(&owner))
        })
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        let settings = Settings::read(request, None)?;
        let answer = ask(&settings.socket, &request.network, Verb::Status);
        answer.map(drop).map_err(|trouble| Error {
            code: Code::NotAvailable,
            ..trouble.into()
        })
    }
}

/// What takes leases back. Where no daemon runs nobody extends them, and they end by themselves: then it is enough that none
/// that is started goes on with them.
fn without_daemon(
    request: &Request,
    verb: Verb,
    forget: impl FnOnce(&Store) -> io::Result<()>,
) -> Result<(), Error> {
    let socket = conf::socket(request);
    let absent = match ask(&socket, &request.network, verb.clone()) {
        Ok(_) => return Ok(()),
        Err(Trouble::Absent(error)) => error,
        Err(Trouble::Other(error)) => return Err(error),
    };
    warn(format_args!(
        "{absent}; the server is not told, and keeps the address until the lease ends"
    ));
    let forgotten = forget(&Store::at(store::DIR)).map_err(|error| {
        Error::new(
            Code::Io,
            format!("forget leases in {}: {error}", store::DIR),
        )
    });
    // One that was started meanwhile may have read the file before it went.
    match ask(&socket, &request.network, verb) {
        Err(Trouble::Absent(_)) => forgotten,
        outcome => Ok(outcome.map(drop)?),
    }
}
