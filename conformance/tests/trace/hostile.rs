//! Containers, names and users that mean ill, and hosts that lack something.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};

use conformance::{Case, Host, Lab, Need, Output, Program, Protocol, case};
use serde_json::{Value, json};

use super::{Node, at, shell};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(names_and_comments_are_shown_without_what_a_terminal_obeys),
        case!(a_path_that_is_no_namespace_is_an_error_at_once),
        case!(a_container_that_floods_is_followed_no_farther_than_is_worth_it),
        case!(two_at_once_tell_their_own_packets).needs(Need::BridgeNetfilter),
        case!(without_connection_tracking_it_is_followed_all_the_same).needs(Need::BridgeNetfilter),
        case!(a_user_without_rights_is_refused),
        case!(without_nf_tables_it_is_said_what_is_missing),
    ]
}

fn names_and_comments_are_shown_without_what_a_terminal_obeys(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    let inside = "e=$(printf 'e\\033[2Jx'); ip link set eth0 name \"$e\"";
    shell(&b, inside);
    let (old, outside) = (b.end(), "v=$(printf 'v\\033]0;x\\007')");
    shell(&node, &format!("{outside}; ip link set {old} name \"$v\""));
    let long = "x".repeat(120);
    let rules = "add table bridge admin\nadd chain bridge admin f { type filter hook forward priority 0 ; }\n".to_owned()
        + &format!("add rule bridge admin f tcp dport 81 counter comment \"\u{1b}[31m{long}\"\n")
        + "add rule bridge admin f tcp dport 81 drop comment \"\u{1b}[2Jgone\"\n";
    node.run(Program::new("nft").args(["-f", "-"]).stdin(rules))
        .succeeded();
    for to in b.ips() {
        let path = a.netns();
        let text = node.call(&[&path, &at(to, 81)]).text();
        assert!(!text.contains(['\u{1b}', '\u{7}']), "{text:?}");
        // JSON has them spelled out.
        let parsed = node.trace(&[&path, &at(to, 81)]);
        parsed
            .is("dropped", &["bridge admin f"])
            .has("there", "v\u{1b}]0;x\u{7}")
            .has("there", "(\u{1b}[2Jgone): drop");
    }
}

fn a_path_that_is_no_namespace_is_an_error_at_once(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let _a = node.join("a");
    shell(
        &node,
        "mkfifo /run/fifo; ln -s loop2 /run/loop1; ln -s loop1 /run/loop2; touch /run/file",
    );
    for path in [
        "/run/fifo",
        "/run/loop1",
        "/run/file",
        "/run",
        "/dev/zero",
        "/proc/1/ns/mnt",
    ] {
        let output = node.call(&[path, "10.1.0.1", "--json"]);
        assert_eq!(output.status.code(), Some(3), "{path}: {output}");
        assert!(output.stderr.contains(path), "{path}: {output}");
    }
}

fn a_container_that_floods_is_followed_no_farther_than_is_worth_it(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    let to = std::net::SocketAddr::new(b.ips()[0], 9000);
    let done = AtomicBool::new(false);
    let sockets: Vec<UdpSocket> = (0..64)
        .map(|_| a.enter(|| UdpSocket::bind("0.0.0.0:0")).expect("a socket"))
        .collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for socket in &sockets {
                    let _ = socket.send_to(b"flood", to);
                }
            }
        });
        let seen = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let trace = node.trace(&[
                &a.netns(),
                &to.to_string(),
                "--udp",
                "--live",
                "--timeout",
                "20",
            ]);
            trace.has("there", &format!("bridge forward in {}", a.end()));
            // What others of that pod send does not matter to a packet of our own.
            let _server = b.serve(Protocol::Tcp, b.ips()[0], 8080);
            node.trace(&[&a.netns(), &at(b.ips()[0], 8080), "--timeout", "20"])
                .is("answered", &[]);
        }));
        done.store(true, Ordering::Relaxed);
        seen.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn two_at_once_tell_their_own_packets(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    node.bridge_netfilter(true);
    let (ip, trestle) = (b.ips()[0], lab.bin().join("trestle"));
    let _server = b.serve(Protocol::Tcp, ip, 8080);
    // Each is number 1 of a PID namespace of its own, so their tables would have one name.
    let call = |port: u16| -> Output {
        let program = Program::new("unshare")
            .args(["--pid", "--fork"])
            .args([&trestle]);
        let to = at(ip, port);
        node.run(program.args([
            "trace",
            "--conf-dir",
            Host::NET_D,
            "--json",
            &a.netns(),
            &to,
            "--timeout",
            "3",
        ]))
    };
    node.sh("nft add table inet admin");
    node.sh("nft add chain inet admin f { type filter hook forward priority 0 ; }");
    node.sh("nft add rule inet admin f tcp dport 8081 drop");
    let outputs: Vec<(u16, Output)> = std::thread::scope(|scope| {
        let call = &call;
        let all: Vec<_> = [8081, 8080, 8081, 8080]
            .into_iter()
            .map(|port| (port, scope.spawn(move || call(port))))
            .collect();
        all.into_iter()
            .map(|(port, it)| (port, it.join().expect("a trace")))
            .collect()
    });
    for (port, output) in outputs {
        let trace: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output}"));
        let wanted = if port == 8080 { "answered" } else { "dropped" };
        assert_eq!(trace["verdict"]["id"], wanted, "{trace:#}");
        let other = format!(":{}", if port == 8080 { 8081 } else { 8080 });
        let steps = trace["steps"].to_string();
        assert!(!steps.contains(&other), "{trace:#}");
    }
    assert!(!node.sh("nft list tables").contains("trestle-trace"));
}

fn without_connection_tracking_it_is_followed_all_the_same(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    node.bridge_netfilter(true);
    node.sh("nft add table inet off");
    node.sh("nft add chain inet off raw { type filter hook prerouting priority -300 ; }");
    node.sh("nft add rule inet off raw notrack");
    let web = conformance::Service::new("WEB", Protocol::Tcp, "10.96.0.1:80", &["10.1.0.3:8080"]);
    node.kube_proxy(conformance::ProxyMode::Nftables, &["10.1.0.0/16"], &[web]);
    for ip in b.ips() {
        let _server = b.serve(Protocol::Tcp, ip, 8080);
        node.follow(&a, &at(ip, 8080)).is("answered", &[]);
    }
    // Nobody translates what is not tracked.
    node.follow(&a, "10.96.0.1:80")
        .is("no-answer", &["left by up0 to 10.96.0.1:80"])
        .lacks("becomes");
}

fn a_user_without_rights_is_refused(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    node.run(Program::new("cp").args([
        lab.bin().join("trestle").as_os_str(),
        "/run/trestle".as_ref(),
    ]))
    .succeeded();
    shell(&node, "chmod 755 /run/trestle /run");
    let nobody = Program::new("setpriv").args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "/run/trestle",
    ]);
    let output = node.run(nobody.args(["trace", &a.netns(), "10.1.0.1", "--json"]));
    assert_eq!(output.status.code(), Some(3), "{output}");
    assert!(output.stderr.contains("root"), "{output}");
}

fn without_nf_tables_it_is_said_what_is_missing(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    let trestle = lab.bin().join("trestle").to_string_lossy().into_owned();
    // The first socket is the one for nftables, which musl asks for twice, as kernels of old want it.
    let fault = "--inject=socket:error=EPROTONOSUPPORT:when=1..2";
    let strace =
        Program::new("strace").args(["-f", "-qq", "-o", "/dev/null", "--trace=socket", fault]);
    let output = node.run(strace.args([&trestle, "trace", &a.netns(), "10.1.0.1"]));
    assert_eq!(output.status.code(), Some(3), "{output}");
    assert!(output.stderr.contains("modprobe nf_tables"), "{output}");
}
