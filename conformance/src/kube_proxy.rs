//! The rules that kube-proxy writes on a node, in its iptables and its nftables mode, for Services with a virtual
//! address (ClusterIP). Chains, marks, hooks, priorities and the order of rules are kube-proxy's; names that hold a
//! hash there are readable here, and what a ClusterIP has no use for (node ports, load balancers) is left out.

use std::fmt::Write as _;
use std::net::SocketAddr;

use ipnet::IpNet;

use crate::exec::Program;
use crate::host::Host;
use crate::traffic::Protocol;

/// Which of kube-proxy's modes writes the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    /// `--proxy-mode=iptables`
    Iptables,
    /// `--proxy-mode=nftables`
    Nftables,
}

/// A Service: a virtual address and the pods behind it.
#[derive(Debug, Clone)]
pub struct Service {
    /// Its name, letters and digits.
    pub name: String,
    /// What is served.
    pub protocol: Protocol,
    /// The virtual address and port.
    pub address: SocketAddr,
    /// Where the pods serve, one of which is chosen at random for each connection.
    pub endpoints: Vec<SocketAddr>,
}

impl Service {
    /// A Service at an address like `10.96.0.10:53`, with endpoints of the same kind.
    ///
    /// # Panics
    /// When one is no address.
    pub fn new(name: &str, protocol: Protocol, address: &str, endpoints: &[&str]) -> Self {
        let parse = |text: &str| text.parse().expect("an address and a port");
        Self {
            name: name.to_owned(),
            protocol,
            address: parse(address),
            endpoints: endpoints.iter().map(|text| parse(text)).collect(),
        }
    }

    fn l4(&self) -> &'static str {
        match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp | Protocol::Dns => "udp",
        }
    }
}

impl Host {
    /// Do what kube-proxy does when it has heard of these Services. Traffic to them from elsewhere than `pods`, the
    /// cluster's prefixes, is masqueraded.
    pub fn kube_proxy(&self, mode: ProxyMode, pods: &[&str], services: &[Service]) {
        for v6 in [false, true] {
            let of_family: Vec<_> = services
                .iter()
                .filter(|service| service.address.is_ipv6() == v6)
                .collect();
            let pods = pods.iter().map(|text| text.parse().expect("a prefix"));
            let pods = pods
                .into_iter()
                .find(|prefix| matches!(prefix, IpNet::V6(_)) == v6);
            let Some(pods) = pods.filter(|_| !of_family.is_empty()) else {
                continue;
            };
            // So many that a transaction fits into a socket's buffer.
            for (index, some) in of_family.chunks(200).enumerate() {
                let program = match mode {
                    ProxyMode::Iptables if v6 => {
                        Program::new("ip6tables-restore").args(["--noflush"])
                    }
                    ProxyMode::Iptables => Program::new("iptables-restore").args(["--noflush"]),
                    ProxyMode::Nftables => Program::new("nft").args(["-f", "-"]),
                };
                let rules = match mode {
                    ProxyMode::Iptables => iptables(pods, some, index == 0),
                    ProxyMode::Nftables => nftables(pods, some, index == 0),
                };
                self.run(program.stdin(rules)).succeeded();
            }
        }
    }

    /// The rules of a cluster with so many Services of one pod each, in IPv4: five for each in mode iptables.
    pub fn kube_proxy_of(&self, mode: ProxyMode, services: u16) {
        let services: Vec<Service> = (0..services)
            .map(|number| {
                let [high, low] = number.to_be_bytes();
                let (address, pod) = (
                    format!("10.96.{high}.{low}:80"),
                    format!("10.97.{high}.{low}:8080"),
                );
                Service::new(
                    &format!("many{number}"),
                    Protocol::Tcp,
                    &address,
                    &[pod.as_str()],
                )
            })
            .collect();
        self.kube_proxy(mode, &["10.88.0.0/16"], &services);
    }
}

/// Its own chains, and jumps to them inserted before whatever else is there.
const IPTABLES_BASE: &str = "\
*filter
:KUBE-SERVICES - [0:0]
:KUBE-FORWARD - [0:0]
-I FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-I FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
-I PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-I POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
";

fn iptables(pods: IpNet, services: &[&Service], first: bool) -> String {
    let mut rules = if first { IPTABLES_BASE } else { "*nat\n" }.to_owned();
    let mut rejects = String::new();
    for service in services {
        let (name, l4, last) = (&service.name, service.l4(), service.endpoints.len());
        let (address, port) = (service.address.ip(), service.address.port());
        let to = format!("-d {address} -p {l4} -m {l4} --dport {port}");
        if last == 0 {
            let _ = writeln!(
                rejects,
                "-A KUBE-SERVICES -m comment --comment \"{name} has no endpoints\" {to} -j REJECT"
            );
            continue;
        }
        let _ = writeln!(rules, ":KUBE-SVC-{name} - [0:0]");
        let _ = writeln!(rules, "-A KUBE-SERVICES {to} -j KUBE-SVC-{name}");
        let _ = writeln!(
            rules,
            "-A KUBE-SVC-{name} ! -s {pods} {to} -j KUBE-MARK-MASQ"
        );
        for (index, endpoint) in service.endpoints.iter().enumerate() {
            let sep = format!("KUBE-SEP-{name}-{index}");
            // The first of n is taken with probability 1/n, the next with 1/(n-1), the last always.
            let chance = match last - index {
                1 => String::new(),
                left => format!(
                    "-m statistic --mode random --probability {:.10} ",
                    1.0 / left as f64
                ),
            };
            let _ = writeln!(rules, ":{sep} - [0:0]");
            let _ = writeln!(rules, "-A KUBE-SVC-{name} {chance}-j {sep}");
            let _ = writeln!(rules, "-A {sep} -s {} -j KUBE-MARK-MASQ", endpoint.ip());
            let _ = writeln!(
                rules,
                "-A {sep} -p {l4} -m {l4} -j DNAT --to-destination {endpoint}"
            );
        }
    }
    let _ = write!(rules, "COMMIT\n*filter\n{rejects}COMMIT\n");
    rules
}

/// The base chains, with FAMILY and ADDRESS in place of the family's words.
const NFTABLES_BASE: &str = "\
table FAMILY kube-proxy {
    comment \"rules for kube-proxy\"
    set cluster-ips { type ADDRESS; }
    map service-ips { type ADDRESS . inet_proto . inet_service : verdict; }
    chain mark-for-masquerade { meta mark set meta mark | 0x4000; }
    chain masquerading {
        meta mark & 0x4000 == 0 return
        meta mark set meta mark ^ 0x4000
        masquerade fully-random
    }
    chain services { FAMILY daddr . meta l4proto . th dport vmap @service-ips; }
    map no-endpoint-services { type ADDRESS . inet_proto . inet_service : verdict; }
    chain reject-chain { reject; }
    chain service-endpoints-check { FAMILY daddr . meta l4proto . th dport vmap @no-endpoint-services; }
    chain cluster-ips-check { FAMILY daddr @cluster-ips reject; }
    chain filter-forward {
        type filter hook forward priority -110; policy accept;
        ct state new jump service-endpoints-check
        ct state new jump cluster-ips-check
    }
    chain filter-output-post-dnat {
        type filter hook output priority -90; policy accept;
        ct state new jump cluster-ips-check
    }
    chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
    chain nat-output { type nat hook output priority -100; policy accept; jump services; }
    chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
}
";

fn nftables(pods: IpNet, services: &[&Service], first: bool) -> String {
    let v6 = matches!(pods, IpNet::V6(_));
    let (family, kind) = if v6 {
        ("ip6", "ipv6_addr")
    } else {
        ("ip", "ipv4_addr")
    };
    let base = NFTABLES_BASE.replace("FAMILY", family);
    let mut rules = match first {
        true => base.replace("ADDRESS", kind),
        false => String::new(),
    };
    for service in services {
        let (name, l4) = (&service.name, service.l4());
        let (address, port) = (service.address.ip(), service.address.port());
        if service.endpoints.is_empty() {
            let _ = writeln!(
                rules,
                "add element {family} kube-proxy no-endpoint-services {{ {address} . {l4} . {port} comment \"{name}\" : goto reject-chain }}"
            );
            continue;
        }
        let (mut chains, mut choice) = (String::new(), String::new());
        for (index, endpoint) in service.endpoints.iter().enumerate() {
            let chain = format!("endpoint-{name}-{index}");
            let _ = write!(choice, "{index} : goto {chain}, ");
            let _ = writeln!(
                chains,
                "add chain {family} kube-proxy {chain} {{ {family} saddr {} jump mark-for-masquerade; \
                 meta l4proto {l4} dnat to {endpoint}; }}",
                endpoint.ip()
            );
        }
        let count = service.endpoints.len();
        let _ = write!(
            rules,
            "{chains}\
             add chain {family} kube-proxy service-{name} {{ {family} daddr {address} {l4} dport {port} \
             {family} saddr != {pods} jump mark-for-masquerade; numgen random mod {count} vmap {{ {choice} }}; }}\n\
             add element {family} kube-proxy cluster-ips {{ {address} }}\n\
             add element {family} kube-proxy service-ips {{ {address} . {l4} . {port} : goto service-{name} }}\n",
        );
    }
    rules
}
