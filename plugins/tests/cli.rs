//! The command line, and the choice between it and the plugins by the name the binary is called with.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;

const TRESTLE: &str = env!("CARGO_BIN_EXE_trestle");

fn run(program: impl AsRef<Path>, args: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(program.as_ref())
        .args(args)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

/// Runs the command line with DIR replaced by the directory.
fn trestle(dir: &TempDir, args: &str) -> Output {
    let args = args.replace("DIR", dir.path().to_str().unwrap());
    run(TRESTLE, &args.split_whitespace().collect::<Vec<_>>(), &[])
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn a_reader_that_is_gone_does_not_kill() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(TRESTLE)
        .arg("version")
        .stdout(writer)
        .stderr(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(status.code().is_some(), "{status}");
}

#[test]
fn the_status_of_wrong_usage_is_2() {
    let output = run(TRESTLE, &["--no-such-option"], &[]);
    assert_eq!(output.status.code(), Some(2), "{}", err(&output));
}

#[test]
fn install_links_one_binary_under_every_plugins_name() {
    let dir = TempDir::new().unwrap();
    let output = trestle(&dir, "install --bin-dir DIR/bin");
    assert!(output.status.success(), "{}", err(&output));
    let bin = dir.path().join("bin");
    let inode = fs::metadata(bin.join("trestle")).unwrap().ino();
    for plugin in [
        "bridge",
        "host-local",
        "loopback",
        "ptp",
        "portmap",
        "firewall",
        "tuning",
        "bandwidth",
        "static",
        "dhcp",
    ] {
        let found = fs::metadata(bin.join(plugin)).unwrap();
        assert_eq!(
            (found.ino(), found.mode() & 0o777),
            (inode, 0o755),
            "{plugin}"
        );
        assert!(
            out(&output).contains(&format!("linked {}", bin.join(plugin).display())),
            "{}",
            out(&output)
        );
    }
    assert!(
        names(&bin).iter().all(|name| !name.starts_with('.')),
        "{:?}",
        names(&bin)
    );
}

#[test]
fn installing_again_replaces_what_is_there_and_another_program_too() {
    let dir = TempDir::new().unwrap();
    fs::create_dir(dir.path().join("bin")).unwrap();
    fs::write(dir.path().join("bin/bridge"), "another").unwrap();
    for _ in 0..2 {
        let output = trestle(
            &dir,
            "install --bin-dir DIR/bin --plugins bridge,host-local",
        );
        assert!(
            output.status.success() && out(&output).contains("replaced"),
            "{}",
            err(&output)
        );
        assert_eq!(
            names(&dir.path().join("bin")),
            ["bridge", "host-local", "trestle"]
        );
    }
}

#[test]
fn a_configuration_that_differs_is_kept_and_nothing_is_installed() {
    let dir = TempDir::new().unwrap();
    let conf = dir.path().join("net.d/10-trestle.conflist");
    fs::create_dir(dir.path().join("net.d")).unwrap();
    fs::write(&conf, "mine").unwrap();
    let output = trestle(&dir, "install --bin-dir DIR/bin --conf-dir DIR/net.d");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("10-trestle.conflist") && err(&output).contains("--force"),
        "{}",
        err(&output)
    );
    assert!(!dir.path().join("bin").exists() && fs::read(&conf).unwrap() == b"mine");

    assert!(
        trestle(
            &dir,
            "install --bin-dir DIR/bin --conf-dir DIR/net.d --force"
        )
        .status
        .success()
    );
    assert!(fs::read_to_string(&conf).unwrap().contains("\"bridge\""));
    let again = trestle(&dir, "install --bin-dir DIR/bin --conf-dir DIR/net.d");
    assert!(
        again.status.success() && out(&again).contains("kept"),
        "{}",
        out(&again)
    );
}

#[test]
fn install_says_which_network_is_taken_instead() {
    let dir = TempDir::new().unwrap();
    let net = dir.path().join("net.d");
    fs::create_dir(&net).unwrap();
    let install = || {
        out(&trestle(
            &dir,
            "install --bin-dir DIR/bin --conf-dir DIR/net.d",
        ))
    };
    for name in ["05-notes.txt", "10-trestle.conflist.bak", "11-b.conf"] {
        fs::write(net.join(name), "{}").unwrap();
    }
    assert!(!install().contains("note"), "nothing comes before it");
    fs::write(net.join("10-calico.conflist"), "{}").unwrap();
    let said = install();
    assert!(
        said.contains("use 10-calico.conflist;") && !said.contains("11-b"),
        "{said}"
    );
    fs::write(net.join("05-other.json"), "{}").unwrap();
    let said = install();
    assert!(
        said.contains("05-other.json, 10-calico.conflist") && said.contains("use 05-other.json;"),
        "{said}"
    );
}

/// In the containers that install plugins everybody has the same process ID.
#[test]
fn many_installs_at_once_leave_whole_plugins_at_every_moment() {
    let dir = TempDir::new().unwrap();
    assert!(trestle(&dir, "install --bin-dir DIR/bin").status.success());
    let bin = dir.path().join("bin");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let user = scope.spawn(|| {
            let mut calls = 0;
            while !done.load(Ordering::Relaxed) || calls < 50 {
                for plugin in ["bridge", "host-local", "trestle"] {
                    let env: &[(&str, &str)] = match plugin {
                        "trestle" => &[],
                        _ => &[("CNI_COMMAND", "VERSION")],
                    };
                    let args: &[&str] = if env.is_empty() { &["version"] } else { &[] };
                    let output = run(bin.join(plugin), args, env);
                    assert!(output.status.success(), "{plugin}: {}", err(&output));
                    calls += 1;
                }
            }
        });
        let install = |index: usize| {
            let install = [TRESTLE, "install", "--bin-dir", bin.to_str().unwrap()];
            let new_pid = ["unshare", "--user", "--map-root-user", "--pid", "--fork"];
            let words = match index % 2 {
                0 => [&new_pid[..], &install[..]].concat(),
                _ => install.to_vec(),
            };
            scope.spawn(move || {
                let path = [("PATH", "/usr/bin:/bin")];
                let output = run(words[0], &words[1..], &path);
                assert!(output.status.success(), "{}", err(&output));
            })
        };
        let installs: Vec<_> = (0..20).map(install).collect();
        let outcomes: Vec<_> = installs.into_iter().map(|it| it.join()).collect();
        done.store(true, Ordering::Relaxed);
        outcomes.into_iter().for_each(|it| it.unwrap());
        user.join().unwrap();
    });
    let wrong: Vec<String> = names(&bin)
        .into_iter()
        .filter(|name| fs::read(bin.join(name)).unwrap() != fs::read(TRESTLE).unwrap())
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    assert!(names(&bin).iter().all(|name| !name.starts_with('.')));
}

/// An install is killed at each of its system calls that make, fill or rename a file, and the next one finds what it left.
#[test]
fn what_a_killed_install_leaves_is_removed_by_the_next_one() {
    if Command::new("strace").arg("-V").output().is_err() {
        eprintln!("skipped: no strace on this machine");
        return;
    }
    let dir = TempDir::new().unwrap();
    let (bin, net_d) = (dir.path().join("bin"), dir.path().join("net.d"));
    let words = "install --bin-dir DIR/bin --conf-dir DIR/net.d --force --plugins bridge";
    let mut left = 0;
    for call in ["fchmod", "fsync", "/rename", "/link", "/unlink"] {
        for number in 1..=2 {
            let fault = format!("inject={call}:signal=KILL:when={number}");
            let words = words.replace("DIR", dir.path().to_str().unwrap());
            let command = ["-f", "-o", "/dev/null", "-e", &fault, TRESTLE];
            let words: Vec<&str> = command.into_iter().chain(words.split(' ')).collect();
            run("/usr/bin/strace", &words, &[]);
            for place in [&bin, &net_d].into_iter().filter(|it| it.exists()) {
                left += names(place).iter().filter(|it| it.starts_with('.')).count();
            }
            let output = trestle(
                &dir,
                "install --bin-dir DIR/bin --conf-dir DIR/net.d --force",
            );
            assert!(output.status.success(), "{fault}: {}", err(&output));
            for place in [&bin, &net_d] {
                assert!(
                    names(place).iter().all(|it| !it.starts_with('.')),
                    "{fault}"
                );
            }
            fs::remove_file(net_d.join("10-trestle.conflist")).unwrap();
        }
    }
    assert!(left >= 3, "they leave something: {left}");
}

#[test]
fn temporary_files_of_an_install_at_work_and_of_others_stay() {
    let dir = TempDir::new().unwrap();
    let bin = dir.path().join("bin");
    fs::create_dir(&bin).unwrap();
    let others = [".bridge.tmp", ".other.0123456789abcdef.tmp"];
    let own = ".bridge.0123456789abcdef.tmp";
    for name in others.iter().chain([&own]) {
        fs::write(bin.join(name), "").unwrap();
    }
    let hidden = || {
        let names = names(&bin).into_iter();
        names.filter(|it| it.starts_with('.')).collect::<Vec<_>>()
    };
    // The lock that every install shares while it works.
    let at_work = fs::File::open(&bin).unwrap();
    at_work.lock_shared().unwrap();
    assert!(trestle(&dir, "install --bin-dir DIR/bin").status.success());
    assert_eq!(hidden(), [own, others[0], others[1]]);
    drop(at_work);
    // Anybody who can read the directory can lock it, and keeps nobody from installing.
    let hostile = fs::File::open(&bin).unwrap();
    hostile.lock().unwrap();
    assert!(trestle(&dir, "install --bin-dir DIR/bin").status.success());
    assert_eq!(hidden(), [own, others[0], others[1]]);
    drop(hostile);
    assert!(trestle(&dir, "install --bin-dir DIR/bin").status.success());
    assert_eq!(hidden(), others);
}

#[test]
fn an_unknown_plugin_is_named_with_those_there_are() {
    let dir = TempDir::new().unwrap();
    let output = trestle(&dir, "install --bin-dir DIR/bin --plugins bridge,brige");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        err(&output).contains("\"brige\"") && err(&output).contains("host-local"),
        "{}",
        err(&output)
    );
    assert!(!dir.path().join("bin").exists());
}

#[test]
fn uninstall_takes_back_what_install_wrote_and_nothing_else() {
    let dir = TempDir::new().unwrap();
    assert!(
        trestle(&dir, "install --bin-dir DIR/bin --conf-dir DIR/net.d")
            .status
            .success()
    );
    let bin = dir.path().join("bin");
    fs::write(bin.join("vendors-own"), "another").unwrap();
    fs::remove_file(bin.join("tuning")).unwrap();
    fs::write(bin.join("tuning"), "another").unwrap();
    let output = trestle(&dir, "uninstall --bin-dir DIR/bin --conf-dir DIR/net.d");
    assert!(
        output.status.success() && out(&output).contains("kept"),
        "{}",
        out(&output)
    );
    assert_eq!(names(&bin), ["tuning", "vendors-own"]);
    assert!(names(&dir.path().join("net.d")).is_empty());
}

#[test]
fn version_and_help_tell_what_there_is() {
    let dir = TempDir::new().unwrap();
    let version = out(&trestle(&dir, "version"));
    assert!(
        version.contains("bridge") && version.contains("0.1.0") && version.contains("1.1.0"),
        "{version}"
    );
    for option in ["--version", "-V"] {
        let short = out(&trestle(&dir, option));
        assert_eq!(version.lines().next(), Some(short.trim_end()));
    }
    let help = out(&trestle(&dir, "--help"));
    assert!(
        help.contains("install") && help.contains("uninstall"),
        "{help}"
    );
    assert_eq!(trestle(&dir, "no-such-command").status.code(), Some(2));
}

#[test]
fn a_plugin_run_by_hand_explains_itself_on_stderr() {
    let dir = TempDir::new().unwrap();
    trestle(&dir, "install --bin-dir DIR");
    let output = run(dir.path().join("bridge"), &[], &[]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert!(
        err(&output).contains("bridge") && err(&output).contains("1.1.0"),
        "{}",
        err(&output)
    );
}

#[test]
fn the_base_name_must_be_exactly_a_plugins() {
    let dir = TempDir::new().unwrap();
    for name in ["bridge2", "Bridge", "trestle-bridge"] {
        let path = dir.path().join(name);
        symlink(TRESTLE, &path).unwrap();
        let by_hand = run(&path, &[], &[]);
        assert!(
            by_hand.status.code() == Some(1) && by_hand.stdout.is_empty(),
            "{name}"
        );
        let by_runtime = run(&path, &[], &[("CNI_COMMAND", "VERSION")]);
        let error: serde_json::Value = serde_json::from_slice(&by_runtime.stdout).unwrap();
        assert!(
            by_runtime.status.code() == Some(1) && error["msg"].as_str().unwrap().contains(name),
            "{error}"
        );
    }
}
