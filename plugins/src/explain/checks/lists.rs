//! What is wrong with the network lists themselves.

use std::collections::BTreeMap;
use std::path::PathBuf;

use cni_conf::version::SpecVersion;

use crate::explain::lint;
use crate::explain::list::ListFile;
use crate::explain::report::{Finding, Severity};
use crate::explain::survey::{Observed, Survey};
use crate::host::program::Program;

pub(super) fn invalid(survey: &Survey) -> Observed<Vec<Finding>> {
    let mut findings = flaws(survey, "list-invalid")?;
    for file in files(survey)? {
        let Err(problem) = &file.network else {
            continue;
        };
        let told = lint::flaws(&file.text)
            .iter()
            .any(|it| it.severity == Severity::Fail);
        if told && !file.text.is_empty() {
            continue;
        }
        let name = file.path.display();
        findings.push(
            Finding::fail("list-invalid", format!("{name} can't be used"))
                .seen(format!("{name}: {problem}"))
                .because("runtimes pass over such a file, or start no container")
                .remedy("correct the file, or move it elsewhere"),
        );
    }
    Ok(findings)
}

pub(super) fn unknown_key(survey: &Survey) -> Observed<Vec<Finding>> {
    flaws(survey, "key-unknown")
}

pub(super) fn capability(survey: &Survey) -> Observed<Vec<Finding>> {
    flaws(survey, "capability-missing")
}

/// Files to look at: all, or those of the network that was asked for.
fn files(survey: &Survey) -> Observed<impl Iterator<Item = &ListFile>> {
    let wanted = |file: &&ListFile| match &file.network {
        Ok(network) => survey.directories.selects(network.name.as_str()),
        Err(_) => survey.directories.network.is_none(),
    };
    Ok(survey.lists()?.iter().filter(wanted))
}

fn flaws(survey: &Survey, id: &'static str) -> Observed<Vec<Finding>> {
    let mut findings = Vec::new();
    for file in files(survey)?.filter(|file| !file.text.is_empty()) {
        for flaw in lint::flaws(&file.text)
            .into_iter()
            .filter(|flaw| flaw.id == id)
        {
            let (line, column) = flaw.place;
            let place = format!("{}:{line}:{column}", file.path.display());
            let summary = match id {
                "list-invalid" => "a network list is wrong: no container can use it",
                "version-unsupported" => "a network list is of a version that is not spoken here",
                "key-unknown" => "a key in a network list has no effect",
                _ => "a plugin is not told what it is for",
            };
            let finding = match flaw.severity {
                Severity::Fail => Finding::fail(id, summary),
                Severity::Warn => Finding::warn(id, summary),
            };
            let finding = finding
                .seen(format!("{place}: {}", flaw.problem))
                .because("the list says so")
                .remedy(flaw.remedy);
            findings.push(match &file.network {
                Ok(network) => finding.of(&network.name),
                Err(_) => finding,
            });
        }
    }
    Ok(findings)
}

/// Runtimes that read no list of the newest version.
const OLD_RUNTIMES: [(Program, &str); 2] = [
    (
        Program {
            name: "containerd",
            remedy: "",
        },
        "1",
    ),
    (
        Program {
            name: "podman",
            remedy: "",
        },
        "4",
    ),
];

pub(super) fn version(survey: &Survey) -> Observed<Vec<Finding>> {
    let mut findings = flaws(survey, "version-unsupported")?;
    let newest: Vec<&ListFile> = files(survey)?
        .filter(|file| {
            let network = file.network.as_ref();
            network.is_ok_and(|it| it.version == SpecVersion::V1_1_0)
        })
        .collect();
    if newest.is_empty() {
        return Ok(findings);
    }
    for (runtime, old) in OLD_RUNTIMES {
        let Ok(said) = runtime.run("ask for its version", ["--version"], "") else {
            continue;
        };
        let Some(version) = version_in(&said) else {
            continue;
        };
        if version.split('.').next() != Some(old) {
            continue;
        }
        let summary = format!("{} can't read a network list", runtime.name);
        findings.push(
            Finding::fail("version-unsupported", summary)
                .seen(format!("{} is {version}", runtime.name))
                .seen_all(newest.iter().map(|file| {
                    format!("{}: \"cniVersion\" is 1.1.0", file.path.display())
                }))
                .because(format!(
                    "{} {old} reads network lists up to version 1.0.0",
                    runtime.name
                ))
                .remedy("write \"cniVersion\": \"1.0.0\", \"cniVersions\": [\"1.0.0\", \"1.1.0\"] instead"),
        );
    }
    Ok(findings)
}

/// The first word that is a number with dots, without a `v` in front.
fn version_in(text: &str) -> Option<String> {
    let word = text.split_whitespace().find_map(|word| {
        let word = word.strip_prefix('v').unwrap_or(word);
        let begins = word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.');
        begins.then_some(word)
    })?;
    let end = word.find(|c: char| !c.is_ascii_digit() && c != '.');
    Some(word[..end.unwrap_or(word.len())].to_owned())
}

pub(super) fn shadowed(survey: &Survey) -> Observed<Vec<Finding>> {
    let mut by_name: BTreeMap<&str, Vec<&PathBuf>> = BTreeMap::new();
    for file in files(survey)? {
        if let Ok(network) = &file.network {
            by_name
                .entry(network.name.as_str())
                .or_default()
                .push(&file.path);
        }
    }
    let several = by_name.into_iter().filter(|(_, paths)| paths.len() > 1);
    Ok(several
        .map(|(name, paths)| {
            let first = paths[0].display();
            Finding::warn("list-shadowed", format!("network {name} has several lists"))
                .of(name)
                .seen(format!("{first} comes first"))
                .seen_all(
                    paths[1..]
                        .iter()
                        .map(|path| format!("{} is not used", path.display())),
                )
                .because("runtimes take the first list of a name, in the order of the files' names")
                .remedy("remove the others, or move them to another directory")
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_runtimes_say() {
        for (said, version) in [
            (
                "containerd github.com/containerd/containerd v1.6.20~ds1 1.6.20~ds1-1+b1",
                "1.6.20",
            ),
            ("containerd containerd.io 1.7.24 88bf19b", "1.7.24"),
            ("podman version 4.3.1", "4.3.1"),
        ] {
            assert_eq!(version_in(said).as_deref(), Some(version));
        }
        assert_eq!(version_in("nothing"), None);
    }
}
