//! What was counted meanwhile where no rule reports: packets that links and the IP layer dropped, rules of iptables-legacy.
//! Everybody's packets are counted, so it is a hint.

use std::collections::BTreeMap;
use std::fs;

use serde::Serialize;

use super::links::Links;
use crate::host::iptables::{LOCK_WAIT, legacy_command};

/// What counters of rules of iptables-legacy are of.
pub(super) const LEGACY: &str = "iptables-legacy";

/// A counter that has risen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Counted {
    /// The link, `IP`, `connection tracking`, or `iptables-legacy`.
    pub(crate) of: String,
    /// What it counts.
    pub(crate) what: String,
    /// By how much it has risen.
    pub(crate) by: u64,
}

/// All counters at one moment, by whose they are and what they count.
pub(super) struct Counts(BTreeMap<(String, String), u64>);

/// Files of /proc/net with a line of names and one of values for each group, and what of them drops packets.
const GROUPED: [(&str, &[&str]); 2] = [
    (
        "snmp",
        &[
            "Ip:InHdrErrors",
            "Ip:InAddrErrors",
            "Ip:InDiscards",
            "Ip:OutDiscards",
            "Ip:OutNoRoutes",
            "Ip:FragFails",
        ],
    ),
    (
        "netstat",
        &[
            "TcpExt:IPReversePathFilter",
            "IpExt:InNoRoutes",
            "IpExt:InTruncatedPkts",
            "IpExt:InCsumErrors",
        ],
    ),
];

/// The same of IPv6, a line for each counter.
const SIX: [&str; 8] = [
    "Ip6InHdrErrors",
    "Ip6InTooBigErrors",
    "Ip6InNoRoutes",
    "Ip6InAddrErrors",
    "Ip6InDiscards",
    "Ip6OutDiscards",
    "Ip6OutNoRoutes",
    "Ip6FragFails",
];

impl Counts {
    /// Reads the counters of these links, of the IP layer, and of the tables of iptables-legacy, `filter` or `nat (ip6)`.
    pub(super) fn take(links: &Links, which: &[u32], legacy: &[String]) -> Self {
        let mut all = BTreeMap::new();
        let mut put = |of: &str, what: &str, value: u64| {
            all.insert((of.to_owned(), what.to_owned()), value);
        };
        for index in which {
            let Ok(Some(counters)) = links.rtnl.counters(*index) else {
                continue;
            };
            let name = links.name(*index);
            for (what, value) in [
                ("dropped on receipt", counters.receive_drops),
                ("dropped on sending", counters.transmit_drops),
                ("bad on receipt", counters.receive_errors),
                ("not sent for an error", counters.transmit_errors),
            ] {
                put(&name, what, value);
            }
        }
        let read = |file: &str| {
            fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default()
        };
        for (file, wanted) in GROUPED {
            for (name, value) in grouped(&read(file)) {
                if wanted.contains(&name.as_str()) {
                    put("IP", name.rsplit(':').next().unwrap_or(&name), value);
                }
            }
        }
        for line in read("snmp6").lines() {
            let mut words = line.split_whitespace();
            if let (Some(name), Some(value)) = (words.next(), words.next())
                && SIX.contains(&name)
            {
                put("IP", name, value.parse().unwrap_or(0));
            }
        }
        for (name, value) in of_conntrack(&read("stat/nf_conntrack")) {
            put("connection tracking", name, value);
        }
        for table in legacy {
            for (rule, value) in of_legacy(table) {
                put(LEGACY, &rule, value);
            }
        }
        Self(all)
    }

    /// What has risen since.
    pub(super) fn since(&self, before: &Self) -> Vec<Counted> {
        let risen = self.0.iter().filter_map(|(key, value)| {
            let by = value.checked_sub(*before.0.get(key)?)?;
            let (of, what) = key.clone();
            (by > 0).then_some(Counted { of, what, by })
        });
        risen.collect()
    }
}

/// Pairs of `GROUP:NAME` and value.
fn grouped(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for pair in lines.chunks(2) {
        let [names, values] = pair else { continue };
        let (mut names, mut values) = (names.split_whitespace(), values.split_whitespace());
        let (Some(group), Some(_)) = (names.next(), values.next()) else {
            continue;
        };
        let both = names.zip(values);
        found.extend(
            both.map(|(name, value)| (format!("{group}{name}"), value.parse().unwrap_or(0))),
        );
    }
    found
}

/// A line of names, and one of values in hexadecimal for each processor.
fn of_conntrack(text: &str) -> Vec<(&'static str, u64)> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap_or("").split_whitespace().collect();
    let rows: Vec<Vec<&str>> = lines.map(|it| it.split_whitespace().collect()).collect();
    let sum = |wanted: &&str| {
        let at = names.iter().position(|name| name == wanted)?;
        let values = rows
            .iter()
            .filter_map(|row| u64::from_str_radix(row.get(at)?, 16).ok());
        Some(values.sum())
    };
    ["drop", "early_drop", "insert_failed"]
        .into_iter()
        .filter_map(|name| Some((name, sum(&name)?)))
        .collect()
}

/// Rules and policies of a table that drop or reject, with how many packets they have met.
fn of_legacy(table: &str) -> Vec<(String, u64)> {
    let (table, v6) = match table.strip_suffix(" (ip6)") {
        Some(table) => (table, true),
        None => (table, false),
    };
    let arguments = ["-t", table, "-S", "-v", LOCK_WAIT[0], LOCK_WAIT[1]];
    let output = legacy_command(v6).run("count what rules drop", arguments, "");
    let text = output.unwrap_or_default();
    let family = if v6 { " (ip6)" } else { "" };
    let drops = |rule: &str| {
        let target = rule.rsplit_once("-j ").map(|(_, target)| target);
        target.is_some_and(|it| it.starts_with("DROP") || it.starts_with("REJECT"))
            || (rule.starts_with("-P ") && rule.contains(" DROP"))
    };
    let rules = text.lines().filter(|line| drops(line));
    let split = rules.filter_map(|line| {
        let (rule, counters) = line.split_once(" -c ")?;
        let mut words = counters.split(' ');
        let packets = words.next()?.parse().ok()?;
        // Behind the counters of a rule comes its target.
        let rest: Vec<&str> = words.skip(1).collect();
        let rule = format!("{table}{family}: {rule} {}", rest.join(" "));
        Some((rule.trim_end().to_owned(), packets))
    });
    split.collect()
}

impl Counted {
    pub(super) fn text(&self) -> String {
        format!("{}: {} +{}", self.of, self.what, self.by)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_by_their_names_and_compared() {
        let text = "Ip: Forwarding InHdrErrors\nIp: 1 7\nTcp: A B\nTcp: 3 -1\n";
        let found = grouped(text);
        assert!(found.contains(&("Ip:InHdrErrors".into(), 7)), "{found:?}");
        let text = "entries  drop insert_failed\n00000001 0000000a 0\n00000001 00000001 00000002\n";
        assert_eq!(of_conntrack(text), [("drop", 11), ("insert_failed", 2)]);
        let counts = |value| {
            Counts(BTreeMap::from([(
                ("IP".to_owned(), "Ip:FragFails".to_owned()),
                value,
            )]))
        };
        assert_eq!(counts(3).since(&counts(3)), []);
        assert_eq!(counts(5).since(&counts(3))[0].text(), "IP: Ip:FragFails +2");
        assert_eq!(counts(1).since(&counts(3)), []);
    }
}
