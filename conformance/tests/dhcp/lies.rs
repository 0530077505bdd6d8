//! A server that sends whatever could do harm, before it sends what is right.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use conformance::{Call, Case, Lab, case};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;

use super::{Scene, network};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(lies_of_a_server_do_no_harm),
        case!(lies_alone_are_named_in_the_error),
    ]
}

const ADDRESS: [u8; 4] = [10, 94, 0, 77];

/// An answer of this kind to a client's message, with these options.
fn answer(question: &[u8], kind: u8, address: [u8; 4], options: &[&[u8]]) -> Vec<u8> {
    let mut message = vec![0; 240];
    message[..3].copy_from_slice(&[2, 1, 6]);
    message[4..8].copy_from_slice(&question[4..8]);
    message[16..20].copy_from_slice(&address);
    message[28..44].copy_from_slice(&question[28..44]);
    message[236..240].copy_from_slice(&[99, 130, 83, 99]);
    message.extend([53, 1, kind]);
    options
        .iter()
        .for_each(|option| message.extend_from_slice(option));
    message.push(255);
    message
}

const MASK: &[u8] = &[1, 4, 255, 255, 255, 0];
const SERVER: &[u8] = &[54, 4, 10, 94, 0, 1];
const HOUR: &[u8] = &[51, 4, 0, 0, 14, 16];

fn lies(question: &[u8], kind: u8) -> Vec<Vec<u8>> {
    let with = |address, options: &[&[u8]]| answer(question, kind, address, options);
    let right = with(ADDRESS, &[MASK, SERVER, HOUR]);
    let mut another_transaction = right.clone();
    another_transaction[7] ^= 1;
    another_transaction[19] = 66;
    let mut for_another = right.clone();
    for_another[33] ^= 1;
    let mut long = vec![224_u8, 255];
    long.extend([0xff; 255]);
    let cut = &right[..right.len() - 8];
    vec![
        with(ADDRESS, &[MASK, SERVER, &[51, 4, 0, 0, 0, 0]]),
        with([0; 4], &[MASK, SERVER, HOUR]),
        with([255; 4], &[MASK, SERVER, HOUR]),
        with(ADDRESS, &[&[1, 4, 255, 0, 255, 0], SERVER, HOUR]),
        with(ADDRESS, &[MASK, HOUR]),
        with(ADDRESS, &[SERVER, HOUR]),
        // Names that lead to themselves, a table of routes that is cut, an option beyond the end.
        with(
            ADDRESS,
            &[&[119, 2, 0xc0, 0], &[121, 3, 24, 10, 9], MASK, HOUR],
        ),
        with(ADDRESS, &[&[77, 255]]),
        with(ADDRESS, &[&long, &long, &long, &long, &long]),
        another_transaction,
        for_another,
        cut.to_vec(),
        right[..200].to_vec(),
        vec![0xff; 1400],
        vec![2],
        Vec::new(),
    ]
}

/// Answers every message: with lies, and if it is to, with the truth after them.
fn serve(socket: &UdpSocket, truth: bool, ends: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !ends.load(Ordering::Relaxed) {
        let Ok(length) = socket.recv(&mut buffer) else {
            continue;
        };
        let question = &buffer[..length];
        let kind = match question[240..].windows(3).find(|it| it[..2] == [53, 1]) {
            Some([.., 1]) => 2,
            Some([.., 3]) => 5,
            _ => continue,
        };
        let truth = truth.then(|| {
            let name = b"\x0f\x10a\nnameserver evil";
            answer(question, kind, ADDRESS, &[MASK, SERVER, HOUR, &name[..18]])
        });
        for message in lies(question, kind).into_iter().chain(truth) {
            let _ = socket.send_to(&message, "255.255.255.255:68");
        }
    }
}

/// Runs `work` beside such a server.
fn beside(scene: &Scene, truth: bool, work: impl FnOnce()) {
    let socket = scene.outside.enter(|| {
        let socket = UdpSocket::bind("0.0.0.0:67").expect("the server's port");
        socket.set_broadcast(true).expect("broadcasts");
        setsockopt(&socket, sockopt::BindToDevice, &"eth0".into()).expect("the cable");
        let limit = Some(Duration::from_millis(100));
        socket.set_read_timeout(limit).expect("a limit");
        socket
    });
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| serve(&socket, truth, &ends));
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        ends.store(true, Ordering::Relaxed);
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn lies_of_a_server_do_no_harm(lab: &Lab) {
    let scene = Scene::new();
    let daemon = scene.daemon(lab);
    let pod = scene.host.pod("pod");
    beside(&scene, true, || {
        let plugin = lab.plugin(&scene.host, "macvlan");
        let result = plugin.add(&network(json!({})), &Call::of(&pod));
        assert_eq!(result["ips"][0]["address"], "10.94.0.77/24");
        assert!(result["dns"].is_null(), "{result}");
        assert_eq!(pod.addresses("eth0"), ["10.94.0.77/24"]);
        plugin.del(&network(json!({})), &Call::of(&pod));
    });
    assert!(!daemon.log().contains("panicked"), "{}", daemon.log());
}

fn lies_alone_are_named_in_the_error(lab: &Lab) {
    let scene = Scene::new();
    let _daemon = scene.daemon(lab);
    let pod = scene.host.pod("pod");
    let before = scene.host.observe();
    beside(&scene, false, || {
        let plugin = lab.plugin(&scene.host, "macvlan");
        let error = plugin.add_error(&network(json!({})), &Call::of(&pod));
        let msg = error["msg"].as_str().unwrap_or_default();
        assert!(
            msg.contains("no lease within 8 s; a server gives"),
            "{error}"
        );
    });
    assert!(pod.link("eth0").is_none() && scene.leases().is_empty());
    scene.host.assert_nothing_left(&before, &["pod"]);
}
