//! Addresses: how many there are left, and who holds them.

use crate::explain::report::{Finding, count, number};
use crate::explain::survey::{Observed, Pool, Survey, View};

/// From which share on a pool is nearly full, in percent.
const NEARLY: u128 = 90;

fn of(survey: &Survey, is: fn(&Pool) -> bool) -> impl Iterator<Item = (&View, &Pool)> {
    let pools = survey
        .networks
        .iter()
        .flat_map(|network| network.pools.iter().map(move |pool| (network, pool)));
    pools.filter(move |(_, pool)| is(pool))
}

fn told(finding: Finding, network: &View, pool: &Pool, survey: &Survey) -> Finding {
    let gone = survey
        .of(&network.name)
        .filter(|(_, it)| it.gone().is_some() && !it.held.is_empty());
    let gone: usize = gone.map(|(_, it)| it.held.len()).sum();
    let finding = finding.of(&network.name).seen(format!(
        "{}: {} of {} addresses are held",
        pool.ranges,
        number(pool.used),
        number(pool.total)
    ));
    match gone {
        0 => finding
            .because("there are as many containers as that")
            .remedy(format!(
                "make the range larger, or add another one, in {}",
                network.path.display()
            )),
        gone => finding
            .seen(format!(
                "{} of containers that are gone",
                count(gone, "address")
            ))
            .because("containers went without DEL")
            .remedy("collect what is left of them")
            .command(format!("trestle gc --conf {}", network.path.display())),
    }
}

pub(super) fn full(survey: &Survey) -> Observed<Vec<Finding>> {
    let full = of(survey, |pool| pool.used >= pool.total);
    Ok(full
        .map(|(network, pool)| {
            let summary = format!("network {} has no address left", network.name);
            told(Finding::fail("pool-full", summary), network, pool, survey)
        })
        .collect())
}

pub(super) fn nearly_full(survey: &Survey) -> Observed<Vec<Finding>> {
    let nearly = of(survey, |pool| {
        // A small pool is always nearly full.
        pool.used < pool.total && pool.total >= 10 && pool.used * 100 >= pool.total * NEARLY
    });
    Ok(nearly
        .map(|(network, pool)| {
            let left = number(pool.total - pool.used);
            let summary = format!("network {} has {left} addresses left", network.name);
            told(
                Finding::warn("pool-nearly-full", summary),
                network,
                pool,
                survey,
            )
        })
        .collect())
}

pub(super) fn leaked(survey: &Survey) -> Observed<Vec<Finding>> {
    let mut findings = Vec::new();
    for network in &survey.networks {
        let gone: Vec<String> = survey
            .of(&network.name)
            .filter(|(_, it)| !it.held.is_empty())
            .filter_map(|(owner, it)| {
                let addresses: Vec<String> = it.held.iter().map(ToString::to_string).collect();
                Some(format!(
                    "{}: container {}, {}",
                    addresses.join(", "),
                    owner.container,
                    it.gone()?
                ))
            })
            .collect();
        if gone.is_empty() {
            continue;
        }
        let summary = format!(
            "containers that are gone hold addresses of {}",
            network.name
        );
        findings.push(
            Finding::warn("addresses-leaked", summary)
                .of(&network.name)
                .seen(count(gone.len(), "container"))
                .seen_all(gone)
                .because("they went without DEL: the runtime was killed, or the machine lost power")
                .remedy(
                    "collect what is left of them; an ADD that finds no free address does so too",
                )
                .command(format!("trestle gc --conf {}", network.path.display())),
        );
    }
    Ok(findings)
}

pub(super) fn unreadable(survey: &Survey) -> Observed<Vec<Finding>> {
    let mut findings = Vec::new();
    for network in &survey.networks {
        let summary = format!("the state of network {} can't be read", network.name);
        match &network.state {
            Err(problem) => findings.push(
                Finding::fail("state-unreadable", summary)
                    .of(&network.name)
                    .seen(problem.clone())
                    .because("ADD and DEL can't read it either")
                    .remedy("correct \"dataDir\" or the directory"),
            ),
            Ok(state) if !state.unreadable.is_empty() => {
                let directory = state.directory.clone().unwrap_or_default();
                let files = state
                    .unreadable
                    .iter()
                    .map(|it| directory.join(it.to_string()).display().to_string());
                findings.push(
                    Finding::warn("state-unreadable", summary)
                        .of(&network.name)
                        .seen_all(files)
                        .because("the files name no container, so their addresses are never given out again")
                        .remedy("remove the files, if no container has the addresses"),
                );
            }
            Ok(_) => {}
        }
    }
    let cache = survey.unreadable.as_ref().map_err(Clone::clone)?;
    let concerned = cache.iter().filter(|(path, _)| {
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        survey
            .directories
            .network
            .as_ref()
            .is_none_or(|network| name.starts_with(&format!("{network}-")))
    });
    let files: Vec<String> = concerned
        .map(|(path, why)| format!("{}: {why}", path.display()))
        .collect();
    if !files.is_empty() {
        findings.push(
            Finding::warn("state-unreadable", "files of the runtime's cache are no entries")
                .seen(count(files.len(), "file"))
                .seen_all(files)
                .because("they were cut short or written by somebody else; the runtime can't tell DEL and CHECK what ADD said")
                .remedy("remove them once their containers are gone"),
        );
    }
    Ok(findings)
}
