//! Programs that a network needs: its plugins, and what they run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::explain::list::Member;
use crate::explain::report::Finding;
use crate::explain::survey::{Observed, Survey};
use crate::host::iptables;
use crate::host::nft::ruleset::NFT;
use crate::host::program::Program;
use crate::registry;

/// The names of programs that a network's plugins are looked up by, IPAM plugins included.
fn names(member: &Member) -> Vec<String> {
    let ipam = member.request.conf["ipam"]["type"].as_str();
    let own = member.request.plugin.as_str();
    let mut names = vec![own.to_owned()];
    names.extend(
        ipam.filter(|name| !name.is_empty() && *name != own)
            .map(str::to_owned),
    );
    names
}

pub(super) fn plugin_missing(survey: &Survey) -> Observed<Vec<Finding>> {
    let dir = &survey.directories.bin_dir;
    fs::read_dir(dir).map_err(|error| format!("read {}: {error}", dir.display()))?;
    let mut findings = Vec::new();
    for network in &survey.networks {
        let members = survey.list(&network.name).map_or(&[][..], |it| &it.members);
        for name in members.iter().flat_map(names) {
            let path = dir.join(&name);
            if fs::metadata(&path).is_ok_and(|it| it.is_file() && it.mode() & 0o111 != 0) {
                continue;
            }
            let finding = Finding::fail(
                "plugin-missing",
                format!(
                    "network {} can't start a container: no plugin {name}",
                    network.name
                ),
            );
            let ours = registry::find(registry::ALL, &name).is_some();
            let finding = finding
                .of(&network.name)
                .seen(format!("{} names {name:?}", network.path.display()))
                .seen(format!("{} is no program", path.display()));
            findings.push(match ours {
                true => finding
                    .because("trestle has it, but it is not installed there")
                    .remedy("install trestle's plugins")
                    .command(format!("trestle install --bin-dir {}", dir.display())),
                false => finding
                    .because("it is another project's plugin, and not installed there")
                    .remedy("install it, or correct \"type\" in the list"),
            });
        }
    }
    Ok(findings)
}

/// What a plugin's file is.
enum Kind {
    Own,
    /// Another trestle.
    Other,
    /// Somebody else's.
    Foreign,
}

pub(super) fn plugin_foreign(survey: &Survey) -> Observed<Vec<Finding>> {
    let dir = &survey.directories.bin_dir;
    let mut judged = BTreeMap::new();
    let (mut other, mut foreign) = (Vec::new(), Vec::new());
    for network in &survey.networks {
        let members = survey.list(&network.name).map_or(&[][..], |it| &it.members);
        let ours = members
            .iter()
            .flat_map(names)
            .filter(|name| registry::find(registry::ALL, name).is_some());
        for name in ours {
            let path = dir.join(&name);
            let Ok(found) = fs::metadata(&path) else {
                continue;
            };
            let file = (found.dev(), found.ino());
            let kind = judged.entry(file).or_insert_with(|| judge(&path));
            let seen = path.display().to_string();
            match kind {
                Kind::Own => {}
                Kind::Other if !other.contains(&seen) => other.push(seen),
                Kind::Foreign if !foreign.contains(&seen) => foreign.push(seen),
                _ => {}
            }
        }
    }
    let install = format!("trestle install --bin-dir {}", dir.display());
    let finding = |summary: &str, cause: &str, paths: Vec<String>| {
        Finding::warn("plugin-foreign", summary)
            .seen_all(paths)
            .because(cause)
            .remedy("install this trestle's plugins there, or run the trestle that is there")
            .command(install.clone())
    };
    let mut findings = Vec::new();
    if !other.is_empty() {
        findings.push(finding(
            "plugins are of another version than this trestle",
            "another release is installed there; what is told here may differ from what it does",
            other,
        ));
    }
    if !foreign.is_empty() {
        findings.push(finding(
            "plugins are not trestle's",
            "the plugin directory has another project's plugins of these names",
            foreign,
        ));
    }
    Ok(findings)
}

/// Whether a file is this very program, or one of its kind.
fn judge(path: &Path) -> Kind {
    let own = Path::new("/proc/self/exe");
    let same = |one: &fs::Metadata, other: &fs::Metadata| {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    };
    let (Ok(found), Ok(running)) = (fs::metadata(path), fs::metadata(own)) else {
        return Kind::Own;
    };
    if same(&found, &running) {
        return Kind::Own;
    }
    /// Larger than any release of ours, in bytes.
    const READ_MAX: u64 = 64 << 20;
    let read = |path: &Path| {
        let mut content = Vec::new();
        let file = File::open(path).ok()?;
        file.take(READ_MAX).read_to_end(&mut content).ok()?;
        Some(content)
    };
    let Some(content) = read(path) else {
        return Kind::Own;
    };
    if found.len() == running.len() && read(own).as_ref() == Some(&content) {
        return Kind::Own;
    }
    // What every plugin of ours says of itself when it is run by hand.
    let mark = b" of trestle ";
    match content.windows(mark.len()).any(|window| window == mark) {
        true => Kind::Other,
        false => Kind::Foreign,
    }
}

pub(super) fn program_missing(survey: &Survey) -> Observed<Vec<Finding>> {
    let mut needed: BTreeMap<&'static str, (Program, Vec<String>)> = BTreeMap::new();
    for network in &survey.networks {
        for member in survey.list(&network.name).map_or(&[][..], |it| &it.members) {
            for (program, key) in programs(member) {
                let why = format!("{}: {key}", network.path.display());
                let entry = needed.entry(program.name).or_insert((program, Vec::new()));
                entry.1.push(why);
            }
        }
    }
    let missing = needed.into_values().filter(|(it, _)| !it.is_installed());
    Ok(missing
        .map(|(program, why)| {
            let summary = format!("the program {} is needed and not installed", program.name);
            Finding::fail("program-missing", summary)
                .seen_all(why)
                .because("rules of the host's firewall are made by it")
                .remedy(program.remedy)
        })
        .collect())
}

/// What a plugin runs, and the key that says so.
fn programs(member: &Member) -> Vec<(Program, &'static str)> {
    let conf = &member.request.conf;
    let is = |key: &str, value: &str| conf[key].as_str() == Some(value);
    match member.request.plugin.as_str() {
        "bridge" | "ptp" if conf["ipMasq"] == true && is("ipMasqBackend", "iptables") => {
            vec![(
                iptables::command(false),
                "\"ipMasqBackend\" is \"iptables\"",
            )]
        }
        "bridge" | "ptp" if conf["ipMasq"] == true => vec![(NFT, "\"ipMasq\" is true")],
        "portmap" if is("backend", "iptables") => {
            vec![(
                iptables::command(false),
                "portmap's \"backend\" is \"iptables\"",
            )]
        }
        "portmap" => vec![(NFT, "portmap maps ports by nftables")],
        "firewall" if is("backend", "iptables") => {
            vec![(
                iptables::command(false),
                "firewall's \"backend\" is \"iptables\"",
            )]
        }
        "firewall" if is("backend", "nftables") => {
            vec![(NFT, "firewall's \"backend\" is \"nftables\"")]
        }
        _ => Vec::new(),
    }
}
