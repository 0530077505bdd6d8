//! How long `trestle doctor` takes on a node with a thousand containers, whose lists and runtime's cache are there.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::attach::milliseconds;
use crate::network::{self, Populated};
use crate::options::Options;
use crate::process::Call;
use crate::report::{Report, section};
use crate::stats::{Series, interleave};
use crate::subject::{Implementation, Kind, Subject};
use crate::{patient, say};

/// In a host's own /run.
const NET_D: &str = "/run/bench/net.d";
const CACHE: &str = "/run/bench/cache";

const CONTAINERS: usize = 1_000;

/// What its row is called.
pub(crate) const CASE: &str = "doctor, 1000 attached";

pub(crate) fn measure(subjects: &[Subject], options: &Options, report: &mut Report) {
    let Some(trestle) = subjects.iter().find(|it| it.who == Implementation::Trestle) else {
        return;
    };
    say(&format!("preparing {CASE}"));
    let full = match Populated::new(trestle, Kind::Nftables, CONTAINERS) {
        Ok(full) => full,
        Err(reason) => return report.skip(format!("{CASE}: {reason}")),
    };
    let written = full.network.host.enter(|| write_what_it_reads(&full));
    if let Err(error) = written {
        return report.skip(format!("{CASE}: {error}"));
    }
    network::wait_for_quiet();
    let mut all_series = [Series::new(CASE, trestle.who.name(), || look(&full))];
    interleave(&mut all_series, patient(options.rounds.div_ceil(4), 20));
    report.take(section::FULL, "ms", &all_series);
}

/// The network's list, and an entry of libcni's cache for each container.
fn write_what_it_reads(full: &Populated) -> io::Result<()> {
    let results = Path::new(CACHE).join("results");
    fs::create_dir_all(NET_D)?;
    fs::create_dir_all(&results)?;
    let list = json!({"cniVersion": "1.0.0", "name": "bench", "plugins": full.network.chain()});
    fs::write(Path::new(NET_D).join("10-bench.conflist"), list.to_string())?;
    for one in &full.attached {
        let entry = json!({
            "kind": "cniCacheV1", "networkName": "bench", "ifName": "eth0",
            "containerId": one.container, "netns": one.netns, "result": one.result
        });
        let name = format!("bench-{}-eth0", one.container);
        fs::write(results.join(name), entry.to_string())?;
    }
    Ok(())
}

/// One look, which has to have seen every container.
fn look(full: &Populated) -> Result<Vec<(String, f64)>, String> {
    let bin = &full.network.subject.bin;
    let arguments = [
        "doctor",
        "--json",
        "--conf-dir",
        NET_D,
        "--cache-dir",
        CACHE,
        "--bin-dir",
    ];
    let mut command = vec![bin.join("trestle")];
    command.extend(arguments.map(PathBuf::from));
    command.push(bin.clone());
    let call = Call {
        command,
        env: Vec::new(),
        stdin: Vec::new(),
    };
    let done = full.network.host.enter(|| call.run())?;
    let told: Value = serde_json::from_slice(&done.stdout)
        .map_err(|error| format!("{error}: {}", done.stderr.trim()))?;
    match told["checks"].as_u64() {
        Some(checks) if checks > 0 => Ok(vec![("time".to_owned(), milliseconds(done.took))]),
        _ => Err(format!("it did not look: {told}")),
    }
}
