//! The demos tell the truth, and their recordings tell what the demos tell.

use std::fs;
use std::process::Command;

use conformance::{Case, Lab, Need, case, workspace};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(the_demo_of_two_containers_runs_to_its_end)
            .ours()
            .needs(Need::Cnitool),
        case!(the_demo_of_services_shows_the_wrong_address_and_the_remedy)
            .ours()
            .needs(Need::Cnitool)
            .needs(Need::BridgeNetfilter),
        case!(recordings_show_every_step_and_are_small).ours(),
    ]
}

/// What a demo writes, with the plugins of the lab.
fn demo(lab: &Lab, script: &str) -> String {
    let mut command = Command::new("bash");
    command
        .arg(workspace().join("conformance").join(script))
        .env("TRESTLE_BIN", lab.bin().join("trestle"));
    let output = command.output().expect("start bash");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complaint}");
    said
}

fn the_demo_of_two_containers_runs_to_its_end(lab: &Lab) {
    let said = demo(lab, "demo.sh");
    assert!(said.contains("2 received, 0% packet loss"), "{said}");
    assert!(said.contains("That was all."), "{said}");
}

fn the_demo_of_services_shows_the_wrong_address_and_the_remedy(lab: &Lab) {
    let said = demo(lab, "demo-services.sh");
    let shown = [
        "asked 10.96.0.10, answered by 10.200.5.2",
        "answer-untranslated",
        "FAIL  bridge-netfilter-off",
        "asked 10.96.0.10, answered by 10.96.0.10",
        "answered (step",
    ];
    let mut rest = said.as_str();
    for line in shown {
        let at = rest.find(line);
        let at = at.unwrap_or_else(|| panic!("no {line:?} in its place: {said}"));
        rest = &rest[at + line.len()..];
    }
    assert!(!rest.contains("bridge-netfilter-off"), "{said}");
}

/// `make recordings` renews them.
fn recordings_show_every_step_and_are_small(_: &Lab) {
    for name in ["demo", "demo-services"] {
        let read = |path: &str| {
            let text = fs::read_to_string(workspace().join(path));
            text.unwrap_or_else(|error| panic!("read {path}: {error}"))
        };
        let picture = read(&format!("docs/{name}.svg"));
        assert!(picture.len() < 100_000, "{name}: {} bytes", picture.len());
        let script = read(&format!("conformance/{name}.sh"));
        let titles = script
            .lines()
            .filter_map(|line| line.strip_prefix("title \""));
        let titles: Vec<&str> = titles.map(|title| title.trim_end_matches('"')).collect();
        assert!(titles.len() > 5, "{name} has steps");
        for (index, title) in titles.iter().enumerate() {
            let line = format!("{}. {title}", index + 1);
            assert!(
                picture.contains(&line),
                "docs/{name}.svg lacks {line:?}: make recordings"
            );
        }
    }
}
