//! The ways in which we mean to differ. Reasons are in `docs/differences.md`.

use super::{Difference, Fact, Implementation};

/// The differences that scenarios may expect.
pub const KNOWN: &[Difference] = &[
    Difference {
        name: "own-error-codes",
        covers: |_, fact| fact.place == "answer" && fact.what.contains(" failed code="),
    },
    Difference {
        name: "alias-on-the-host-end",
        covers: |maker, fact| {
            maker == Implementation::Ours
                && (fact.what.contains("link <veth> ifalias=trestle:")
                    || fact.what.contains(" ifalias=trestle: bridge"))
        },
    },
    Difference {
        name: "no-link-local-address-on-the-host-end",
        covers: |_, fact| fact.what.contains("<veth>") && fact.what.contains("addr_gen_mode="),
    },
    Difference {
        name: "no-multicast-snooping",
        covers: |_, fact| fact.what.contains(".mcast_snooping="),
    },
    Difference {
        name: "queue-length-of-the-host-end",
        covers: |maker, fact| {
            maker == Implementation::Ours && fact.what.ends_with("link <veth> txqlen=1000")
        },
    },
    Difference {
        name: "ipv6-usable-at-once",
        covers: |_, fact| {
            is(fact, "sysctl") && fact.what.contains("/accept_dad=")
                || is(fact, "addr") && fact.what.ends_with("nodad=true")
        },
    },
    Difference {
        name: "mtu-in-results",
        covers: |maker, fact| {
            maker == Implementation::Ours && fact.place == "answer" && fact.what.contains("].mtu=")
        },
    },
    Difference {
        name: "index-beside-the-state",
        covers: |maker, fact| {
            maker == Implementation::Ours && is(fact, "file") && fact.what.contains("/.trestle/")
        },
    },
    Difference {
        name: "router-advertisements",
        covers: |_, fact| fact.place != "host" && fact.what.contains("/eth0/accept_ra="),
    },
    Difference {
        name: "layer-2-check",
        covers: |_, fact| is_answer(fact, "check", " CHECK "),
    },
    Difference {
        name: "default-route-once",
        // ADD of the Go plugins fails, so nothing is alike.
        covers: |_, _| true,
    },
    Difference {
        name: "locked-port",
        covers: |_, fact| fact.what.contains(".locked=") || is(fact, "nft"),
    },
    Difference {
        name: "own-rules",
        covers: |_, fact| {
            is(fact, "nft") || is(fact, "iptables-save") || is(fact, "ip6tables-save")
        },
    },
    Difference {
        name: "route-mtu-and-advmss",
        covers: |_, fact| is(fact, "route") && fact.what.contains("dst=192.0.2.0/24"),
    },
    Difference {
        name: "mtu-of-the-bridge-stays",
        covers: |maker, fact| {
            maker == Implementation::Go
                && fact.step == "del"
                && fact.what.contains("cni0")
                && fact.what.contains("mtu=")
        },
    },
    Difference {
        name: "ptp-routes",
        covers: |_, fact| {
            let on_host =
                is(fact, "route") && fact.place == "host" && fact.what.contains("dev=<veth>");
            on_host || is(fact, "addr") && fact.what.ends_with("noprefixroute=true")
        },
    },
    Difference {
        name: "gratuitous-arp",
        covers: |_, fact| fact.place != "host" && fact.what.contains("/eth0/arp_notify="),
    },
    Difference {
        name: "check-of-routes",
        covers: |_, fact| is_answer(fact, "check", " CHECK "),
    },
    Difference {
        name: "del-with-nftables",
        covers: |_, fact| is_answer(fact, "del", " DEL "),
    },
    Difference {
        name: "backup-says-whose-it-is",
        covers: |_, fact| is(fact, "file") && fact.what.contains("/tuning/pod_eth0.json"),
    },
    Difference {
        name: "record-of-the-call",
        covers: |maker, fact| {
            let recorded = ["/run/cni/portmap/", "/run/cni/firewall/"];
            maker == Implementation::Ours
                && is(fact, "file")
                && recorded.iter().any(|dir| fact.what.contains(dir))
        },
    },
    Difference {
        name: "host-port-from-the-pod-itself",
        covers: |_, fact| {
            fact.what.contains(".hairpin=") || fact.what.contains("host port from the pod")
        },
    },
    Difference {
        name: "route-localnet-goes-back",
        covers: |maker, fact| {
            maker == Implementation::Ours
                && fact.step == "del"
                && fact.what.contains("/cni0/route_localnet=")
        },
    },
    Difference {
        name: "route-localnet-where-needed",
        covers: |_, fact| fact.step == "add" && fact.what.contains("/cni0/route_localnet="),
    },
    Difference {
        name: "neighbours-by-host-ports",
        covers: |_, fact| fact.what.contains("host port from a neighbour"),
    },
    Difference {
        name: "masq-all-with-nftables",
        covers: |_, fact| fact.place == "traffic" && fact.what.contains("host port from"),
    },
    Difference {
        name: "conditions-of-nft",
        // ADD of ours fails, so nothing is alike.
        covers: |_, _| true,
    },
    Difference {
        name: "no-advertisements-at-a-vlan-gateway",
        covers: |_, fact| fact.what.contains("/cni0.100/accept_ra="),
    },
    Difference {
        name: "default-vlan-of-a-trunk",
        covers: |maker, fact| {
            maker == Implementation::Go && is(fact, "vlan") && fact.what.ends_with("\"vlan\":1}")
        },
    },
    Difference {
        name: "undone-at-once",
        covers: |maker, fact| maker == Implementation::Go && fact.place != "answer",
    },
    Difference {
        name: "bridge-of-others",
        covers: |maker, fact| {
            maker == Implementation::Go
                && is(fact, "sysctl")
                && fact.what.contains("/cni0/accept_ra=")
        },
    },
    Difference {
        name: "del-of-nothing",
        covers: |maker, fact| {
            maker == Implementation::Go
                && fact.step == "del"
                && is(fact, "file")
                && fact.what.contains("/net/lock ")
        },
    },
    Difference {
        name: "limits-by-subnet",
        covers: |_, fact| is(fact, "qdisc") || is(fact, "filter") || fact.what.contains(" qdisc="),
    },
    Difference {
        name: "ifb-says-whose-it-is",
        covers: |maker, fact| {
            let of_ours = ["ifalias=trestle:", "txqlen=1000"];
            maker == Implementation::Ours
                && fact.what.contains("link bwp")
                && of_ours.iter().any(|own| fact.what.contains(own))
        },
    },
    Difference {
        name: "gateway-of-requested-addresses",
        covers: |maker, fact| maker == Implementation::Ours && fact.what.contains("].gateway="),
    },
    Difference {
        name: "gc-collects",
        // What belongs to the valid one is the same at the step that collects the others.
        covers: |maker, fact| {
            let of_the_valid = fact.place == "kept" || fact.what.contains("kept");
            maker == Implementation::Ours
                && match fact.step.as_str() {
                    "gc, one is valid" => fact.place != "answer" && !of_the_valid,
                    "gc, none is valid" => fact.place != "answer",
                    _ => false,
                }
                || maker == Implementation::Go && fact.step == "del" && fact.place != "answer"
        },
    },
    Difference {
        name: "isolation-beyond-the-bridge",
        covers: |maker, fact| {
            maker == Implementation::Ours
                && fact.what.contains("nft ")
                && (fact.what.contains("isolated/") || fact.what.contains(r#""name":"trestle""#))
        },
    },
    Difference {
        name: "neighbour-advertisements",
        covers: |_, fact| fact.place != "host" && fact.what.contains("/eth0/ndisc_notify="),
    },
    Difference {
        name: "mac-address-of-args",
        covers: |_, fact| {
            fact.what.contains("02:00:00:00:00:21") || fact.what.contains("02:00:00:00:00:22")
        },
    },
    Difference {
        name: "tap-made-one-way",
        covers: |_, fact| {
            let parts = [".pi=", ".vnet_hdr=", "address=", "].mac="];
            parts.iter().any(|part| fact.what.contains(part))
        },
    },
    Difference {
        name: "check-without-master",
        covers: |_, fact| is_answer(fact, "check", " CHECK "),
    },
    Difference {
        name: "device-comes-back-as-it-was",
        covers: |maker, fact| {
            let recorded = is(fact, "file") && fact.what.contains("/run/cni/host-device/");
            maker == Implementation::Ours && recorded
                || fact.step.starts_with("del")
                    && (fact.what.contains("dev0") || fact.what.contains("link peer0 flags"))
        },
    },
    Difference {
        name: "del-without-the-device",
        covers: |_, fact| fact.step.starts_with("del") && fact.what.contains(" DEL pod "),
    },
    Difference {
        name: "moved-routes",
        covers: |_, fact| {
            let protocol = ["protocol=boot", "protocol=kernel"];
            is(fact, "route")
                && fact.what.contains(" table=10")
                && protocol.iter().any(|part| fact.what.contains(part))
        },
    },
    Difference {
        name: "check-of-moved-routes",
        covers: |_, fact| is_answer(fact, "check", " CHECK "),
    },
    Difference {
        name: "isolated-ports",
        covers: |_, fact| fact.what.contains(".isolated="),
    },
    Difference {
        name: "wildcard-and-one-address",
        covers: |_, fact| is_answer(fact, "add second", "portmap ADD second "),
    },
    Difference {
        name: "two-networks-one-port",
        covers: |_, fact| fact.what.starts_with("by the second network "),
    },
    Difference {
        name: "dead-owners-lose-their-ports",
        covers: |_, fact| fact.what.starts_with("port of the dead "),
    },
    Difference {
        name: "localhost-after-a-flush",
        covers: |_, fact| fact.what.starts_with("route_localnet after the flush"),
    },
    Difference {
        name: "host-bits-of-routes",
        covers: |_, fact| fact.place == "answer" && fact.what.contains("routes[0].dst=10.2.0."),
    },
    Difference {
        name: "network-and-broadcast-address",
        covers: |_, fact| {
            fact.place == "answer" && fact.what.contains("ips[0].address=")
                || is(fact, "file") && fact.what.contains("/networks/net/")
        },
    },
    Difference {
        name: "bucket-of-a-packet",
        covers: |_, fact| {
            is(fact, "qdisc") && fact.what.contains(" tbf ")
                || fact.what.starts_with("the pod answers 1,000 bytes")
        },
    },
    Difference {
        name: "ingress-cidrs",
        covers: |_, fact| fact.what.starts_with("from outside to the pod by "),
    },
    Difference {
        name: "rules-of-a-network",
        covers: |maker, fact| {
            let kinds = ["nft", "iptables-save", "ip6tables-save"];
            maker == Implementation::Go && kinds.iter().any(|kind| is(fact, kind))
        },
    },
    Difference {
        name: "status-of-a-full-pool",
        covers: |_, fact| is_answer(fact, "full", " STATUS "),
    },
    Difference {
        name: "nobody-hears-the-result",
        covers: |_, fact| fact.what.starts_with("eth0 is there: "),
    },
    Difference {
        name: "empty-entries-of-cni-path",
        covers: |_, fact| fact.what.starts_with("status "),
    },
    Difference {
        name: "del-without-firewalld",
        covers: |_, fact| fact.step.starts_with("del") && fact.what.contains("firewall DEL pod "),
    },
];

/// The difference of that name.
///
/// # Panics
/// When there is none.
pub fn find(name: &str) -> &'static Difference {
    let found = KNOWN.iter().find(|difference| difference.name == name);
    found.unwrap_or_else(|| panic!("no difference is called {name}"))
}

/// Whether it is what a verb answered in that step.
fn is_answer(fact: &Fact, step: &str, verb: &str) -> bool {
    fact.step == step && fact.place == "answer" && fact.what.contains(verb)
}

/// Whether a fact is of that kind: `link`, `addr`, `route`, `sysctl`, `file`, `nft` …
fn is(fact: &Fact, kind: &str) -> bool {
    let what = fact.what.trim_start_matches(['+', '-', ' ']);
    what.split(' ').next() == Some(kind)
}
