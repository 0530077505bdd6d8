//! Waiting for the kernel's notifications.

use std::thread;
use std::time::Duration;

use plugins::host::rtnl::{
    AddressOptions, LinkChange, NewRoute, PortState, RouteFilter, RouteProtocol, RouteWatch,
};
use plugins::host::{HostError, Rtnl};

use super::support::{LONG, Needs, Pod, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "wait_ends_when_the_port_forwards",
        Needs::Root,
        port_forwards,
    );
    tests.add(
        "wait_ends_when_a_routed_link_is_operational",
        Needs::Root,
        link_runs,
    );
    tests.add("wait_is_bounded", Needs::Root, bounded);
    tests.add(
        "wait_ends_when_the_link_goes_away",
        Needs::Root,
        link_goes_away,
    );
    tests.add(
        "wait_leaves_no_subscription_behind",
        Needs::Root,
        no_subscription_left,
    );
    tests.add(
        "changes_of_routes_addresses_and_links_are_told_and_no_others",
        Needs::Root,
        changes_are_told,
    );
}

fn up(rtnl: &Rtnl, index: u32) {
    rtnl.set_link(
        index,
        &LinkChange {
            up: Some(true),
            ..LinkChange::default()
        },
    )
    .unwrap();
}

/// Does something from another thread, most likely while this one waits.
fn meanwhile(work: impl FnOnce(Rtnl) + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let rtnl = Rtnl::new().unwrap();
        thread::sleep(Duration::from_millis(20));
        work(rtnl);
    })
}

fn port_forwards(sandbox: &Sandbox) {
    let bridge = sandbox.bridge("br0");
    let pod = Pod::new();
    let pair = sandbox.veth("veth0", Some(bridge), &pod);
    let peer = pair.peer_index;
    let other = pod
        .netns
        .enter(|| meanwhile(move |rtnl| up(&rtnl, peer)))
        .unwrap();
    let link = sandbox
        .rtnl
        .wait_until_forwarding(pair.host.index, LONG)
        .unwrap();
    assert_eq!(link.port.unwrap().state, PortState::Forwarding);
    other.join().unwrap();
}

fn link_runs(sandbox: &Sandbox) {
    let pod = Pod::new();
    let pair = sandbox.veth("veth0", None, &pod);
    let peer = pair.peer_index;
    let other = pod
        .netns
        .enter(|| meanwhile(move |rtnl| up(&rtnl, peer)))
        .unwrap();
    assert!(
        sandbox
            .rtnl
            .wait_until_forwarding(pair.host.index, LONG)
            .unwrap()
            .running
    );
    other.join().unwrap();
}

fn bounded(sandbox: &Sandbox) {
    let bridge = sandbox.bridge("br0");
    let index = sandbox.lone_veth("veth0", Some(bridge));
    let bound = Duration::from_millis(30);
    let error = sandbox
        .rtnl
        .wait_until_forwarding(index, bound)
        .unwrap_err();
    assert!(matches!(error, HostError::Timeout { .. }), "{error}");
    assert_eq!(
        error.to_string(),
        "wait until veth0 forwards: still waiting after 30 ms"
    );
}

fn link_goes_away(sandbox: &Sandbox) {
    let bridge = sandbox.bridge("br0");
    let pod = Pod::new();
    let index = sandbox.veth("veth0", Some(bridge), &pod).host.index;
    let other = meanwhile(move |rtnl| assert!(rtnl.delete_link(index).unwrap()));
    let error = sandbox.rtnl.wait_until_forwarding(index, LONG).unwrap_err();
    assert!(matches!(error, HostError::LinkMissing { .. }), "{error}");
    other.join().unwrap();
}

fn no_subscription_left(sandbox: &Sandbox) {
    let pod = Pod::new();
    let pair = sandbox.veth("veth0", None, &pod);
    pod.up(pair.peer_index);
    for _ in 0..3 {
        sandbox
            .rtnl
            .wait_until_forwarding(pair.host.index, LONG)
            .unwrap();
    }
    // Had a subscription stayed, its messages would fill the socket's buffer and requests would
    // fail.
    let other = Rtnl::new().unwrap();
    for round in 0..3000_u32 {
        let change = LinkChange {
            mtu: Some(1400 + round % 2),
            ..LinkChange::default()
        };
        other.set_link(pair.host.index, &change).unwrap();
    }
    assert!(
        sandbox
            .rtnl
            .link_by_index(pair.host.index)
            .unwrap()
            .is_some()
    );
}

/// Whether a change is told. What was told before is read first.
fn is_told(watch: &RouteWatch, change: impl FnOnce()) -> bool {
    while watch.wait(Duration::ZERO).unwrap() {}
    change();
    watch.wait(Duration::from_millis(100)).unwrap()
}

fn changes_are_told(sandbox: &Sandbox) {
    let bridge = sandbox.bridge("br0");
    let watch = RouteWatch::begin().unwrap();
    let rtnl = &sandbox.rtnl;
    let net = "192.0.2.1/24".parse().unwrap();
    assert!(is_told(&watch, || rtnl
        .add_address(bridge, net, AddressOptions::default())
        .unwrap()));
    let route = NewRoute {
        gateway: Some("192.0.2.2".parse().unwrap()),
        protocol: Some(RouteProtocol::from(116)),
        ..NewRoute::to("198.51.100.0/24".parse().unwrap())
    };
    assert!(is_told(&watch, || rtnl.add_route(&route).unwrap()));
    let marked = rtnl
        .routes(&RouteFilter {
            dst: Some(route.dst),
            ..RouteFilter::default()
        })
        .unwrap();
    assert_eq!(marked[0].protocol, RouteProtocol::from(116));
    // One that is another's is not deleted.
    let others = NewRoute {
        protocol: Some(RouteProtocol::Static),
        ..route
    };
    assert!(!rtnl.delete_route(&others).unwrap());
    assert!(is_told(&watch, || assert!(
        rtnl.delete_route(&route).unwrap()
    )));
    let down = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    assert!(is_told(&watch, || rtnl.set_link(bridge, &down).unwrap()));
    let mtu = LinkChange {
        mtu: Some(1400),
        ..LinkChange::default()
    };
    assert!(!is_told(&watch, || rtnl.set_link(bridge, &mtu).unwrap()));
}
