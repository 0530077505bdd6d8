//! `dhcp list`: the leases that are written down. It asks nobody, so it works without the daemon too.

use std::io::{self, Write};
use std::process::ExitCode;

use super::store::{self, Record, Store};

/// Prints them: who, the address, the server, and for how long. The status says whether all could be read.
///
/// # Errors
/// Where nothing can be written.
pub fn run(out: &mut impl Write) -> io::Result<ExitCode> {
    let (records, problems) = match Store::at(store::DIR).load() {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("dhcp list: read {}: {error}", store::DIR);
            return Ok(ExitCode::FAILURE);
        }
    };
    for problem in &problems {
        eprintln!("dhcp list: {problem}");
    }
    table(&records).try_for_each(|line| writeln!(out, "{line}"))?;
    Ok(ExitCode::from(u8::from(!problems.is_empty())))
}

fn table(records: &[Record]) -> impl Iterator<Item = String> {
    let now = super::daemon::now();
    let head = [
        "NETWORK",
        "CONTAINER",
        "INTERFACE",
        "ADDRESS",
        "SERVER",
        "LEFT",
    ]
    .map(str::to_owned);
    let rows: Vec<[String; 6]> = [head]
        .into_iter()
        .chain(records.iter().map(|record| row(record, now)))
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    rows.into_iter().map(move |row| {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        line + &row[5]
    })
}

fn row(record: &Record, now: u64) -> [String; 6] {
    let owner = record.owner();
    let (address, server, left) = match &record.v4 {
        Some(held) => {
            let left = match held.end() {
                u64::MAX => "without end".to_owned(),
                end if end <= now => "over".to_owned(),
                end => format!("{} s", (end - now) / 1000),
            };
            let lease = &held.lease;
            (lease.address.to_string(), lease.server.to_string(), left)
        }
        None => {
            let lost = record.lost.as_deref().unwrap_or("");
            ("-".to_owned(), "-".to_owned(), format!("lost: {lost}"))
        }
    };
    [
        owner.network.to_string(),
        owner.container.to_string(),
        owner.ifname.to_string(),
        address,
        server,
        left,
    ]
}
