//! Dependencies point one way (CONTRIBUTING.md, "The rooms"): this reads the sources and keeps it true.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Rooms that every plugin may use, lower ones first; each may use those before it.
const SHARED: [&str; 4] = ["host", "owner", "netfilter", "attach"];

/// What stands above the plugins. `explain` knows them all, and nobody but the command line knows it.
const ABOVE: [&str; 6] = ["registry", "log", "explain", "cli", "process", "main"];

fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| {
            if path.is_dir() {
                sources(&path)
            } else {
                vec![path]
            }
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

/// Identifiers that follow `crate::` in a text, with those in braces.
fn crate_uses(text: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    text.match_indices("crate::")
        .flat_map(|(at, prefix)| {
            let rest = &text[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(list) => list
                    .split('}')
                    .next()
                    .unwrap_or("")
                    .split(',')
                    .map(|item| word(item.trim()))
                    .collect(),
                None => vec![word(rest)],
            }
        })
        .filter(|name| !name.is_empty())
        .collect()
}

fn allowed(room: &str, used: &str) -> bool {
    if room == "explain" {
        return !matches!(used, "cli" | "process" | "main");
    }
    if room == used || ABOVE.contains(&room) {
        return true;
    }
    match SHARED.iter().position(|shared| *shared == room) {
        Some(level) => SHARED[..level].contains(&used),
        None => SHARED.contains(&used),
    }
}

#[test]
fn rooms_use_only_the_rooms_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for path in sources(&root) {
        let inner = path.strip_prefix(&root).unwrap();
        let room = inner
            .iter()
            .next()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_end_matches(".rs")
            .to_owned();
        if room == "lib" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for used in crate_uses(&text) {
            if !allowed(&room, &used) {
                wrong.push(format!("{} uses crate::{used}", inner.display()));
            }
        }
        if room == "host" && text.contains("cni_conf") {
            wrong.push(format!("{} knows of CNI", inner.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn crates_use_only_the_crates_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let forbidden = [
        ("cni-conf", &["ipam", "plugins", "conformance"][..]),
        ("ipam", &["plugins", "conformance"]),
        ("plugins", &["conformance"]),
        ("testbed", &["cni-conf", "ipam", "plugins", "conformance"]),
        ("conformance", &["cni-conf", "ipam", "plugins"]),
    ];
    for (name, others) in forbidden {
        let manifest = fs::read_to_string(root.join(name).join("Cargo.toml")).unwrap();
        for line in manifest.lines() {
            let dependency = line.split(['.', ' ', '=']).next().unwrap_or_default();
            assert!(
                !others.contains(&dependency),
                "{name} depends on {dependency}"
            );
        }
    }
}
