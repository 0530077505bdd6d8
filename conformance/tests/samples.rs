//! Every network configuration that is shipped works as it stands.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use conformance::{Case, Host, Lab, Need, Pod, Protocol, Subject, addresses, case};
use serde_json::{Value, json};

pub(crate) fn cases() -> Vec<Case> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cni-conf/net.d");
    let entries = fs::read_dir(&dir).expect("cni-conf/net.d is there");
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| {
        file.extension()
            .is_some_and(|end| end == "conf" || end == "conflist")
    });
    files.sort();
    let case = |file: PathBuf| {
        let name = file
            .file_name()
            .map(|name| name.to_string_lossy().into_owned());
        let name = name.unwrap_or_default();
        let text = fs::read_to_string(&file).expect("read a sample");
        let kinds = KINDS
            .into_iter()
            .filter(|kind| text.contains(&format!("\"{kind}\"")));
        let kinds: Vec<_> = kinds.collect();
        // The Go plugin fails over a default route that is asked for twice.
        let ours = name == "10-trestle.conflist";
        let case = Case::new(format!("samples::{name}_works"), move |lab| {
            works(lab, &file)
        });
        let case = kinds
            .into_iter()
            .fold(case, |case, kind| case.needs(Need::LinkKind(kind)));
        let case = match text.contains("\"dhcp\"") {
            true => case.needs(Need::DhcpServers).ours(),
            false => case,
        };
        let case = case.needs(Need::Cnitool);
        if ours { case.ours() } else { case }
    };
    let mut cases: Vec<Case> = files.into_iter().map(case).collect();
    cases.push(case!(pages_show_what_is_shipped));
    cases
}

/// Plugins by whose interface a program that knows nothing of it reaches no other container of the network.
const ALONE: [&str; 5] = ["vlan", "dummy", "tap", "host-device", "vrf"];

/// Kinds of links that not every kernel has, called as the plugins are that make them.
const KINDS: [&str; 5] = ["macvlan", "ipvlan", "vlan", "dummy", "vrf"];

/// Pages of plugins whose configurations are shipped ones.
const PAGES: [(&str, &str); 9] = [
    ("dhcp", include_str!("../../docs/plugins/dhcp.md")),
    ("sbr", include_str!("../../docs/plugins/sbr.md")),
    ("vrf", include_str!("../../docs/plugins/vrf.md")),
    (
        "host-device",
        include_str!("../../docs/plugins/host-device.md"),
    ),
    ("macvlan", include_str!("../../docs/plugins/macvlan.md")),
    ("ipvlan", include_str!("../../docs/plugins/ipvlan.md")),
    ("vlan", include_str!("../../docs/plugins/vlan.md")),
    ("dummy", include_str!("../../docs/plugins/dummy.md")),
    ("tap", include_str!("../../docs/plugins/tap.md")),
];

/// Every configuration on a page is one of the files that are shipped.
fn pages_show_what_is_shipped(_: &Lab) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cni-conf/net.d");
    let entries = fs::read_dir(&dir)
        .expect("cni-conf/net.d is there")
        .flatten();
    let texts = entries.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let shipped: Vec<Value> = texts
        .filter_map(|text| serde_json::from_str(&text).ok())
        .collect();
    for (page, text) in PAGES {
        let blocks: Vec<&str> = text.split("```json").skip(1).collect();
        assert!(!blocks.is_empty(), "{page} has an example");
        for block in blocks {
            let block = block.split("```").next().unwrap_or_default();
            let example: Value = serde_json::from_str(block).expect("an example is JSON");
            assert!(
                shipped.contains(&example),
                "no file is this one of {page}: {example}"
            );
        }
    }
}

/// Networks whose CHECK fails with the Go plugins although nothing is wrong: the bridge's MAC changes with its
/// second port when there is no gateway, an IPAM plugin is asked for where there is none, and routes are looked
/// for in the main table alone.
const GO_CHECK_FAILS: [&str; 3] = ["several-ranges", "layer2", "static-routes"];

/// The host's address on the network outside, and that of a machine there.
const HOST: &str = "192.0.2.1";
const OUTSIDE: &str = "192.0.2.2";

/// The port of the host that the first container of a network with host ports publishes.
const HOST_PORT: u16 = 18080;

/// What it publishes it for, and how that is spelled.
const PROTOCOLS: [(Protocol, &str); 2] = [(Protocol::Tcp, "tcp"), (Protocol::Udp, "udp")];

/// A sample file: its network's name and the plugin that makes the interface.
struct Sample {
    network: String,
    main: Value,
    /// The types of all its plugins.
    types: Vec<Value>,
    /// Whether a plugin of it asks for port mappings.
    has_host_ports: bool,
    /// CHECK came with 0.4.0.
    has_check: bool,
}

impl Sample {
    fn read(text: &str) -> Self {
        let whole: Value = serde_json::from_str(text).expect("a sample is JSON");
        let network = whole["name"]
            .as_str()
            .expect("a sample has a name")
            .to_owned();
        let main = whole["plugins"].get(0).unwrap_or(&whole).clone();
        let plugins = whole["plugins"].as_array().into_iter().flatten();
        let types = plugins.clone().map(|plugin| plugin["type"].clone());
        let types = types.collect();
        let has_host_ports = plugins
            .filter(|plugin| plugin["capabilities"]["portMappings"] == true)
            .any(|plugin| plugin["type"] == "portmap");
        let version = whole["cniVersion"].as_str().unwrap_or_default();
        Self {
            network,
            main,
            types,
            has_host_ports,
            has_check: !["", "0.1.0", "0.2.0", "0.3.0", "0.3.1"].contains(&version),
        }
    }

    fn has(&self, key: &str) -> bool {
        self.main[key] == true
    }

    /// Containers of the network don't reach each other.
    fn is_alone(&self) -> bool {
        ALONE
            .iter()
            .any(|plugin| self.types.contains(&json!(plugin)))
    }

    /// The interface of the host that it stands on, or takes.
    fn master(&self) -> Option<&str> {
        self.main["master"]
            .as_str()
            .or(self.main["device"].as_str())
    }
}

fn works(lab: &Lab, file: &Path) {
    let text = fs::read_to_string(file).expect("read a sample");
    let sample = Sample::read(&text);
    let host = Host::new();
    host.configure(&file.file_name().expect("a name").to_string_lossy(), &text);
    let outside = outside(&host);
    let wire = sample.master().map(|name| wire(&host, name));
    let server = wire
        .as_ref()
        .filter(|_| sample.main["ipam"]["type"] == "dhcp");
    let _leases = server.map(|machine| {
        machine.ip("addr add 10.94.0.1/24 dev eth0");
        let server = lab.dnsmasq(machine, "eth0", "10.94.0.50,10.94.0.99", &[]);
        (server, lab.dhcp_daemon(&host, lab.bin(), &[]))
    });
    let before = host.observe();
    let plain = lab.cnitool(&host);
    let ports = json!({"portMappings": PROTOCOLS.map(|(_, protocol)| {
        json!({"hostPort": HOST_PORT, "containerPort": 80, "protocol": protocol})
    })});
    let published = plain.env("CAP_ARGS", &ports.to_string());
    let (a, b) = (host.pod("a"), host.pod("b"));
    if sample.is_alone() {
        return works_alone(lab, &sample, &host, &a);
    }
    let pods = [(&a, &published), (&b, &plain)];
    let results = pods.map(|(pod, cnitool)| cnitool.add(&sample.network, pod));

    // Traffic first: everything must be usable the moment ADD returns.
    match sample.main["type"].as_str() {
        Some("loopback") => assert!(a.pings([127, 0, 0, 1].into()), "lo is up"),
        _ if sample.main["ipam"].is_null() => layer2_connects(&a, &b),
        _ => layer3_connects(lab, &sample, &a, &b, &results),
    }
    if sample.has_host_ports {
        host_ports_answer(&outside, &a, &results[0]);
    }
    let network = sample.network.as_str();
    let go_fails = lab.subject == Subject::Go && GO_CHECK_FAILS.contains(&network);
    for (pod, cnitool) in pods.iter().filter(|_| !go_fails && sample.has_check) {
        cnitool.check(&sample.network, pod);
    }
    // DEL comes about twice per ADD from a runtime.
    for (pod, cnitool) in [pods, pods].concat() {
        cnitool.del(&sample.network, pod);
    }
    host.assert_nothing_left(&before, &[]);
}

/// A machine on a network with the host, whose address there is [`HOST`].
fn outside(host: &Host) -> Host {
    let outside = Host::new();
    host.cable("up0", &outside, "eth0");
    // What IPv6 adds to cables in its own time would be taken for something left behind.
    host.set_sysctl("net.ipv6.conf.up0.disable_ipv6", "1");
    host.ip(&format!("addr add {HOST}/24 dev up0"));
    outside.ip(&format!("addr add {OUTSIDE}/24 dev eth0"));
    outside
}

/// One container of a network that leads to no other.
fn works_alone(lab: &Lab, sample: &Sample, host: &Host, pod: &Pod) {
    let cnitool = lab.cnitool(host);
    let before = host.observe();
    let result = cnitool.add(&sample.network, pod);
    let eth0 = pod.link("eth0").expect("eth0");
    assert!(eth0["flags"].to_string().contains("\"UP\""), "{eth0}");
    let has = pod.addresses("eth0").join(" ");
    for address in addresses(&result) {
        assert!(has.contains(&address.to_string()), "{address}: {has}");
    }
    cnitool.check(&sample.network, pod);
    for _ in 0..2 {
        cnitool.del(&sample.network, pod);
        assert!(pod.link("eth0").is_none());
    }
    host.assert_nothing_left(&before, &[]);
}

/// A machine on the wire of that interface of the host.
fn wire(host: &Host, name: &str) -> Host {
    let machine = Host::new();
    // An interface that moves away and back has the settings of new ones.
    host.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1");
    host.cable(name, &machine, "eth0");
    machine
}

/// The ports that the first container publishes answer the outside, which keeps its address.
fn host_ports_answer(outside: &Host, pod: &Pod, result: &Value) {
    let inside = addresses(result)[0];
    let published: SocketAddr = (HOST.parse::<IpAddr>().expect("an address"), HOST_PORT).into();
    for (protocol, _) in PROTOCOLS {
        let _server = pod.serve(protocol, inside, 80);
        let seen = outside.ask(protocol, published);
        let seen = seen.unwrap_or_else(|error| panic!("{protocol:?} to {published}: {error}"));
        assert_eq!(seen.to_string(), OUTSIDE, "{protocol:?}");
    }
}

fn layer2_connects(a: &Pod, b: &Pod) {
    assert!(a.addresses("eth0").is_empty(), "no IPAM, no address");
    a.ip("addr add 192.0.2.1/24 dev eth0");
    b.ip("addr add 192.0.2.2/24 dev eth0");
    assert!(
        a.pings([192, 0, 2, 2].into()),
        "frames reach the other container"
    );
}

fn layer3_connects(lab: &Lab, sample: &Sample, a: &Pod, b: &Pod, results: &[Value; 2]) {
    let pairs = addresses(&results[0])
        .into_iter()
        .zip(addresses(&results[1]));
    for (at_a, at_b) in pairs {
        for protocol in Protocol::BOTH {
            let server = b.serve(protocol, at_b, 8080);
            if sample.has("portIsolation") {
                assert!(
                    a.cannot_reach(protocol, server.address),
                    "isolated ports don't talk"
                );
            } else {
                let seen = a.ask(protocol, server.address);
                assert_eq!(seen.expect("an answer from the other container"), at_a);
            }
        }
    }
    if sample.has("isGateway") || sample.has("isDefaultGateway") {
        for (index, _) in addresses(&results[0]).iter().enumerate() {
            let gateway = results[0]["ips"][index]["gateway"].as_str();
            let gateway: IpAddr = gateway.and_then(|it| it.parse().ok()).expect("a gateway");
            // The Go plugin lets duplicate address detection hold back the bridge's IPv6 address.
            let answers = a.pings(gateway) || (lab.subject == Subject::Go && a.pings(gateway));
            assert!(answers, "the gateway {gateway} answers at once");
        }
    }
    if let Some(mtu) = sample.main["mtu"].as_u64() {
        assert_eq!(a.link("eth0").expect("eth0")["mtu"], mtu);
    }
    if sample.has("isDefaultGateway") {
        for address in addresses(&results[0]) {
            let family = if address.is_ipv4() { "-4" } else { "-6" };
            let routes = a.ip_json(&format!("{family} route show default"));
            assert_eq!(
                routes.as_array().map(Vec::len),
                Some(1),
                "one default route: {routes}"
            );
        }
    }
}
