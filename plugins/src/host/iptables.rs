//! The iptables commands, for those who asked for them, and the format in which they list rules.

use super::program::Program;

const REMEDY: &str = "Install the package iptables (Debian, Ubuntu, SUSE, Alpine, Arch) or \
    iptables-nft (Fedora, RHEL).";

/// The most seconds to wait for the lock that old versions share (`-w`).
pub const LOCK_WAIT: [&str; 2] = ["-w", "10"];

/// `iptables` or `ip6tables`.
pub fn command(v6: bool) -> Program {
    Program {
        name: if v6 { "ip6tables" } else { "iptables" },
        remedy: REMEDY,
    }
}

/// The command that changes a table in one transaction.
pub fn restore_command(v6: bool) -> Program {
    Program {
        name: if v6 {
            "ip6tables-restore"
        } else {
            "iptables-restore"
        },
        remedy: REMEDY,
    }
}

/// The command for the tables of old that nftables does not know of, where there are two of them.
pub fn legacy_command(v6: bool) -> Program {
    let name = if v6 {
        "ip6tables-legacy"
    } else {
        "iptables-legacy"
    };
    let legacy = Program {
        name,
        remedy: REMEDY,
    };
    if legacy.find("").is_ok() {
        legacy
    } else {
        command(v6)
    }
}

/// The words of a line that `iptables -S` or `iptables-save` printed: separated by blanks, those with
/// blanks inside in double quotes, in which a backslash protects the next character.
pub fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted) = (Vec::new(), None::<String>, false);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' if quoted => {
                if let Some(next) = characters.next() {
                    word.get_or_insert_default().push(next);
                }
            }
            blank if blank.is_whitespace() && !quoted => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoted_words_keep_their_blanks_and_lose_their_backslashes() {
        assert_eq!(
            words(r#"-A  C -m comment --comment "a \"b\" \\ c" -j D"#),
            [
                "-A",
                "C",
                "-m",
                "comment",
                "--comment",
                r#"a "b" \ c"#,
                "-j",
                "D"
            ]
        );
        assert_eq!(words(r#"--comment """#), ["--comment", ""]);
        assert_eq!(words("  "), Vec::<String>::new());
    }
}
