//! Routes.

use std::net::IpAddr;
use std::process::Command;

use ipnet::IpNet;
use nix::errno::Errno;
use plugins::host::rtnl::{
    AddressOptions, Family, NewRoute, Route, RouteFilter, RouteProtocol, RouteScope,
};

use super::support::{Needs, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "route_is_added_once_and_replaced",
        Needs::Root,
        added_and_replaced,
    );
    tests.add("route_default_of_both_families", Needs::Root, defaults);
    tests.add("route_keeps_every_attribute", Needs::Root, attributes);
    tests.add("route_table_above_255_works", Needs::Root, big_table);
    tests.add(
        "route_of_a_table_that_is_empty_is_none",
        Needs::Root,
        empty_table,
    );
    tests.add(
        "route_via_an_unreachable_gateway_says_so",
        Needs::Root,
        unreachable,
    );
    tests.add("route_on_link_needs_no_address", Needs::Root, onlink);
    tests.add("route_ipv4_via_an_ipv6_router", Needs::Root, via_ipv6);
    tests.add("route_can_be_deleted_twice", Needs::Root, deleted);
    tests.add(
        "route_from_router_advertisements_is_told_as_such",
        Needs::Ip,
        advertised,
    );
    tests.add(
        "route_with_several_next_hops_tells_all_links",
        Needs::Ip,
        multipath,
    );
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A bridge with addresses 10.1.0.1/24 and fd00:1::1/64.
fn bridge(sandbox: &Sandbox) -> u32 {
    let link = sandbox.bridge("br0");
    let options = AddressOptions {
        nodad: true,
        ..AddressOptions::default()
    };
    sandbox
        .rtnl
        .add_address(link, net("10.1.0.1/24"), options)
        .unwrap();
    sandbox
        .rtnl
        .add_address(link, net("fd00:1::1/64"), options)
        .unwrap();
    link
}

fn find(sandbox: &Sandbox, dst: &str) -> Vec<Route> {
    let filter = RouteFilter {
        dst: Some(net(dst)),
        table: None,
        ..RouteFilter::default()
    };
    sandbox.rtnl.routes(&filter).unwrap()
}

fn added_and_replaced(sandbox: &Sandbox) {
    let link = bridge(sandbox);
    for (dst, first, second) in [
        ("10.9.0.0/16", "10.1.0.2", "10.1.0.3"),
        ("fd00:9::/48", "fd00:1::2", "fd00:1::3"),
    ] {
        let via = |router| NewRoute {
            gateway: Some(ip(router)),
            oif: Some(link),
            ..NewRoute::to(net(dst))
        };
        sandbox.rtnl.add_route(&via(first)).unwrap();
        for again in [first, second] {
            let error = sandbox.rtnl.add_route(&via(again)).unwrap_err();
            assert!(error.already_exists(), "{error}");
            let text = format!("add route {dst} via {again} dev br0: File exists");
            assert!(error.to_string().starts_with(&text), "{error}");
        }
        sandbox.rtnl.replace_route(&via(second)).unwrap();
        let routes = find(sandbox, dst);
        assert_eq!(routes.len(), 1);
        assert_eq!(routes[0].gateway, Some(ip(second)));
        assert_eq!(
            (routes[0].oif, routes[0].protocol),
            (Some(link), RouteProtocol::Boot)
        );
    }
}

fn defaults(sandbox: &Sandbox) {
    let link = bridge(sandbox);
    assert!(sandbox.rtnl.default_routes(Family::V4).unwrap().is_empty());
    assert!(sandbox.rtnl.default_routes(Family::V6).unwrap().is_empty());
    for (dst, router) in [("0.0.0.0/0", "10.1.0.2"), ("::/0", "fd00:1::2")] {
        let new = NewRoute {
            gateway: Some(ip(router)),
            ..NewRoute::to(net(dst))
        };
        sandbox.rtnl.add_route(&new).unwrap();
        let routes = find(sandbox, dst);
        assert_eq!(
            (routes.len(), routes[0].dst, routes[0].oif),
            (1, net(dst), Some(link))
        );
    }
    for (family, router) in [(Family::V4, "10.1.0.2"), (Family::V6, "fd00:1::2")] {
        let found = sandbox.rtnl.default_routes(family).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].link, found[0].gateway), (link, Some(ip(router))));
        assert!(!found[0].from_router_advertisement);
    }
    let by_link = RouteFilter {
        oif: Some(link),
        family: Some(Family::V4),
        ..RouteFilter::default()
    };
    assert_eq!(sandbox.rtnl.routes(&by_link).unwrap().len(), 2);
    let elsewhere = RouteFilter {
        oif: Some(1),
        ..RouteFilter::default()
    };
    assert!(sandbox.rtnl.routes(&elsewhere).unwrap().is_empty());
}

fn attributes(sandbox: &Sandbox) {
    let link = bridge(sandbox);
    for (dst, router, own) in [
        ("10.9.0.0/16", "10.1.0.2", "10.1.0.1"),
        ("fd00:9::/48", "fd00:1::2", "fd00:1::1"),
    ] {
        let new = NewRoute {
            gateway: Some(ip(router)),
            mtu: Some(1400),
            advmss: Some(1300),
            priority: Some(77),
            table: Some(100),
            src: Some(ip(own)),
            ..NewRoute::to(net(dst))
        };
        sandbox.rtnl.add_route(&new).unwrap();
        let routes = find(sandbox, dst);
        let route = &routes[0];
        assert_eq!(
            (route.mtu, route.advmss, route.priority),
            (Some(1400), Some(1300), 77)
        );
        assert_eq!(
            (route.table, route.src, route.oif),
            (100, Some(ip(own)), Some(link))
        );
        let main = RouteFilter {
            dst: Some(net(dst)),
            ..RouteFilter::default()
        };
        assert!(sandbox.rtnl.routes(&main).unwrap().is_empty());
    }
    let scoped = NewRoute {
        scope: Some(RouteScope::Host),
        oif: Some(link),
        ..NewRoute::to(net("10.8.0.0/16"))
    };
    sandbox.rtnl.add_route(&scoped).unwrap();
    assert_eq!(find(sandbox, "10.8.0.0/16")[0].scope, RouteScope::Host);
    let plain = NewRoute {
        oif: Some(link),
        ..NewRoute::to(net("10.7.1.2/16"))
    };
    sandbox.rtnl.add_route(&plain).unwrap();
    assert_eq!(find(sandbox, "10.7.0.0/16")[0].scope, RouteScope::Link);
}

fn big_table(sandbox: &Sandbox) {
    let link = bridge(sandbox);
    for dst in ["10.9.0.0/16", "fd00:9::/48"] {
        let new = NewRoute {
            oif: Some(link),
            table: Some(100_000),
            ..NewRoute::to(net(dst))
        };
        sandbox.rtnl.add_route(&new).unwrap();
        let filter = RouteFilter {
            table: Some(100_000),
            ..RouteFilter::default()
        };
        let routes = sandbox.rtnl.routes(&filter).unwrap();
        assert_eq!(
            (routes.len(), routes[0].dst, routes[0].table),
            (1, net(dst), 100_000)
        );
        assert!(sandbox.rtnl.delete_route(&new).unwrap());
    }
}

fn empty_table(sandbox: &Sandbox) {
    let filter = RouteFilter {
        table: Some(4711),
        ..RouteFilter::default()
    };
    assert!(sandbox.rtnl.routes(&filter).unwrap().is_empty());
    let filter = RouteFilter {
        oif: Some(4711),
        ..RouteFilter::default()
    };
    assert!(sandbox.rtnl.routes(&filter).unwrap().is_empty());
}

fn unreachable(sandbox: &Sandbox) {
    bridge(sandbox);
    let new = NewRoute {
        gateway: Some(ip("192.0.2.1")),
        ..NewRoute::to(net("0.0.0.0/0"))
    };
    let error = sandbox.rtnl.add_route(&new).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::ENETUNREACH));
    assert_eq!(
        error.to_string(),
        "add route 0.0.0.0/0 via 192.0.2.1: Network is unreachable (Nexthop has invalid gateway)"
    );
}

fn onlink(sandbox: &Sandbox) {
    let link = bridge(sandbox);
    let new = NewRoute {
        gateway: Some(ip("192.0.2.1")),
        oif: Some(link),
        onlink: true,
        ..NewRoute::to(net("10.9.0.0/16"))
    };
    sandbox.rtnl.add_route(&new).unwrap();
    assert_eq!(
        find(sandbox, "10.9.0.0/16")[0].gateway,
        Some(ip("192.0.2.1"))
    );
}

fn via_ipv6(sandbox: &Sandbox) {
    let link = bridge(sandbox);
    let new = NewRoute {
        gateway: Some(ip("fd00:1::2")),
        oif: Some(link),
        ..NewRoute::to(net("10.9.0.0/16"))
    };
    sandbox.rtnl.add_route(&new).unwrap();
    assert_eq!(
        find(sandbox, "10.9.0.0/16")[0].gateway,
        Some(ip("fd00:1::2"))
    );
}

fn deleted(sandbox: &Sandbox) {
    let link = bridge(sandbox);
    for dst in ["10.9.0.0/16", "fd00:9::/48"] {
        let new = NewRoute {
            oif: Some(link),
            ..NewRoute::to(net(dst))
        };
        sandbox.rtnl.add_route(&new).unwrap();
        assert!(
            sandbox.rtnl.delete_route(&NewRoute::to(net(dst))).unwrap(),
            "{dst}"
        );
        assert!(
            !sandbox.rtnl.delete_route(&NewRoute::to(net(dst))).unwrap(),
            "{dst}"
        );
    }
}

/// Runs `ip` in the test's own namespace.
fn run_ip(arguments: &str) {
    let done = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .unwrap();
    assert!(
        done.status.success(),
        "ip {arguments}: {}",
        String::from_utf8_lossy(&done.stderr)
    );
}

fn advertised(sandbox: &Sandbox) {
    let link = bridge(sandbox);
    run_ip("-6 route add default via fd00:1::2 dev br0 proto ra metric 5");
    let found = sandbox.rtnl.default_routes(Family::V6).unwrap();
    assert_eq!(found.len(), 1);
    assert!(found[0].from_router_advertisement && found[0].link == link);
}

fn multipath(sandbox: &Sandbox) {
    let (a, b) = (bridge(sandbox), sandbox.bridge("br1"));
    let options = AddressOptions {
        nodad: true,
        ..AddressOptions::default()
    };
    sandbox
        .rtnl
        .add_address(b, net("10.2.0.1/24"), options)
        .unwrap();
    run_ip("route add default nexthop via 10.1.0.2 dev br0 nexthop via 10.2.0.2 dev br1");
    let links: Vec<_> = sandbox
        .rtnl
        .default_routes(Family::V4)
        .unwrap()
        .iter()
        .map(|route| route.link)
        .collect();
    assert_eq!(links, [a, b]);
}
