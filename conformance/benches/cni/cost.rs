//! Costs that are counted, not timed: system calls, netlink messages, children, memory, size.

use std::fs;
use std::path::Path;

use crate::process::Call;
use crate::report::{Row, section};
use crate::stats::Summary;
use crate::subject::{Implementation, Kind, Network, Subject};
use crate::trace::{Trace, unavailable, wrapper};

const TRACE: &str = "/run/bench.trace";

/// Counts of one ADD and one DEL in the steady state, a container having been attached before.
pub(crate) fn count(subject: &Subject, kind: Kind, peak_rss: &Path) -> Result<Vec<Row>, String> {
    if let Some(reason) = unavailable() {
        return Err(reason);
    }
    let network = Network::new(subject, kind)?;
    let pod = network.host.pod("counted");
    let mut rows = Vec::new();
    let mut note = |verb: &str, metric: &str, value: f64| {
        rows.push(Row {
            section: section::COSTS,
            case: kind.name().to_owned(),
            metric: format!("{verb}: {metric}"),
            unit: if metric == "peak memory" { "KiB" } else { "" },
            subject: subject.who.name(),
            summary: Summary::exactly(value),
        });
    };
    network.host.enter(|| {
        let (mut add, mut del) = (Vec::new(), Vec::new());
        let attached = network.add("traced", &pod, &mut |call| traced(call, &mut add))?;
        network.del(&attached, &mut |call| traced(call, &mut del))?;
        for (verb, traces) in [("ADD", &add), ("DEL", &del)] {
            let sum = |of: fn(&Trace) -> usize| traces.iter().map(of).sum::<usize>() as f64;
            note(verb, "system calls", sum(Trace::total));
            note(
                verb,
                "netlink messages",
                sum(|trace| trace.netlink_messages),
            );
            note(verb, "child processes", sum(|trace| trace.children));
            note(verb, "threads", sum(|trace| trace.threads));
        }
        let (mut add, mut del) = (0.0, 0.0);
        let attached = network.add("weighed", &pod, &mut |call| {
            weighed(call, peak_rss, &mut add)
        })?;
        network.del(&attached, &mut |call| weighed(call, peak_rss, &mut del))?;
        note("ADD", "peak memory", add);
        note("DEL", "peak memory", del);
        Ok::<_, String>(())
    })?;
    Ok(rows)
}

fn traced(mut call: Call, traces: &mut Vec<Trace>) -> Result<crate::process::Done, String> {
    let words = wrapper(TRACE).into_iter().map(Into::into);
    call.command = words.chain(call.command).collect();
    let done = call.run()?;
    let text = fs::read(TRACE).map_err(|error| format!("read the trace: {error}"))?;
    traces.push(Trace::parse(&String::from_utf8_lossy(&text)));
    Ok(done)
}

/// The most that any one process of the verb held, in KiB.
fn weighed(
    mut call: Call,
    peak_rss: &Path,
    most: &mut f64,
) -> Result<crate::process::Done, String> {
    call.command.insert(0, peak_rss.to_owned());
    let done = call.run()?;
    let said = done
        .stderr
        .lines()
        .rev()
        .find_map(|line| line.strip_prefix("peak-rss "));
    let peak: f64 = said
        .and_then(|text| text.parse().ok())
        .ok_or("peak-rss said nothing")?;
    *most = most.max(peak);
    Ok(done)
}

/// What has to lie on disk for these networks, in MB.
pub(crate) fn size(subject: &Subject) -> Option<Row> {
    let files: Vec<_> = match subject.who {
        Implementation::Floor => vec![subject.bin.clone()],
        // All names are links to one file.
        Implementation::Trestle => vec![subject.bin.join("bridge")],
        Implementation::Go => ["bridge", "ptp", "host-local", "loopback", "portmap"]
            .map(|name| subject.bin.join(name))
            .to_vec(),
    };
    let sizes = files
        .iter()
        .map(|file| fs::metadata(file).map(|meta| meta.len()));
    let bytes: u64 = sizes.sum::<Result<_, _>>().ok()?;
    Some(Row {
        section: section::COSTS,
        case: "files of bridge, ptp, host-local, loopback, portmap".to_owned(),
        metric: "size".to_owned(),
        unit: "MB",
        subject: subject.who.name(),
        summary: Summary::exactly(bytes as f64 / 1e6),
    })
}
