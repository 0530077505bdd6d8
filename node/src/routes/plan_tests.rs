use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// On 192.168.0.0/24 and fd00:1::/64, with a router and pods of its own.
fn host() -> HostView {
    let mut host = HostView::default();
    host.add_route(net("0.0.0.0/0"), Some(ip("192.168.0.254")), 2);
    host.add_route(net("192.168.0.0/24"), None, 2);
    host.add_route(net("fd00:1::/64"), None, 2);
    host.add_route(net("10.244.0.0/24"), None, 5);
    host.add_address(ip("192.168.0.1"), 2);
    host.add_address(ip("fd00:1::1"), 2);
    host.add_address(ip("10.244.0.1"), 5);
    host
}

fn facts(since: i128, subnets: &[&str], addresses: &[&str]) -> Facts {
    Facts {
        since,
        subnets: subnets.iter().map(|it| net(it)).collect(),
        garbage: Vec::new(),
        addresses: addresses.iter().map(|it| ip(it)).collect(),
    }
}

fn cluster(others: &[(&str, Facts)]) -> BTreeMap<String, Facts> {
    let own = facts(1, &["10.244.0.0/24"], &["192.168.0.1", "fd00:1::1"]);
    let mut nodes = BTreeMap::from([("me".to_owned(), own)]);
    nodes.extend(
        others
            .iter()
            .map(|(name, facts)| ((*name).to_owned(), facts.clone())),
    );
    nodes
}

fn planned(others: &[(&str, Facts)]) -> Plan {
    planned_on(&cluster(others), &host(), &[])
}

fn planned_on(nodes: &BTreeMap<String, Facts>, host: &HostView, cluster: &[IpNet]) -> Plan {
    planned_with(nodes, host, cluster, &BTreeMap::new())
}

fn planned_with(
    nodes: &BTreeMap<String, Facts>,
    host: &HostView,
    cluster: &[IpNet],
    there: &BTreeMap<IpNet, NextHop>,
) -> Plan {
    plan(&Situation {
        own: "me",
        nodes,
        host,
        cluster,
        there,
    })
}

#[test]
fn what_a_node_has_stopped_to_say_takes_no_route_away() {
    let hop = |via: &str| NextHop {
        via: ip(via),
        link: 2,
    };
    let there = BTreeMap::from([
        (net("10.244.1.0/24"), hop("192.168.0.2")),
        (net("10.244.2.0/24"), hop("192.168.0.3")),
        (net("10.244.3.0/24"), hop("192.168.0.4")),
    ]);
    let nodes = |taker: &[&str]| {
        cluster(&[
            ("no-subnet", facts(2, &[], &["192.168.0.2"])),
            ("no-address", facts(3, &["10.244.2.0/24"], &[])),
            ("taker", facts(4, taker, &["192.168.0.9"])),
        ])
    };
    let plan = planned_with(&nodes(&["10.244.7.0/24"]), &host(), &[], &there);
    let routed: Vec<_> = plan.routes.keys().map(ToString::to_string).collect();
    // That of a node that is gone goes.
    assert_eq!(routed, ["10.244.1.0/24", "10.244.2.0/24", "10.244.7.0/24"]);
    // And what another node is given is the other node's.
    let plan = planned_with(&nodes(&["10.244.1.0/24"]), &host(), &[], &there);
    assert_eq!(plan.routes[&net("10.244.1.0/24")], hop("192.168.0.9"));
    assert_eq!(plan.routes.len(), 2);
}

#[test]
fn an_own_subnet_that_no_pods_can_have_is_told_apart() {
    for (subnet, label) in [
        ("0.0.0.0/0", "invalid_subnet"),
        ("192.168.0.0/24", "host_network"),
        ("10.244.0.0/24", ""),
    ] {
        let own = facts(1, &[subnet], &["192.168.0.1"]);
        let nodes = BTreeMap::from([("me".to_owned(), own)]);
        let found = planned_on(&nodes, &host(), &[])
            .own
            .map_or("", |it| it.reason.label());
        assert_eq!(found, label, "{subnet}");
    }
}

fn reasons(plan: &Plan) -> Vec<&Reason> {
    plan.refusals.iter().map(|it| &it.reason).collect()
}

#[test]
fn each_subnet_goes_by_the_address_of_its_family() {
    let other = facts(
        2,
        &["10.244.1.0/24", "fd00:244:1::/64"],
        &["192.168.0.2", "fd00:1::2"],
    );
    let plan = planned(&[("other", other)]);
    let hop = |via: &str| NextHop {
        via: ip(via),
        link: 2,
    };
    let expected = [
        (net("10.244.1.0/24"), hop("192.168.0.2")),
        (net("fd00:244:1::/64"), hop("fd00:1::2")),
    ];
    assert_eq!(plan.routes, BTreeMap::from(expected));
    assert_eq!(plan.refusals, []);
}

#[test]
fn a_node_without_a_subnet_waits_and_one_without_an_address_is_refused() {
    let plan = planned(&[
        ("new", facts(2, &[], &["192.168.0.2"])),
        ("lost", facts(3, &["10.244.1.0/24"], &[])),
        ("half", facts(4, &["fd00:244:2::/64"], &["192.168.0.3"])),
    ]);
    assert_eq!((plan.waiting, plan.routes.len()), (1, 0));
    assert_eq!(reasons(&plan), [&Reason::NoAddress, &Reason::NoAddress]);
}

#[test]
fn of_two_with_one_subnet_the_older_has_it_whatever_they_are_called() {
    let claim = |since, address| facts(since, &["10.244.1.0/24"], &[address]);
    let plan = planned(&[
        ("a", claim(9, "192.168.0.2")),
        ("z", claim(5, "192.168.0.3")),
    ]);
    assert_eq!(plan.routes[&net("10.244.1.0/24")].via, ip("192.168.0.3"));
    let by = Reason::Taken {
        by: "z".into(),
        net: net("10.244.1.0/24"),
    };
    assert_eq!(reasons(&plan), [&by]);
    // Nor does a wider or a narrower one get past it.
    let wide = facts(9, &["10.244.0.0/22", "10.244.1.128/25"], &["192.168.0.2"]);
    let plan = planned(&[("a", wide), ("z", claim(5, "192.168.0.3"))]);
    assert_eq!(plan.routes.len(), 1);
}

#[test]
fn what_would_take_traffic_from_others_is_refused() {
    for (subnet, label) in [
        ("0.0.0.0/0", "invalid_subnet"),
        ("0.0.0.0/1", "invalid_subnet"),
        ("128.0.0.0/1", "invalid_subnet"),
        ("::/0", "invalid_subnet"),
        ("8000::/1", "invalid_subnet"),
        ("127.0.0.0/16", "invalid_subnet"),
        ("169.254.0.0/16", "invalid_subnet"),
        ("224.0.0.0/16", "invalid_subnet"),
        ("fe80::/64", "invalid_subnet"),
        // The hosts' network, around it, a part of it, and one address of it.
        ("192.168.0.0/24", "host_network"),
        ("192.168.0.0/16", "host_network"),
        ("192.168.0.128/25", "host_network"),
        ("192.168.0.3/32", "host_network"),
        ("fd00:1::/64", "host_network"),
        ("10.244.0.0/24", "subnet_taken"),
        ("10.244.0.128/25", "subnet_taken"),
    ] {
        let liar = facts(2, &[subnet], &["192.168.0.2", "fd00:1::2"]);
        let victim = facts(3, &["10.244.3.0/24"], &["192.168.0.3"]);
        let plan = planned(&[("liar", liar), ("victim", victim)]);
        let found: Vec<_> = plan.refusals.iter().map(|it| it.reason.label()).collect();
        assert_eq!(found, [label], "{subnet}");
        assert_eq!(plan.routes.len(), 1, "{subnet}");
    }
}

#[test]
fn routers_behind_the_network_are_no_pods() {
    let mut host = host();
    host.add_route(net("172.31.0.0/16"), Some(ip("10.9.9.9")), 2);
    let liar = facts(2, &["10.9.9.0/24"], &["192.168.0.2"]);
    let plan = planned_on(&cluster(&[("liar", liar)]), &host, &[]);
    assert_eq!(reasons(&plan), [&Reason::Contains(ip("10.9.9.9"))]);
}

#[test]
fn an_address_in_anothers_subnet_takes_nothing_away() {
    // Nor does an address of a pod of this node become a next hop.
    let liar = facts(2, &["10.244.2.0/24"], &["10.244.1.7"]);
    let inside = facts(2, &["10.244.3.0/24"], &["10.244.0.7"]);
    let victim = facts(3, &["10.244.1.0/24"], &["192.168.0.3"]);
    let plan = planned(&[("liar", liar), ("inside", inside), ("victim", victim)]);
    assert_eq!(
        plan.routes.keys().collect::<Vec<_>>(),
        [&net("10.244.1.0/24")]
    );
    let by_router = Reason::NotOnLink(ip("10.244.1.7"), Some(ip("192.168.0.254")));
    assert_eq!(
        reasons(&plan),
        [&Reason::PodAddress(ip("10.244.0.7")), &by_router]
    );
}

#[test]
fn a_next_hop_must_be_on_link_and_another_host() {
    let far = facts(2, &["10.244.1.0/24"], &["172.16.0.9"]);
    let me_too = facts(3, &["10.244.2.0/24"], &["192.168.0.1"]);
    let nowhere = facts(4, &["fd00:244:4::/64"], &["fd00:99::1"]);
    let plan = planned(&[("far", far), ("me-too", me_too), ("nowhere", nowhere)]);
    assert_eq!(plan.routes.len(), 0);
    let expected = [
        &Reason::NotOnLink(ip("172.16.0.9"), Some(ip("192.168.0.254"))),
        &Reason::OwnAddress(ip("192.168.0.1")),
        &Reason::NotOnLink(ip("fd00:99::1"), None),
    ];
    assert_eq!(reasons(&plan), expected);
    // The second address is taken where the first one won't do.
    let two = facts(2, &["10.244.1.0/24"], &["172.16.0.9", "192.168.0.9"]);
    assert_eq!(planned(&[("two", two)]).routes.len(), 1);
}

#[test]
fn somebody_elses_route_stays_the_only_one() {
    let mut host = host();
    host.add_route(net("10.244.1.0/24"), Some(ip("192.168.0.7")), 2);
    let other = facts(2, &["10.244.1.0/24"], &["192.168.0.2"]);
    let plan = planned_on(&cluster(&[("other", other)]), &host, &[]);
    assert_eq!(
        (plan.routes.len(), reasons(&plan)),
        (0, vec![&Reason::ForeignRoute])
    );
}

#[test]
fn the_clusters_prefixes_bound_what_is_believed() {
    let all = [net("10.244.0.0/16"), net("192.168.0.64/26")];
    let nodes = cluster(&[
        ("in", facts(2, &["10.244.1.0/24"], &["192.168.0.2"])),
        ("out", facts(3, &["203.0.113.0/24"], &["192.168.0.3"])),
        // Cut out of the hosts' network, but not where a host is.
        ("cut", facts(4, &["192.168.0.64/28"], &["192.168.0.4"])),
        ("on", facts(5, &["192.168.0.80/28"], &["192.168.0.81"])),
    ]);
    let plan = planned_on(&nodes, &host(), &all);
    let routed: Vec<_> = plan.routes.keys().map(ToString::to_string).collect();
    assert_eq!(routed, ["10.244.1.0/24", "192.168.0.64/28"]);
    assert_eq!(
        reasons(&plan),
        [
            &Reason::OutsideCluster,
            &Reason::Contains(ip("192.168.0.81"))
        ]
    );
}

#[test]
fn an_older_node_with_the_own_subnet_is_a_contest() {
    let older = facts(0, &["10.244.0.0/24"], &["192.168.0.2"]);
    let by = Reason::Taken {
        by: "older".into(),
        net: net("10.244.0.0/24"),
    };
    assert_eq!(planned(&[("older", older)]).own.unwrap().reason, by);
    let newer = facts(5, &["10.244.0.0/24"], &["192.168.0.2"]);
    assert_eq!(planned(&[("newer", newer)]).own, None);
}

#[test]
fn ten_thousand_nodes_are_ten_thousand_routes() {
    let mut host = HostView::default();
    host.add_route(net("172.16.0.0/12"), None, 2);
    let nodes = (0..10_000_u32).map(|number| {
        let subnet = IpNet::new(IpAddr::V4((0x0a00_0000 + number * 256).into()), 24).unwrap();
        let address = IpAddr::V4((0xac10_0001 + number).into());
        let facts = Facts {
            since: 1,
            subnets: vec![subnet],
            garbage: Vec::new(),
            addresses: vec![address],
        };
        (format!("node-{number}"), facts)
    });
    let plan = plan(&Situation {
        own: "node-7",
        nodes: &nodes.collect(),
        host: &host,
        cluster: &[],
        there: &BTreeMap::new(),
    });
    assert_eq!((plan.routes.len(), plan.refusals.len()), (9_999, 0));
}
