//! Every test that docs/security.md names is there.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The crates whose tests are named.
const CRATES: [&str; 4] = ["cni-conf", "ipam", "plugins", "conformance"];

/// Names of tests in a text: words in backticks with at least three underscores and nothing but small letters and digits.
fn named(text: &str) -> BTreeSet<&str> {
    let is_test = |word: &&str| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        word.chars().all(plain) && word.matches('_').count() >= 3
    };
    text.split('`').skip(1).step_by(2).filter(is_test).collect()
}

/// The sources below a directory, one after the other, without this file.
fn read(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn the_tests_that_it_names_are_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let names = named(&page);
    assert!(names.len() > 20, "the page was understood: {names:?}");
    let mut sources = String::new();
    for name in CRATES {
        for dir in ["src", "tests"] {
            let dir = root.join(name).join(dir);
            if dir.is_dir() {
                read(&dir, &mut sources);
            }
        }
    }
    let is_there = |name: &&str| {
        let spellings = [format!("fn {name}("), format!("\"{name}\"")];
        spellings.iter().any(|spelling| sources.contains(spelling))
    };
    let missing: Vec<_> = names.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "docs/security.md names {missing:?}");
}

#[test]
fn rows_without_a_test_are_none() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let promises = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| it may"));
    let empty: Vec<_> = promises.filter(|line| named(line).is_empty()).collect();
    assert!(empty.is_empty(), "no test holds {empty:#?}");
}
