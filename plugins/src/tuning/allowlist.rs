//! The node's list of sysctls that configurations may set.
//!
//! The file has a regular expression on each line; a sysctl's name, as the configuration spells it, must match one of
//! them somewhere. Without the file every name under `net` is allowed. Path and meaning are the Go plugin's.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use cni_conf::error::{Code, Error};
use regex_lite::Regex;

use super::conf::Setting;

/// Where the node's administrator puts it.
const FILE: &str = "/etc/cni/tuning/allowlist.conf";

/// Fails if one of the sysctls is not allowed on this node.
pub(super) fn require(sysctls: &[Setting]) -> Result<(), Error> {
    require_by(Path::new(FILE), sysctls)
}

fn require_by(file: &Path, sysctls: &[Setting]) -> Result<(), Error> {
    if sysctls.is_empty() {
        return Ok(());
    }
    let text = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => {
            return Err(Error::new(
                Code::Io,
                format!(
                    "read the list of allowed sysctls {}: {error}",
                    file.display()
                ),
            ));
        }
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let allowed = lines
        .map(|line| {
            Regex::new(line).map_err(|error| {
                Error::config(format!(
                    "{}: {line:?} is no regular expression: {error}",
                    file.display()
                ))
            })
        })
        .collect::<Result<Vec<Regex>, Error>>()?;
    for sysctl in sysctls {
        if !allowed.iter().any(|pattern| pattern.is_match(&sysctl.name)) {
            return Err(Error::config(format!(
                "sysctl {} is not allowed on this node",
                sysctl.name
            ))
            .with_details(format!("{} lists what is", file.display())));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Sysctl;

    fn setting(name: &str) -> Setting {
        Setting {
            name: name.into(),
            sysctl: Sysctl::parse(name).unwrap(),
            value: "1".into(),
        }
    }

    #[test]
    fn names_must_match_a_line_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("allowlist.conf");
        let one = [setting("net.ipv4.conf.eth0.arp_filter")];
        assert!(require_by(&file, &one).is_ok(), "no file, no limit");
        for (text, allowed) in [
            ("", false),
            ("\n  ^net\\.ipv4\\.conf\\.[a-z0-9]+\\.arp_filter$  \n", true),
            ("^net\\.core\\..*", false),
            ("^net\\.core\\..*\narp_filter", true),
            ("(", false),
        ] {
            fs::write(&file, text).unwrap();
            assert_eq!(require_by(&file, &one).is_ok(), allowed, "{text:?}");
        }
        assert!(require_by(&file, &[]).is_ok());
    }
}
