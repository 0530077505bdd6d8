//! Replays the corpus of the fuzz targets, and the ready-made configurations, without a fuzzer.

#![expect(clippy::unwrap_used, reason = "a test program")]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

#[expect(unreachable_pub, reason = "the module of another crate")]
#[path = "../../fuzz/src/bodies.rs"]
mod bodies;

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

#[test]
fn the_corpus_of_every_target_replays() {
    for (name, body) in bodies::TARGETS {
        let inputs = files(&workspace().join("fuzz/corpus").join(name));
        assert!(!inputs.is_empty(), "target {name} has seeds");
        for input in inputs {
            // The name is what a person needs when it panics.
            eprintln!("{}", input.display());
            body(&fs::read(&input).unwrap());
        }
    }
}

#[test]
fn the_ready_made_configurations_replay() {
    for path in files(&workspace().join("cni-conf/net.d")) {
        let text = fs::read(&path).unwrap();
        let Ok(whole) = serde_json::from_slice::<Value>(&text) else {
            continue;
        };
        let alone = json!([whole]);
        let plugins = whole["plugins"].as_array().or(alone.as_array()).unwrap();
        for conf in plugins {
            let mut conf = conf.clone();
            conf["name"] = whole["name"].clone();
            conf["cniVersion"] = whole["cniVersion"].clone();
            bodies::conf(conf.to_string().as_bytes());
            bodies::request(format!("c eth0 K=v\n---\n{conf}").as_bytes());
        }
    }
}
