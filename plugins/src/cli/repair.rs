//! `trestle repair`: puts back now what the next ADD would, and more.
//!
//! Each living attachment that the runtime's cache knows is checked as the verb CHECK does it, and the plugin that finds
//! something missing on the host puts it back. Containers come and go meanwhile: what belongs to one that is gone by then
//! is removed again, by the same rules by which ADD restores what others have flushed.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use cni_conf::dispatch;
use cni_conf::request::{Attachment, Call, Request};

use super::CliError;
use crate::explain::calls;
use crate::explain::directories::{Directories, own_bin_dir};
use crate::explain::list::{ListError, ListFile, Network};
use crate::explain::report::plain;
use crate::explain::state;
use crate::explain::survey::{Attached, Survey};
use crate::owner::Owner;
use crate::registry::{self, BuiltIn};

#[derive(Args)]
pub(super) struct RepairArgs {
    /// The network's configuration, a .conf or .conflist in /etc/cni/net.d
    #[arg(long, value_name = "FILE", required_unless_present = "all")]
    conf: Option<PathBuf>,
    /// Every network of --conf-dir
    #[arg(long, conflicts_with = "conf")]
    all: bool,
    /// Only say what is missing
    #[arg(long)]
    dry_run: bool,
    /// Directory of the network configurations, for --all
    #[arg(long, value_name = "DIR", default_value = "/etc/cni/net.d")]
    conf_dir: PathBuf,
    /// Directory in which the runtime's CNI library keeps its cache
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni")]
    cache_dir: PathBuf,
    /// Directory of the plugins; that of this program unless given
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

/// What became of an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Fine,
    Repaired,
    /// Something is missing still.
    Broken,
}

pub(super) fn repair(args: &RepairArgs, out: &mut impl Write) -> Result<ExitCode, CliError> {
    let own = || own_bin_dir().unwrap_or_default();
    let bin_dir = args.bin_dir.clone().unwrap_or_else(own);
    let (files, conf_dir) = match &args.conf {
        Some(conf) => {
            let dir = conf.parent().map(PathBuf::from).unwrap_or_default();
            (vec![ListFile::read(conf, &bin_dir)], dir)
        }
        None => {
            let files = crate::explain::list::read_dir(&args.conf_dir, &bin_dir);
            let files = files.map_err(|problem| ListError {
                path: args.conf_dir.clone(),
                problem,
            })?;
            (files, args.conf_dir.clone())
        }
    };
    let survey = Survey::take(&Directories {
        conf_dir,
        bin_dir,
        cache_dir: args.cache_dir.clone(),
        network: None,
    });
    let mut broken = false;
    let mut errors = Vec::new();
    let mut seen = BTreeSet::new();
    for file in files {
        match file.network {
            Ok(network) if seen.insert(network.name.clone()) => {
                broken |= repair_network(args, &survey, &network, out)?;
            }
            Ok(_) => {}
            Err(problem) => errors.push(CliError::from(ListError {
                path: file.path,
                problem,
            })),
        }
    }
    match errors.is_empty() {
        true => Ok(ExitCode::from(u8::from(broken))),
        false => Err(CliError::Several(errors)),
    }
}

/// Whether anything is still missing in the end.
fn repair_network(
    args: &RepairArgs,
    survey: &Survey,
    network: &Network,
    out: &mut impl Write,
) -> Result<bool, CliError> {
    let (mut fine, mut repaired, mut broken) = (0, 0, 0);
    for (owner, attached) in survey.living(&network.name) {
        match repair_attachment(args, network, owner, attached, out)? {
            Outcome::Fine => fine += 1,
            Outcome::Repaired => repaired += 1,
            Outcome::Broken => broken += 1,
        }
    }
    let did = if args.dry_run {
        "to repair"
    } else {
        "repaired"
    };
    let (repaired, broken) = match args.dry_run {
        true => (repaired + broken, 0),
        false => (repaired, broken),
    };
    writeln!(
        out,
        "network {}: {fine} attachments fine, {repaired} {did}, {broken} broken",
        network.name
    )?;
    Ok(broken > 0)
}

fn repair_attachment(
    args: &RepairArgs,
    network: &Network,
    owner: &Owner,
    attached: &Attached,
    out: &mut impl Write,
) -> Result<Outcome, CliError> {
    let mut outcome = Outcome::Fine;
    for member in &network.members {
        let (Some(built_in), Some((request, attachment))) =
            (member.built_in, calls::of(member, owner, attached))
        else {
            continue;
        };
        let Some(missing) = check(built_in, &request, &attachment) else {
            continue;
        };
        let whose = format!("container {}, interface {}", owner.container, owner.ifname);
        writeln!(out, "{whose}: {}: {}", built_in.name, plain(&missing))?;
        let (now, said) = match args.dry_run {
            true => (Outcome::Broken, None),
            false => restore(built_in, &request, &attachment),
        };
        if let Some(said) = said {
            writeln!(out, "  {}", plain(&said))?;
        }
        outcome = match (outcome, now) {
            (Outcome::Broken, _) | (_, Outcome::Broken) => Outcome::Broken,
            _ => Outcome::Repaired,
        };
    }
    // One that goes meanwhile lacks this and that.
    let gone = outcome == Outcome::Broken && !is_there(attached);
    Ok(if gone { Outcome::Fine } else { outcome })
}

/// Whether the runtime still knows an attachment, and its namespace is there.
fn is_there(attached: &Attached) -> bool {
    let known = attached.cached.as_ref().is_some_and(|it| it.path.exists());
    known && state::netns(attached).is_some()
}

/// What CHECK finds missing.
fn check(built_in: BuiltIn, request: &Request, attachment: &Attachment) -> Option<String> {
    let check = Call::Check(attachment.clone());
    let error = dispatch::call(built_in.plugin, request, &check).err()?;
    Some(error.msg)
}

fn restore(
    built_in: BuiltIn,
    request: &Request,
    attachment: &Attachment,
) -> (Outcome, Option<String>) {
    let repaired = match registry::repair(built_in.name, request, attachment) {
        None => return (Outcome::Broken, Some("start the container anew".into())),
        Some(repaired) => repaired,
    };
    if let Err(error) = repaired {
        return (
            Outcome::Broken,
            Some(format!("could not put it back: {error}")),
        );
    }
    match check(built_in, request, attachment) {
        None => (Outcome::Repaired, Some("put back".into())),
        Some(missing) => (Outcome::Broken, Some(format!("still missing: {missing}"))),
    }
}
