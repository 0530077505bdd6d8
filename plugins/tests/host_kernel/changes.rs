//! Several changes in one message.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};
use nix::errno::Errno;
use plugins::host::Sysctl;
use plugins::host::rtnl::{AddressOptions, Change, LinkChange, NewRoute, RouteFilter};

use super::support::{Needs, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "changes_are_made_in_their_order",
        Needs::Root,
        in_their_order,
    );
    tests.add(
        "changes_name_the_first_that_was_refused",
        Needs::Root,
        first_refusal,
    );
    tests.add("changes_may_be_many", Needs::Root, many);
    tests.add("changes_may_be_none", Needs::Root, none);
    tests.add(
        "more_refusals_than_the_receive_buffer_holds_name_the_first",
        Needs::Root,
        many_refusals,
    );
    tests.add(
        "link_can_be_told_to_notify_neighbours",
        Needs::Root,
        arp_notify,
    );
    tests.add(
        "link_can_do_without_a_link_local_address",
        Needs::Root,
        no_link_local,
    );
}

fn address(link: u32, text: &str) -> Change<'static> {
    Change::Address {
        link,
        net: text.parse().unwrap(),
        options: AddressOptions::default(),
    }
}

fn up(link: u32) -> Change<'static> {
    let change = LinkChange {
        up: Some(true),
        ..LinkChange::default()
    };
    Change::Link { link, change }
}

fn route(link: u32, dst: IpNet) -> Change<'static> {
    Change::Route(NewRoute {
        gateway: Some("10.1.0.1".parse().unwrap()),
        oif: Some(link),
        ..NewRoute::to(dst)
    })
}

/// A route takes an interface that is up, and a gateway that an address leads to.
fn in_their_order(sandbox: &Sandbox) {
    let link = sandbox.lone_veth("veth0", None);
    let down = LinkChange {
        up: Some(false),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(link, &down).unwrap();
    let to = "192.0.2.0/24".parse().unwrap();
    let changes = [address(link, "10.1.0.2/24"), up(link), route(link, to)];
    sandbox.rtnl.apply(&changes).unwrap();
    let filter = RouteFilter {
        dst: Some(to),
        ..RouteFilter::default()
    };
    assert_eq!(sandbox.rtnl.routes(&filter).unwrap().len(), 1);
}

fn first_refusal(sandbox: &Sandbox) {
    let link = sandbox.lone_veth("veth0", None);
    let changes = [
        address(link, "10.1.0.2/24"),
        address(link, "10.1.0.2/24"),
        address(link, "10.1.0.3/24"),
        address(link, "10.1.0.3/24"),
    ];
    let (place, error) = sandbox.rtnl.apply(&changes).unwrap_err();
    assert_eq!(place, 1);
    assert!(error.already_exists(), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("add address 10.1.0.2/24 to veth0: File exists"),
        "{text}"
    );
    // The socket is as good as before, and nobody else's answer is left in it.
    let addresses = sandbox.rtnl.addresses(link).unwrap();
    let ipv4 = addresses.iter().filter(|found| found.net.addr().is_ipv4());
    assert_eq!(ipv4.count(), 2);
}

/// More than acknowledgements fit into a receive buffer, and in all longer than a send buffer.
fn many(sandbox: &Sandbox) {
    const COUNT: u32 = 10_000;
    let link = sandbox.lone_veth("veth0", None);
    let hosts = (0..COUNT).map(|number| Ipv4Addr::from(0xc633_6400 + number));
    let routes = hosts.map(|host| route(link, IpNet::V4(Ipv4Net::from(host))));
    let mut changes = vec![up(link), address(link, "10.1.0.2/24")];
    changes.extend(routes);
    changes.push(up(link + 1_000));
    let (place, error) = sandbox.rtnl.apply(&changes).unwrap_err();
    assert_eq!(place, changes.len() - 1);
    assert_eq!(error.errno(), Some(Errno::ENODEV), "{error}");
    let filter = RouteFilter {
        oif: Some(link),
        ..RouteFilter::default()
    };
    let routes = sandbox.rtnl.routes(&filter).unwrap();
    let gateway = routes.iter().filter(|route| route.gateway.is_some());
    assert_eq!(gateway.count(), COUNT as usize);
}

fn none(sandbox: &Sandbox) {
    sandbox.rtnl.apply(&[]).unwrap();
}

fn many_refusals(sandbox: &Sandbox) {
    let link = sandbox.lone_veth("veth0", None);
    let mut changes = vec![address(link, "10.1.0.2/24")];
    changes.extend(vec![up(link + 1_000); 60_000]);
    changes.push(address(link, "10.1.0.3/24"));
    let (place, error) = sandbox.rtnl.apply(&changes).unwrap_err();
    assert_eq!(place, 1);
    assert_eq!(error.errno(), Some(Errno::ENODEV), "{error}");
    let addresses = sandbox.rtnl.addresses(link).unwrap();
    let ipv4 = addresses.iter().filter(|found| found.net.addr().is_ipv4());
    assert_eq!(ipv4.count(), 2);
}

fn arp_notify(sandbox: &Sandbox) {
    let link = sandbox.lone_veth("veth0", None);
    let change = LinkChange {
        arp_notify: true,
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(link, &change).unwrap();
    let sysctl = |key| Sysctl::ipv4_conf("veth0", key).read().unwrap();
    assert_eq!(sysctl("arp_notify"), "1");
    // And nothing else: the request could carry every setting.
    assert_eq!(sysctl("accept_redirects"), "1");
}

fn no_link_local(sandbox: &Sandbox) {
    let quiet = LinkChange {
        up: Some(true),
        no_link_local: true,
        ..LinkChange::default()
    };
    let link = sandbox.lone_veth("veth0", None);
    sandbox.rtnl.set_link(link, &quiet).unwrap();
    let mode = Sysctl::ipv6_conf("veth0", "addr_gen_mode");
    assert_eq!(mode.read().unwrap(), "1");
    // There is no IPv6 below its smallest MTU.
    let small = LinkChange {
        mtu: Some(1000),
        ..LinkChange::default()
    };
    sandbox.rtnl.set_link(link, &small).unwrap();
    let error = sandbox.rtnl.set_link(link, &quiet).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EAFNOSUPPORT), "{error}");
}
