//! The ways in which we mean to differ. Reasons are in `docs/differences.md`.

use super::{Difference, Fact, Maker};

/// The differences that scenarios may expect.
pub const KNOWN: &[Difference] = &[
    Difference {
        name: "own-error-codes",
        covers: |_, fact| fact.place == "answer" && fact.what.contains(" failed code="),
    },
    Difference {
        name: "status-of-a-full-pool",
        covers: |_, fact| {
            fact.step == "full" && fact.place == "answer" && fact.what.contains(" STATUS ")
        },
    },
    Difference {
        name: "alias-on-the-host-end",
        covers: |maker, fact| {
            maker == Maker::Ours && fact.what.contains("link <veth> ifalias=trestle:")
        },
    },
    Difference {
        name: "no-link-local-address-on-the-host-end",
        covers: |_, fact| fact.what.contains("<veth>") && fact.what.contains("addr_gen_mode="),
    },
    Difference {
        name: "queue-length-of-the-host-end",
        covers: |maker, fact| {
            maker == Maker::Ours && fact.what.ends_with("link <veth> txqlen=1000")
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
            maker == Maker::Ours && fact.place == "answer" && fact.what.contains("].mtu=")
        },
    },
    Difference {
        name: "index-beside-the-state",
        covers: |maker, fact| {
            maker == Maker::Ours && is(fact, "file") && fact.what.contains("/.trestle/")
        },
    },
    Difference {
        name: "router-advertisements",
        covers: |_, fact| fact.place != "host" && fact.what.contains("/eth0/accept_ra="),
    },
    Difference {
        name: "layer-2-check",
        covers: |_, fact| {
            fact.step == "check" && fact.place == "answer" && fact.what.contains(" CHECK ")
        },
    },
    Difference {
        name: "default-route-once",
        // ADD of the reference fails, so nothing is alike.
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
            maker == Maker::Go
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
        covers: |_, fact| {
            fact.step == "check" && fact.place == "answer" && fact.what.contains(" CHECK ")
        },
    },
    Difference {
        name: "del-with-nftables",
        covers: |_, fact| {
            fact.step == "del" && fact.place == "answer" && fact.what.contains(" DEL ")
        },
    },
    Difference {
        name: "backup-says-whose-it-is",
        covers: |_, fact| is(fact, "file") && fact.what.contains("/tuning/pod_eth0.json"),
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
            maker == Maker::Ours
                && fact.step == "del"
                && fact.what.contains("/cni0/route_localnet=")
        },
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

/// Whether a fact is of that kind: `link`, `addr`, `route`, `sysctl`, `file`, `nft` …
fn is(fact: &Fact, kind: &str) -> bool {
    let what = fact.what.trim_start_matches(['+', '-', ' ']);
    what.split(' ').next() == Some(kind)
}
