//! The checks of `trestle doctor`. Each looks at the survey for one kind of trouble; none changes anything.

mod bridge;
mod conntrack;
mod forward;
mod lists;
mod managed;
mod masquerade;
mod mtu;
mod pools;
mod programs;
mod routes;
mod rules;
mod services;

pub(crate) use self::masquerade::{is_between_nodes, is_ours};
use super::kernel;
use super::report::{Finding, Report, Skipped, count, fullness};
use super::survey::{Observed, Survey};

/// A check.
struct Check {
    id: &'static str,
    run: fn(&Survey) -> Observed<Vec<Finding>>,
}

macro_rules! checks {
    ($($id:literal => $run:path,)*) => { &[$(Check { id: $id, run: $run }),*] };
}

/// All of them, what stops everything first.
const ALL: &[Check] = checks! {
    "list-invalid" => lists::invalid,
    "key-unknown" => lists::unknown_key,
    "version-unsupported" => lists::version,
    "capability-missing" => lists::capability,
    "list-shadowed" => lists::shadowed,
    "plugin-missing" => programs::plugin_missing,
    "plugin-foreign" => programs::plugin_foreign,
    "program-missing" => programs::program_missing,
    "forwarding-off" => forward::forwarding_off,
    "forward-dropped" => forward::dropped,
    "iptables-mixed" => forward::mixed,
    "bridge-netfilter-missing" => services::module_missing,
    "bridge-netfilter-off" => services::bridge_netfilter_off,
    "hairpin-off" => services::hairpin_off,
    "promiscuous-no-hairpin" => services::promiscuous,
    "masquerade-missing" => masquerade::missing,
    "masquerade-between-nodes" => masquerade::between_nodes,
    "rules-missing" => rules::missing,
    "rules-foreign" => rules::foreign,
    "localhost-open" => rules::localhost_open,
    "route-missing" => routes::missing,
    "reverse-path-filter" => routes::reverse_path_filter,
    "next-hop-unreachable" => routes::next_hop,
    "subnet-overlap" => routes::overlap,
    "address-twice" => routes::twice,
    "pool-full" => pools::full,
    "pool-nearly-full" => pools::nearly_full,
    "addresses-leaked" => pools::leaked,
    "state-unreadable" => pools::unreadable,
    "bridge-address-foreign" => bridge::foreign_address,
    "port-down" => bridge::port_down,
    "vlan-missing" => bridge::vlan_missing,
    "bridge-nearly-full" => bridge::nearly_full,
    "mtu-mismatch" => mtu::mismatch,
    "managed-by-others" => managed::by_others,
    "conntrack-stale" => conntrack::stale,
    "conntrack-nearly-full" => conntrack::nearly_full,
    "neighbours-nearly-full" => conntrack::neighbours,
};

/// Runs them all.
pub(crate) fn run(survey: &Survey) -> Report {
    let mut report = Report {
        checks: ALL.len(),
        names: ALL.iter().map(|check| check.id).collect(),
        title: title(survey),
        last_failure: survey.failures.last.clone(),
        ..Report::default()
    };
    for check in ALL {
        match (check.run)(survey) {
            Ok(findings) => report.findings.extend(findings),
            Err(why) => report.skipped.push(Skipped {
                check: check.id,
                why,
            }),
        }
    }
    report.findings.sort_by_key(|finding| finding.severity);
    report
}

/// `node a1  kernel 6.1  networks: podnet (41 attachments, pool 41 of 253)`
fn title(survey: &Survey) -> String {
    let uname = nix::sys::utsname::uname();
    let node = uname.map(|it| it.nodename().to_string_lossy().into_owned());
    let networks = survey.networks.iter().map(|network| {
        let mut facts = vec![count(survey.living(&network.name).count(), "attachment")];
        facts.extend(
            network
                .pools
                .iter()
                .map(|pool| format!("pool {}", fullness(pool.used, pool.total))),
        );
        format!("{} ({})", network.name, facts.join(", "))
    });
    let networks: Vec<String> = networks.collect();
    let networks = match networks.is_empty() {
        true => "none".to_owned(),
        false => networks.join(", "),
    };
    format!(
        "node {}  kernel {}  networks: {networks}",
        node.unwrap_or_default(),
        kernel::release().0
    )
}
