//! The iptables backend alone.

use serde_json::json;

use crate::Case;
use crate::alike::both;
use crate::scene::{Backend, Call, Over, Scene, ask, ask_without_answer, serve, state_of};
use testbed::Node;

const BACKEND: Backend = Backend::Iptables;

pub(crate) const CASES: &[Case] = &[
    case("the_rules_are_those_of_the_golden_file", golden),
    case("conditions_and_the_mark_of_others_are_honoured", conditions),
    case(
        "the_go_configuration_without_a_backend_chooses_iptables",
        chosen,
    ),
    case(
        "a_del_of_a_container_without_rules_starts_no_process",
        no_process,
    ),
    case(
        "a_del_asks_iptables_only_while_the_go_plugin_has_a_rule",
        reference,
    ),
    case("both_backends_respect_each_others_ports", mixed),
    case("a_flushed_table_is_repaired", flushed),
    case("conditions_with_comments_hide_no_owner", commented),
    case("conditions_that_iptables_refuses_leave_nothing", refused),
    case("rules_changed_by_hand_are_noticed_and_replaced", changed),
];

const fn case(name: &'static str, run: fn(Backend)) -> Case {
    Case {
        name,
        needs: &["nft", "ip", "iptables", "ip6tables"],
        run,
    }
}

fn golden(_: Backend) {
    let scene = Scene::new();
    let mappings = json!([
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
        {"hostPort": 5353, "containerPort": 53, "protocol": "udp", "hostIP": "192.0.2.1"},
        {"hostPort": 3868, "containerPort": 3868, "protocol": "sctp", "hostIP": "::"},
    ]);
    scene.add(
        &Call::new(BACKEND, "abc", mappings)
            .with("conditionsV4", json!(["!", "-s", "198.51.100.0/24"]))
            .with("markMasqBit", json!(5)),
    );
    let path = format!(
        "{}/tests/golden/portmap.iptables",
        env!("CARGO_MANIFEST_DIR")
    );
    let found = scene.state();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &found).expect("success");
    }
    assert_eq!(found, std::fs::read_to_string(&path).expect("success"));
}

fn conditions(_: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    scene.host.sh(
        "for tables in iptables ip6tables; do $tables -t nat -N KUBE-MARK-MASQ
        $tables -t nat -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
        $tables -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE; done",
    );
    let before = scene.state();
    let call = Call::new(BACKEND, "abc", both(8080, 80))
        .with("externalSetMarkChain", json!("KUBE-MARK-MASQ"))
        .with("conditionsV4", json!(["!", "-s", "192.0.2.2"]));
    scene.add(&call);
    assert_eq!(
        ask(&scene.neighbour, Over::Tcp, "192.0.2.1:8080").expect("success"),
        "pod 10.1.0.1"
    );
    assert_eq!(
        ask(&scene.host, Over::Tcp, "127.0.0.1:8080").expect("success"),
        "pod 10.1.0.1"
    );
    assert_eq!(
        ask_without_answer(&scene.outside, Over::Tcp, "192.0.2.1:8080"),
        None
    );
    scene.del(&call);
    assert_eq!(scene.state(), before);
}

fn chosen(_: Backend) {
    let scene = Scene::new();
    let call = Call::new(BACKEND, "abc", both(8080, 80))
        .with("backend", json!(null))
        .with("conditionsV6", json!(["!", "-d", "fc00::/7"]));
    scene.add(&call);
    assert!(scene.state().contains("TRESTLE-PORT-"));
    scene.del(&call);
    assert_eq!(scene.state(), "");
}

fn no_process(_: Backend) {
    let scene = Scene::new();
    scene.add(&Call::new(BACKEND, "abc", both(8080, 80)));
    scene.host.run(|| {
        crate::nftables::hide_programs();
        Call::new(BACKEND, "other", json!([]))
            .del()
            .expect("success");
        Call::new(BACKEND, "other", both(8081, 80))
            .del()
            .expect("success");
        let error = Call::new(BACKEND, "abc", json!([]))
            .del()
            .expect_err("a refusal");
        assert!(error.msg.contains("iptables not found"), "{error}");
    });
}

fn reference(_: Backend) {
    let scene = Scene::new();
    let make = |network: &str, container: &str, chain: &str| {
        scene.host.sh(&format!(
            "iptables -t nat -N {chain}
            iptables -t nat -A {chain} -p tcp --dport 8080 -j DNAT --to-destination 10.1.0.5:80
            iptables -t nat -I CNI-HOSTPORT-DNAT -m comment --comment 'dnat name: \"{network}\" id: \"{container}\"' \
                -m multiport -p tcp --destination-ports 8080 -j {chain}"
        ));
    };
    scene.host.sh("iptables -t nat -N CNI-HOSTPORT-DNAT");
    let without = scene.ruleset();
    make("podnet2", "abc", "CNI-DN-0a");
    make("podnet", "abcd", "CNI-DN-0b");
    let others = scene.ruleset();
    make("podnet", "abc", "CNI-DN-0c");
    // The configuration may have changed since the Go plugin's ADD.
    scene.del(&Call::new(BACKEND, "abc", json!([])));
    assert_eq!(scene.ruleset(), others);
    scene.del(&Call::new(BACKEND, "abc", json!([])).on("podnet2"));
    scene.del(&Call::new(BACKEND, "abcd", json!([])));
    assert_eq!(scene.ruleset(), without);
    scene.host.run(|| {
        crate::nftables::hide_programs();
        Call::new(BACKEND, "abc", both(8080, 80))
            .del()
            .expect("success");
    });
}

fn mixed(_: Backend) {
    let scene = Scene::new();
    let nftables = Call::new(Backend::Nftables, "abc", both(8080, 80));
    let iptables = Call::new(Backend::Iptables, "def", both(8080, 80)).at(&["10.1.0.6/24"]);
    scene.add(&nftables);
    let error = scene.try_add(&iptables).expect_err("a refusal");
    assert!(
        error.msg.contains("podnet/abc/eth0 has it already"),
        "{error}"
    );
    scene.add(&Call::new(Backend::Iptables, "def", both(8081, 80)).at(&["10.1.0.6/24"]));
    scene.del(&nftables);
    assert_eq!(
        scene.route_localnet(),
        "1",
        "the other backend's container needs it"
    );
    // A configuration that was changed since ADD.
    scene.del(&Call::new(Backend::Nftables, "def", both(8081, 80)));
    assert_eq!(scene.route_localnet(), "0");
    assert_eq!(scene.state(), "");
}

fn flushed(_: Backend) {
    let scene = Scene::new();
    serve(&scene.pod, "pod", "10.1.0.5:80");
    let call = Call::new(BACKEND, "abc", both(8080, 80));
    scene.add(&call);
    let before = scene.state();
    scene.host.sh("iptables -t nat -F; iptables -t raw -F");
    scene.add(&call);
    assert_eq!(scene.state(), before);
    assert!(ask(&scene.outside, Over::Tcp, "192.0.2.1:8080").is_some());
    scene.del(&call);
    let node: &Node = &scene.host;
    assert_eq!(state_of(node), "");
}

fn commented(_: Backend) {
    let scene = Scene::new();
    scene
        .host
        .sh("echo 1 > /proc/sys/net/ipv4/conf/up0/route_localnet");
    serve(&scene.pod, "pod", "10.1.0.5:80");
    for conditions in [
        json!(["-m", "comment", "--comment", "web"]),
        json!([
            "-m",
            "comment",
            "--comment",
            "another/owner/eth0 0.0.0.0:8080/tcp"
        ]),
        json!(["-m", "comment", "--comment", "a -j b"]),
        json!([
            "-m",
            "comment",
            "--comment",
            "x",
            "-s",
            "192.0.2.0/24,10.1.0.0/24"
        ]),
        json!(["-m", "addrtype", "!", "--src-type", "BROADCAST"]),
    ] {
        let call = Call::new(BACKEND, "abc", both(8080, 80))
            .at(&["10.1.0.5/24"])
            .with("conditionsV4", conditions.clone());
        scene.add(&call);
        let before = scene.state();
        scene.check(&call).expect("success");
        assert!(
            ask(&scene.outside, Over::Tcp, "192.0.2.1:8080").is_some(),
            "{conditions}"
        );
        scene.add(&call);
        assert_eq!(scene.state(), before, "{conditions}");
        let other = Call::new(BACKEND, "other", both(8080, 80)).at(&["10.1.0.6/24"]);
        assert!(scene.try_add(&other).is_err(), "{conditions}");
        scene.gc(&call, &[("abc", "eth0")]);
        assert_eq!(scene.state(), before, "{conditions}");
        scene.gc(&call, &[]);
        assert_eq!(scene.state(), "", "{conditions}");
        scene.add(&call);
        scene.del(&call);
        assert_eq!(scene.state(), "", "{conditions}");
    }
    // An interface in a condition is none that localhost was let out by.
    let call = Call::new(BACKEND, "abc", both(8080, 80))
        .with("conditionsV4", json!(["!", "-o", "up0"]))
        .at(&["10.1.0.5/24"]);
    scene.add(&call);
    scene.del(&call);
    let kept = scene
        .host
        .sh("cat /proc/sys/net/ipv4/conf/up0/route_localnet");
    assert_eq!((kept.trim(), scene.route_localnet().as_str()), ("1", "0"));
}

fn refused(_: Backend) {
    let scene = Scene::new();
    for conditions in [
        json!(["-m", "nosuchmatch"]),
        json!(["-p", "udp"]),
        json!(["-d", "not an address"]),
        json!(["--nosuchoption", "1"]),
    ] {
        let call =
            Call::new(BACKEND, "abc", both(8080, 80)).with("conditionsV4", conditions.clone());
        let error = scene.try_add(&call).expect_err("a refusal");
        assert!(error.msg.contains("iptables"), "{conditions}: {error}");
        assert_eq!(scene.state(), "", "{conditions}");
        assert_eq!(scene.route_localnet(), "0");
    }
    let call = Call::new(BACKEND, "abc", both(8080, 80))
        .with("conditionsV6", json!(["-m", "nosuchmatch"]));
    scene.try_add(&call).expect_err("a refusal");
    assert_eq!(scene.state(), "");
    assert_eq!(scene.route_localnet(), "0");
}

fn changed(_: Backend) {
    let chain = "$(iptables -t nat -S | grep -o 'TRESTLE-PORT-[0-9a-f]*' | head -1)";
    for change in [
        format!("iptables -t nat -R {chain} 1 -p tcp --dport 8080 -j MARK --set-xmark 0x2000/0x2000"),
        format!("iptables -t nat -I {chain} -j ACCEPT"),
        format!("iptables -t nat -D {chain} 1"),
        "iptables -t nat -R PREROUTING 1 -s 203.0.113.9 -m addrtype --dst-type LOCAL -j TRESTLE-PORTS".to_owned(),
        "iptables -t nat -D POSTROUTING 1".to_owned(),
        "iptables -t nat -R TRESTLE-PORTS-SNAT 1 -d 10.1.0.5/32 -m mark --mark 0x1/0x1 -m comment --comment podnet/abc/eth0 \
            -j MASQUERADE"
            .to_owned(),
        "iptables -t raw -R PREROUTING 1 -s 127.0.0.0/8 ! -i lo -m comment \
            --comment 'trestle: localhost is not for neighbours' -j ACCEPT"
            .to_owned(),
        "iptables -t nat -R TRESTLE-PORTS 1 -s 203.0.113.9 -p tcp -m tcp --dport 8080 \
            -m comment --comment 'podnet/abc/eth0 0.0.0.0:8080/tcp' -j "
            .to_owned()
            + chain,
    ] {
        let scene = Scene::new();
        let call = Call::new(BACKEND, "abc", both(8080, 80));
        scene.add(&call);
        let before = scene.state();
        scene.check(&call).expect("success");
        scene.host.sh(&change);
        let error = scene.check(&call).expect_err(&change);
        assert_eq!(error.code.number(), 103, "{error}");
        scene.add(&call);
        scene.check(&call).expect("success");
        assert_eq!(scene.state(), before, "{change}");
        scene.del(&call);
        assert_eq!(scene.state(), "", "{change}");
    }
}
