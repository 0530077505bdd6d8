//! State directories that are full, read-only, something else, or hold what nobody put there.

use conformance::{Call, Case, Host, Lab, Output, Program, case, with};
use serde_json::{Value, json};

use crate::common::{attachment, code, plain};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(a_full_disk_fails_add_and_leaves_nothing).ours(),
        case!(a_disk_without_inodes_fails_add_and_leaves_nothing).ours(),
        case!(del_works_on_a_full_disk).ours(),
        case!(a_read_only_directory_is_a_clear_error).ours(),
        case!(a_data_dir_that_is_a_file_is_a_clear_error).ours(),
        case!(symbolic_links_are_not_followed_out_of_the_directory).ours(),
        case!(garbage_in_the_state_harms_nobody).ours(),
        case!(a_lock_of_a_process_that_died_is_free).ours(),
        case!(a_lock_is_waited_for).ours(),
        case!(a_lock_that_stays_held_is_an_error_that_names_the_holder)
            .ours()
            .slow(),
    ]
}

const DATA: &str = "/run/data";
const STATE: &str = "/run/data/net";

fn network() -> Value {
    with(plain(), json!({"ipam": {"dataDir": DATA}}))
}

/// A host with a tmpfs of these options as the data directory.
fn small(options: &str) -> Host {
    let host = Host::new();
    host.sh(&format!("mkdir {DATA}"));
    host.sh(&format!("mount -t tmpfs -o {options} tmpfs {DATA}"));
    host
}

#[track_caller]
fn no_space(output: &Output) {
    assert_eq!(code(output), 5, "{output}");
    assert!(output.text().contains("No space left"), "{output}");
}

/// ADD in a host without space fails and leaves nothing; with space it works.
fn fails_until_there_is_room(lab: &Lab, host: &Host, make_room: impl FnOnce()) {
    let plugin = lab.plugin(host, "bridge");
    let call = attachment(host);
    let before = host.observe();
    for _ in 0..3 {
        no_space(&plugin.call("ADD", &network(), &call));
        host.assert_nothing_left(&before, &["pod:"]);
    }
    plugin.del(&network(), &call);
    make_room();
    let result = plugin.add(&network(), &call);
    plugin.check(&network(), &result, &call).succeeded();
    plugin.del(&network(), &call);
}

fn a_full_disk_fails_add_and_leaves_nothing(lab: &Lab) {
    let host = small("size=32k");
    let fill = format!("if=/dev/zero of={DATA}/filler bs=4k count=100");
    host.run(Program::new("dd").args(fill.split(' ')));
    fails_until_there_is_room(lab, &host, || {
        host.sh(&format!("rm {DATA}/filler"));
    });
}

fn a_disk_without_inodes_fails_add_and_leaves_nothing(lab: &Lab) {
    let host = small("nr_inodes=6");
    // The root, the network's directory, `lock`, our two directories: the first file of an ADD has no inode left.
    fails_until_there_is_room(lab, &host, || {
        host.sh(&format!("mount -o remount,nr_inodes=100 {DATA}"));
    });
}

fn del_works_on_a_full_disk(lab: &Lab) {
    let host = small("size=64k");
    let plugin = lab.plugin(&host, "bridge");
    let call = attachment(&host);
    let before = host.observe();
    plugin.add(&network(), &call);
    let fill = format!("if=/dev/zero of={DATA}/filler bs=4k count=100");
    host.run(Program::new("dd").args(fill.split(' ')));
    plugin.del(&network(), &call);
    host.sh(&format!("rm {DATA}/filler"));
    host.assert_nothing_left(&before, &["pod:"]);
}

fn a_read_only_directory_is_a_clear_error(lab: &Lab) {
    let host = small("size=1m");
    let plugin = lab.plugin(&host, "bridge");
    let call = attachment(&host);
    plugin.add(&network(), &Call::of(&host.pod("neighbour")));
    host.sh(&format!("mount -o remount,ro {DATA}"));
    let before = host.observe();
    let output = plugin.call("ADD", &network(), &call);
    assert_eq!(code(&output), 5, "{output}");
    assert!(output.text().contains("Read-only file system"), "{output}");
    assert_eq!(host.observe().since(&before), "");
    plugin.del(&network(), &call);
    let output = plugin.call("STATUS", &network(), &Call::default());
    assert_eq!(code(&output), 50, "{output}");
    // DEL of what is there can't succeed, and says so until it can.
    let neighbour = Call::named("neighbour", Some("/run/netns/neighbour"));
    plugin.call("DEL", &network(), &neighbour).error();
    host.sh(&format!("mount -o remount,rw {DATA}"));
    plugin.del(&network(), &neighbour);
    assert!(host.observe().mentioning("neighbour").is_empty());
}

fn a_data_dir_that_is_a_file_is_a_clear_error(lab: &Lab) {
    let host = Host::new();
    let plugin = lab.plugin(&host, "bridge");
    let call = attachment(&host);
    for file in [DATA, STATE] {
        host.sh(&format!("rm -rf {DATA}"));
        host.write(file, "not a directory");
        let before = host.observe();
        let output = plugin.call("ADD", &network(), &call);
        assert_eq!(code(&output), 5, "{output}");
        assert!(output.text().contains(file), "{output}");
        host.assert_nothing_left(&before, &[]);
        assert_eq!(host.read(file).as_deref(), Some("not a directory"));
    }
    host.sh(&format!("rm -rf {DATA}"));
    host.write(DATA, "not a directory");
    plugin.del(&network(), &call);
}

fn symbolic_links_are_not_followed_out_of_the_directory(lab: &Lab) {
    for name in [
        "net/10.1.0.2",
        "net/lock",
        "net/last_reserved_ip.0",
        "net",
        ".trestle",
        ".trestle/net",
        ".trestle/net/index",
        ".trestle/net/new",
        ".trestle/net/pod:eth0",
    ] {
        let host = Host::new();
        let plugin = lab.plugin(&host, "bridge");
        let call = attachment(&host);
        host.sh("mkdir -p /run/outside");
        host.write("/run/outside/file", "precious");
        let link = format!("{DATA}/{name}");
        host.sh(&format!(
            "mkdir -p {DATA}/{}",
            name.rsplit_once('/').map_or("", |(dir, _)| dir)
        ));
        let is_dir = matches!(name, "net" | ".trestle" | ".trestle/net");
        let target = if is_dir {
            "/run/outside"
        } else {
            "/run/outside/file"
        };
        host.sh(&format!("ln -s {target} {link}"));
        let added = plugin.call("ADD", &network(), &call);
        if !added.ok() {
            added.error();
        }
        let deleted = plugin.call("DEL", &network(), &call);
        if !deleted.ok() {
            deleted.error();
        }
        assert_eq!(host.list("/run/outside"), ["file"], "{name}: {added}");
        let content = host.read("/run/outside/file");
        assert_eq!(content.as_deref(), Some("precious"), "{name}: {added}");
    }
}

/// What the files of ours may hold by accident.
const GARBAGE: [&str; 6] = [
    "",
    "{",
    "\u{0}\u{0}\u{0}",
    "null",
    "[[[[[[[[",
    "{\"version\": 99}",
];

fn garbage_in_the_state_harms_nobody(lab: &Lab) {
    for garbage in GARBAGE {
        let host = Host::new();
        let plugin = lab.plugin(&host, "bridge");
        let (a, b) = (Call::of(&host.pod("a")), Call::of(&host.pod("b")));
        let before = host.observe();
        plugin.add(&network(), &a);
        for name in ["index", "new", "a:eth0", "b:eth0", ".0123", "::"] {
            host.write(&format!("{DATA}/.trestle/net/{name}"), garbage);
        }
        host.write(&format!("{STATE}/10.1.0.3"), garbage);
        host.write(&format!("{STATE}/last_reserved_ip.0"), garbage);
        host.write(&format!("{STATE}/10.1.0.999"), garbage);
        let result = plugin.add(&network(), &b);
        let given = result["ips"][0]["address"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        assert_ne!(given, "10.1.0.2/24", "held by a");
        assert_eq!(plugin.call("ADD", &network(), &a).status.code(), Some(1));
        plugin.check(&network(), &result, &b).succeeded();
        plugin.del(&network(), &a);
        plugin.del(&network(), &b);
        host.sh(&format!("rm -f {STATE}/10.1.0.3 {STATE}/10.1.0.999"));
        // Garbage may look like somebody's name, who is forgotten when the next one looks.
        plugin.del(&network(), &a);
        let left = host.observe().leftovers(&before);
        assert!(left.is_empty(), "{garbage:?}: {left:?}");
    }
}

fn a_lock_of_a_process_that_died_is_free(lab: &Lab) {
    let host = Host::new();
    let call = attachment(&host);
    host.write(&format!("{STATE}/lock"), "");
    host.script(
        "/run/die",
        &format!("#!/bin/sh\nexec 9<{STATE}/lock\nflock -x 9\nkill -KILL $$\n"),
    );
    host.run(Program::new("/run/die"));
    lab.plugin(&host, "bridge").add(&network(), &call);
}

/// A process that takes the lock and keeps it for so many seconds, which has it when this returns.
fn hold(host: &Host, seconds: u32) {
    host.write(&format!("{STATE}/lock"), "");
    let text = format!(
        "#!/bin/sh\nexec 9<{STATE}/lock\nflock -x 9\nexec 1>&- 2>&- 0<&-\n(exec sleep {seconds}) &\n"
    );
    host.script("/run/hold", &text);
    host.sh("/run/hold");
}

fn a_lock_is_waited_for(lab: &Lab) {
    let host = Host::new();
    let call = attachment(&host);
    hold(&host, 1);
    lab.plugin(&host, "bridge").add(&network(), &call);
}

fn a_lock_that_stays_held_is_an_error_that_names_the_holder(lab: &Lab) {
    let host = Host::new();
    let call = attachment(&host);
    hold(&host, 90);
    let before = host.observe();
    let output = lab.plugin(&host, "bridge").call("ADD", &network(), &call);
    assert_eq!(code(&output), 11, "{output}");
    let text = output.text();
    assert!(
        text.contains("lock") && text.contains("process "),
        "{output}"
    );
    host.assert_nothing_left(&before, &[]);
}
