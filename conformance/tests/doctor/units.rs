//! The units for systemd.

use std::fs;

use conformance::{Case, Host, Lab, Need, Program, case, workspace};

pub(super) fn cases() -> Vec<Case> {
    vec![case!(systemd_takes_the_units).needs(Need::SystemdAnalyze)]
}

fn systemd_takes_the_units(lab: &Lab) {
    let host = Host::new();
    let dir = workspace().join("dist/systemd");
    let binary = lab.bin().join("trestle").display().to_string();
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).expect("units").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let text = fs::read_to_string(entry.path()).expect("a unit");
        assert!(
            !text.contains("ExecStart=") || text.contains("ExecStart=/usr/bin/trestle "),
            "{name}"
        );
        // The same with a binary that is there, and without pages that are not.
        let text = text.replace("/usr/bin/trestle", &binary);
        let lines: Vec<&str> = text
            .lines()
            .filter(|line| !line.starts_with("Documentation="))
            .collect();
        host.write(&format!("/run/units/{name}"), lines.join("\n") + "\n");
        names.push(format!("/run/units/{name}"));
    }
    assert_eq!(names.len(), 5, "{names:?}");
    let output = host.run(
        Program::new("systemd-analyze")
            .args(["verify"])
            .args(&names),
    );
    assert!(
        output.ok() && !output.stderr.contains("trestle"),
        "{output}"
    );
}
