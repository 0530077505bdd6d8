//! `trestle list` and `trestle show`: the attachments of a node.

use std::io::Write;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};

use super::CliError;
use super::doctor::DirectoryArgs;
use crate::explain::kernel::Kernel;
use crate::explain::report::plain;
use crate::explain::state::{self, Kept, State};
use crate::explain::survey::{Attached, Survey};
use crate::host::NetNs;
use crate::owner::Owner;

#[derive(Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    directories: DirectoryArgs,
    /// Everything as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
pub(super) struct ShowArgs {
    /// The container's ID, or the beginning of it; or the pod's name
    #[arg(value_name = "CONTAINER")]
    container: String,
    #[command(flatten)]
    directories: DirectoryArgs,
}

/// What a line tells.
struct Row<'a> {
    owner: &'a Owner,
    attached: &'a Attached,
    pod: Option<String>,
    end: Option<String>,
    state: State,
    age: Option<u64>,
}

fn rows(survey: &Survey) -> Vec<Row<'_>> {
    let kept = Kept::look(survey);
    let kernel = survey.kernel.as_ref().ok();
    let row = |(owner, attached)| Row {
        owner,
        attached,
        pod: pod(attached),
        end: kernel.and_then(|it| Some(it.link(attached.end?)?.name.clone())),
        state: state::of(survey, &kept, owner, attached),
        age: age(attached),
    };
    survey.attachments.iter().map(row).collect()
}

/// `namespace/name` of a pod, as Kubernetes' runtimes give it in CNI_ARGS.
fn pod(attached: &Attached) -> Option<String> {
    let cached = attached.cached.as_ref()?;
    let name = cached.arg("K8S_POD_NAME")?;
    let namespace = cached.arg("K8S_POD_NAMESPACE").unwrap_or("default");
    Some(format!("{namespace}/{name}"))
}

/// In seconds.
fn age(attached: &Attached) -> Option<u64> {
    let since = attached.cached.as_ref()?.since?;
    let age = SystemTime::now().duration_since(since).unwrap_or_default();
    Some(age.as_secs())
}

/// `5s`, `12m`, `3h`, `9d`.
fn age_text(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn addresses(attached: &Attached) -> Vec<String> {
    attached
        .addresses()
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn namespace(attached: &Attached) -> Option<String> {
    let paths = &attached.cached.as_ref()?.netns;
    Some(paths.first()?.display().to_string())
}

pub(super) fn list(args: &ListArgs, out: &mut impl Write) -> Result<ExitCode, CliError> {
    let survey = Survey::take(&args.directories.directories());
    let rows = rows(&survey);
    if args.json {
        let rows: Vec<Value> = rows.iter().map(as_json).collect();
        let text = serde_json::to_string_pretty(&json!({"attachments": rows}));
        writeln!(out, "{}", text.map_err(std::io::Error::from)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = vec![
        [
            "NETWORK",
            "CONTAINER",
            "POD",
            "IF",
            "ADDRESSES",
            "HOST END",
            "NAMESPACE",
            "STATE",
            "AGE",
        ]
        .map(str::to_owned),
    ];
    table.extend(rows.iter().map(|row| {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let container = row.owner.container.as_str();
        [
            row.owner.network.to_string(),
            // As runtimes show it. All of ASCII.
            container[..container.len().min(12)].to_owned(),
            or_dash(row.pod.clone()),
            row.owner.ifname.to_string(),
            or_dash(Some(addresses(row.attached).join(",")).filter(|it| !it.is_empty())),
            or_dash(row.end.clone()),
            or_dash(namespace(row.attached)),
            row.state.text().to_owned(),
            or_dash(row.age.map(age_text)),
        ]
    }));
    write_table(&table, out)
}

/// Columns as wide as what is in them; those in which nothing is are left out.
fn write_table<const N: usize>(
    table: &[[String; N]],
    out: &mut impl Write,
) -> Result<ExitCode, CliError> {
    let is_used = |column: usize| table.iter().skip(1).any(|row| row[column] != "-");
    let columns: Vec<usize> = (0..N)
        .filter(|column| table.len() == 1 || is_used(*column))
        .collect();
    let width = |column: usize| {
        table
            .iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    for row in table {
        let cells: Vec<String> = columns
            .iter()
            .map(|column| format!("{:width$}", plain(&row[*column]), width = width(*column)))
            .collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn as_json(row: &Row<'_>) -> Value {
    json!({
        "network": row.owner.network.as_str(), "container": row.owner.container.as_str(),
        "ifname": row.owner.ifname.as_str(), "pod": row.pod, "addresses": addresses(row.attached),
        "hostEnd": row.end, "netns": namespace(row.attached), "state": row.state.text(), "ageSeconds": row.age,
    })
}

pub(super) fn show(args: &ShowArgs, out: &mut impl Write) -> Result<ExitCode, CliError> {
    let survey = Survey::take(&args.directories.directories());
    let is_meant = |row: &&Row<'_>| {
        let pod = row.pod.as_deref().unwrap_or_default();
        row.owner.container.as_str().starts_with(&args.container)
            || pod == args.container
            || pod.split('/').nth(1) == Some(args.container.as_str())
    };
    let rows = rows(&survey);
    let meant: Vec<&Row<'_>> = rows.iter().filter(is_meant).collect();
    if meant.is_empty() {
        return Err(CliError::NoSuchContainer(args.container.clone()));
    }
    let kept = Kept::look(&survey);
    for row in meant {
        for line in about(&survey, &kept, row) {
            writeln!(out, "{}", plain(&line))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Everything about an attachment.
fn about(survey: &Survey, kept: &Kept, row: &Row<'_>) -> Vec<String> {
    let (owner, attached) = (row.owner, row.attached);
    let mut lines = vec![format!("container {}", owner.container)];
    let mut add = |name: &str, value: Option<String>| {
        lines.extend(value.map(|value| format!("  {name:<11} {value}")));
    };
    add("network", Some(owner.network.to_string()));
    add("pod", row.pod.clone());
    add("state", Some(row.state.text().to_owned()));
    add("age", row.age.map(age_text));
    let list = survey.networks.iter().find(|it| it.name == owner.network);
    add("list", list.map(|it| it.path.display().to_string()));
    add("plugins", list.map(|it| it.plugins.join(", ")));
    add("namespace", namespace(attached));
    let netns = state::netns(attached).and_then(|path| NetNs::open(path).ok());
    if let Some(inside) = netns.and_then(|netns| Kernel::look(Some(&netns)).ok()) {
        for line in end(&inside, owner.ifname.as_str()) {
            add("inside", Some(line));
        }
    }
    if let (Ok(kernel), Some(name)) = (&survey.kernel, &row.end) {
        for line in end(kernel, name) {
            add("host", Some(line));
        }
        let bridge = kernel.named(name).and_then(|link| link.master);
        add("bridge", bridge.map(|index| kernel.name(index).to_owned()));
    }
    for address in &attached.held {
        add("holds", Some(address.to_string()));
    }
    for rule in kept.of(owner) {
        add("rule", Some(rule));
    }
    for part in kept.lacking(owner, attached) {
        add("missing", Some(format!("rules of {part}")));
    }
    let asked = attached
        .cached
        .as_ref()
        .and_then(|it| it.capabilities.as_object());
    for (capability, value) in asked.into_iter().flatten() {
        add("asked for", Some(format!("{capability}: {value}")));
    }
    let file = attached.cached.as_ref().map(|it| {
        let name = format!("{}-{}-{}", it.network, it.id.container, it.id.ifname);
        survey
            .directories
            .cache_dir
            .join("results")
            .join(name)
            .display()
            .to_string()
    });
    add("cache", file);
    lines
}

/// An interface with its addresses and routes.
fn end(kernel: &Kernel, name: &str) -> Vec<String> {
    let Some(link) = kernel.named(name) else {
        return vec![format!("{name}: there is no such interface")];
    };
    let mac = link
        .mac
        .map(|mac| mac.map(|byte| format!("{byte:02x}")).join(":"));
    let port = link.port.map(|port| {
        let hairpin = if port.hairpin { "on" } else { "off" };
        let isolated = if port.isolated { ", isolated" } else { "" };
        format!(
            ", port {}, hairpin {hairpin}{isolated}",
            crate::explain::kernel::state(port.state)
        )
    });
    let mut lines = vec![format!(
        "{name}: {}, mtu {}, {}{}",
        if link.up { "up" } else { "down" },
        link.mtu,
        mac.unwrap_or_default(),
        port.unwrap_or_default()
    )];
    lines.extend(
        kernel
            .addresses_of(link.index)
            .map(|it| format!("{name}: address {}", it.net)),
    );
    let routes = kernel
        .routes
        .iter()
        .filter(|route| route.oif == Some(link.index));
    lines.extend(routes.map(|route| {
        let via = route
            .gateway
            .map(|gateway| format!(" via {gateway}"))
            .unwrap_or_default();
        format!("{name}: route {}{via}", route.dst)
    }));
    lines
}
