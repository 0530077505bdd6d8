//! Tables of what is read and what is refused.

use cni_conf::error::Code;
use cni_conf::version::SpecVersion;
use serde_json::{Value, json};

use super::*;

fn read(conf: Value) -> Result<Settings, Error> {
    Settings::read(&Request {
        version: SpecVersion::LATEST,
        network: "net".try_into().unwrap(),
        plugin: "portmap".try_into().unwrap(),
        conf,
        cni_path: Vec::new(),
        prev_result: None,
    })
}

fn mapping(wire: Value) -> Result<Settings, Error> {
    read(json!({"runtimeConfig": {"portMappings": [wire]}}))
}

fn web(host: HostAddress) -> Mapping {
    Mapping {
        host,
        protocol: Protocol::Tcp,
        host_port: 8080,
        container_port: 80,
    }
}

#[test]
fn nothing_said_means_nftables_with_masquerading_of_what_is_near() {
    let settings = read(json!({})).unwrap();
    assert_eq!(settings.backend, Backend::Nftables);
    assert_eq!(settings.masquerade, Masquerade::Nearby);
    assert!(settings.mappings.is_empty());
    let empty = json!({"backend": "", "runtimeConfig": {"portMappings": null}, "snat": null});
    assert_eq!(read(empty).unwrap(), settings);
}

#[test]
fn mappings_are_read_as_containerd_and_podman_write_them() {
    let ip = |text: &str| text.parse::<IpAddr>().unwrap();
    for (wire, host) in [
        (
            json!({"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}),
            HostAddress::Any,
        ),
        (
            json!({"hostPort": 8080, "containerPort": 80, "protocol": "TCP"}),
            HostAddress::Any,
        ),
        (
            json!({"hostPort": 8080, "containerPort": 80, "hostIP": "0.0.0.0"}),
            HostAddress::AnyOf(ip("0.0.0.0")),
        ),
        (
            json!({"hostPort": 8080, "containerPort": 80, "hostIP": "::"}),
            HostAddress::AnyOf(ip("::")),
        ),
        (
            json!({"hostPort": 8080, "containerPort": 80, "hostIp": "::ffff:192.0.2.1"}),
            HostAddress::One(ip("192.0.2.1")),
        ),
    ] {
        assert_eq!(mapping(wire).unwrap().mappings, [web(host)]);
    }
}

#[test]
fn bad_values_are_named() {
    for (wire, complaint) in [
        (
            json!({"hostPort": 0, "containerPort": 80}),
            "field \"runtimeConfig.portMappings[0].hostPort\": a port is a number from 1 to 65535 (it is 0)",
        ),
        (
            json!({"hostPort": 80, "containerPort": 65536}),
            "field \"runtimeConfig.portMappings[0].containerPort\": a port is a number from 1 to 65535 (it is 65536)",
        ),
        (json!({"hostPort": 80}), "containerPort"),
        (json!({"hostPort": -1, "containerPort": 80}), "it is -1"),
        (
            json!({"hostPort": 80, "containerPort": 80, "protocol": "icmp"}),
            "protocol\": ports can be mapped for tcp, udp and sctp (it is \"icmp\")",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "protocol": "tcp; accept"}),
            "tcp; accept",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "hostIP": "localhost"}),
            "hostIP\": this is no IP address (it is \"localhost\")",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "hostIP": "192.0.2.1/24"}),
            "192.0.2.1/24",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "hostIP": "224.0.0.1"}),
            "multicast",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "hostIP": "::1"}),
            "portMappings[0].hostIP\": no packet from ::1 may leave the host, so no container can answer there",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "hostIP": "fe80::1"}),
            "link-local addresses are not forwarded",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "hostIP": "255.255.255.255"}),
            "broadcast",
        ),
        (
            json!({"hostPort": 80, "containerPort": 80, "hostIP": "ff02::1"}),
            "multicast",
        ),
        (json!({"hostPort": "80", "containerPort": 80}), "hostPort"),
    ] {
        let error = mapping(wire).unwrap_err();
        assert_eq!(error.code, Code::InvalidConfig);
        assert!(error.msg.contains(complaint), "{error}");
    }
}

#[test]
fn an_address_that_can_not_answer_comes_with_a_remedy() {
    let at = |host: &str, snat: bool| {
        read(json!({"snat": snat, "runtimeConfig": {"portMappings": [
            {"hostPort": 80, "containerPort": 80, "hostIP": host}]}}))
    };
    let error = at("::1", true).unwrap_err();
    assert!(error.msg.ends_with("(it is ::1)"), "{error}");
    assert!(error.details.contains("127.0.0.1"), "{error}");
    let error = at("127.0.0.1", false).unwrap_err();
    assert!(error.msg.contains("\"snat\" is false"), "{error}");
    assert!(error.details.contains("snat"), "{error}");
    assert!(at("127.0.0.1", true).is_ok());
    assert!(at("192.0.2.1", false).is_ok());
    assert!(at("169.254.1.1", false).is_ok());
}

#[test]
fn ten_thousand_mappings_are_read_and_one_contradiction_among_them_found() {
    let mut list: Vec<Value> = (1..=10_000)
        .map(|port| json!({"hostPort": port, "containerPort": 80}))
        .collect();
    let read_list = |list: &[Value]| read(json!({"runtimeConfig": {"portMappings": list}}));
    assert_eq!(read_list(&list).unwrap().mappings.len(), 10_000);
    list.push(json!({"hostPort": 5000, "containerPort": 81}));
    let error = read_list(&list).unwrap_err();
    assert!(
        error.msg.contains("portMappings[10000].hostPort"),
        "{error}"
    );
}

#[test]
fn repetitions_are_one_and_contradictions_refused() {
    let list = |mappings: Value| read(json!({"runtimeConfig": {"portMappings": mappings}}));
    let web = json!({"hostPort": 80, "containerPort": 8080});
    assert_eq!(list(json!([web, web])).unwrap().mappings.len(), 1);
    let other = |key: &str, value: Value| {
        let mut other = web.clone();
        other["containerPort"] = json!(9090);
        other[key] = value;
        list(json!([web, other]))
    };
    let error = other("hostPort", json!(80)).unwrap_err();
    assert!(
        error
            .msg
            .contains("tcp port 80 is to lead to port 8080 and to port 9090"),
        "{error}"
    );
    assert!(other("hostIP", json!("::")).is_err());
    assert!(other("hostIP", json!("192.0.2.1")).is_ok());
    assert!(other("protocol", json!("udp")).is_ok());
    assert!(other("hostPort", json!(81)).is_ok());
}

#[test]
fn options_of_iptables_choose_it_and_contradict_nftables() {
    let condition = json!(["!", "-d", "192.0.2.0/24"]);
    for (key, value) in [
        ("conditionsV4", condition.clone()),
        ("conditionsV6", json!(["-i", "eth0"])),
        ("externalSetMarkChain", json!("KUBE-MARK-MASQ")),
    ] {
        for backend in [json!(null), json!("iptables")] {
            let settings = read(json!({"backend": backend, key: value})).unwrap();
            assert!(matches!(settings.backend, Backend::Iptables(_)), "{key}");
        }
        let error = read(json!({"backend": "nftables", key: value})).unwrap_err();
        assert_eq!(error.code, Code::UnsupportedField);
        assert!(
            error
                .msg
                .contains(&format!("\"{key}\" belongs to the iptables backend")),
            "{error}"
        );
    }
    // nftables needs no mark, so it does not matter which.
    let settings = read(json!({"backend": "nftables", "markMasqBit": 5})).unwrap();
    assert_eq!(settings.backend, Backend::Nftables);
    assert!(
        read(json!({"backend": "firewalld"}))
            .unwrap_err()
            .msg
            .contains("firewalld")
    );
}

#[test]
fn conditions_in_the_language_of_nft_are_refused_whatever_the_backend() {
    for backend in ["", "nftables", "iptables"] {
        let conf =
            json!({"backend": backend, "conditionsV4": ["ip", "daddr", "!=", "192.0.2.0/24"]});
        let error = read(conf).unwrap_err();
        assert_eq!(error.code, Code::UnsupportedField);
        assert!(
            error.msg.contains("conditionsV4") && error.details.contains("iptables"),
            "{error}"
        );
    }
}

#[test]
fn the_mark_is_a_bit_or_somebody_elses_chain() {
    let mark = |key: &str, value: Value| {
        read(json!({"backend": "iptables", key: value})).map(|settings| match settings.backend {
            Backend::Iptables(iptables) => iptables.mark,
            Backend::Nftables => panic!(),
        })
    };
    assert_eq!(mark("snat", json!(true)), Ok(Mark::Bit(13)));
    assert_eq!(mark("markMasqBit", json!(0)), Ok(Mark::Bit(0)));
    for bit in [-1, 32] {
        let error = mark("markMasqBit", json!(bit)).unwrap_err();
        assert!(error.msg.contains(&format!("it is {bit}")), "{error}");
    }
    let chain = "KUBE-MARK-MASQ";
    assert_eq!(
        mark("externalSetMarkChain", json!(chain)),
        Ok(Mark::ExternalChain(chain.into()))
    );
    for chain in ["", "-j", "a b", "a\nb", "a;b", &"x".repeat(29)] {
        assert!(
            mark("externalSetMarkChain", json!(chain)).is_err(),
            "{chain:?}"
        );
    }
    let both = json!({"externalSetMarkChain": "A", "markMasqBit": 3});
    assert!(read(both).unwrap_err().msg.contains("can't both be set"));
}

#[test]
fn what_is_no_match_is_no_condition() {
    for bad in [
        "-j",
        "-jDROP",
        "--jump",
        "--jum",
        "--jump=DROP",
        "-g",
        "-A",
        "-t",
        "-tfilter",
        "-6",
        "-4",
        "-h",
        "-V",
        "-v",
        "-n",
        "-c",
        "-w",
        "-x",
        "-5",
        "-",
        "--",
        "--version",
        "--vers",
        "--help",
        "--ipv6",
        "--line-numbers",
        "--set-counters",
        "a\"b",
        "a\nCOMMIT",
        "a\\",
        "",
    ] {
        let conf = json!({"conditionsV4": ["-d", "192.0.2.1", bad]});
        let error = read(conf).unwrap_err();
        assert!(
            error.msg.contains("conditionsV4[2]") && error.msg.contains(&format!("{bad:?}")),
            "{error}"
        );
    }
    for good in [
        json!(["!", "-d", "192.0.2.0/24"]),
        json!(["-i", "eth0", "-m", "comment", "--comment", "web"]),
        json!(["-m", "recent", "--set", "--name", "x"]),
        json!(["-m", "policy", "--dir", "in", "--pol", "ipsec"]),
        json!([
            "-m",
            "conntrack",
            "--ctstate",
            "NEW",
            "-m",
            "limit",
            "--limit",
            "5/second"
        ]),
        json!(["--source=192.0.2.1", "--in-interface", "eth0", "-ieth0"]),
    ] {
        read(json!({"conditionsV4": good})).unwrap();
    }
}

#[test]
fn snat_and_masq_all_decide_about_sources() {
    for (snat, all, expected) in [
        (true, false, Masquerade::Nearby),
        (true, true, Masquerade::Always),
        (false, false, Masquerade::Never),
        (false, true, Masquerade::Never),
    ] {
        let settings = read(json!({"snat": snat, "masqAll": all})).unwrap();
        assert_eq!(settings.masquerade, expected);
    }
}
