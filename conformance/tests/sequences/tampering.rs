//! What a container does inside its namespace, what an administrator does to the host, and what happens to files.

use conformance::{Host, Place, Program};

use crate::random::Random;

/// Lines for `ip` inside the container. `IF` is its interface, `INDEX` and `PEER` the indices that its neighbour's has inside
/// and on the host, `MAC` and `ALIAS` what the neighbour's host end has. A line that fails is a tampering that failed.
const INSIDE: &[&[&str]] = &[
    &["link set IF down"],
    &["link set IF down", "link set IF name kept"],
    &[
        "link set IF down",
        "link set IF name kept",
        "link add IF type bridge",
    ],
    &["link del IF"],
    &[
        "link del IF",
        "link add name IF index INDEX type veth peer name x index PEER",
        "link set IF up",
    ],
    &[
        "link del IF",
        "link add IF type veth peer name x",
        "link set x alias ALIAS",
        "link set IF alias ALIAS",
    ],
    &["link del IF", "link add IF link x type macvlan"],
    &[
        "link set IF down",
        "link set IF name kept",
        "link add name IF index INDEX type veth peer name x index PEER",
    ],
    &["link set IF alias ALIAS"],
    &["link set IF address MAC"],
    &["link set IF mtu 68"],
    &["addr flush dev IF"],
    &[
        "addr add 10.1.0.1/24 dev IF",
        "addr add 10.2.0.1/24 dev IF",
        "addr add fd00:1::1/64 dev IF nodad",
    ],
    &[
        "addr add 10.1.0.11/32 dev lo",
        "addr add 127.0.0.77/8 dev IF",
    ],
    &["route flush table main", "-6 route flush table main"],
    &[
        "link add other type bridge",
        "link property add dev other altname IF",
        "link set IF master other",
    ],
    &["link set IF netns /run/netns/accomplice"],
    &[
        "link set IF netns /run/netns/accomplice",
        "link add IF type veth peer name y netns /run/netns/accomplice",
    ],
    &["link add IF type veth peer name x", "link set IF up"],
    &["link set lo down"],
];

/// What the container knows of its neighbour, by luck or by trying all numbers.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) interface: String,
    pub(super) index: String,
    pub(super) peer: String,
    pub(super) mac: String,
    pub(super) alias: String,
}

/// One of the misdeeds, done; what it was.
pub(super) fn inside(random: &mut Random, pod: &Place, known: &Known) -> String {
    let lines = random.pick(INSIDE);
    for line in lines {
        // The alias has no white space that `ip` would take for the next word.
        let words = line.split(' ').map(|word| match word {
            "IF" => known.interface.clone(),
            "INDEX" => known.index.clone(),
            "PEER" => known.peer.clone(),
            "MAC" => known.mac.clone(),
            "ALIAS" => known.alias.clone(),
            word => word.to_owned(),
        });
        pod.run(Program::new("ip").args(words));
    }
    format!("container: {}", lines.join("; "))
}

/// Command lines of an administrator, or of a service that thinks the firewall is its own.
const OUTSIDE: &[&str] = &[
    "nft flush ruleset",
    "nft delete table inet trestle",
    "nft flush table inet trestle",
    "iptables -F",
    "iptables -t nat -F",
    "iptables -t nat -X",
    "iptables -t raw -F",
    "ip6tables -t nat -F",
    "sysctl -q net.ipv4.ip_forward=0",
    "sysctl -q net.ipv4.conf.all.route_localnet=0",
    "rm -rf /run/cni/trestle",
];

/// One of them, done; what it was.
pub(super) fn outside(random: &mut Random, host: &Host) -> String {
    let line = random.pick(OUTSIDE);
    host.run(Program::new("sh").args(["-c", line]));
    format!("host: {line}")
}

/// Files of what plugins keep that are not one attachment's; they can be made anew.
const SHARED: &str =
    "find /var/lib/cni /run/cni -name lock -o -name index -o -name 'last_reserved_ip.*'";

/// What a file becomes. `F` is its path.
const OUTCOMES: &[&str] = &[
    ": >\"$F\"",
    "truncate -s $(( $(stat -c %s \"$F\") / 2 )) \"$F\"",
    "rm -rf \"$F\"; mkdir \"$F\"",
    "rm -rf \"$F\"; mkdir -p \"$F/in/it\"",
    "rm -rf \"$F\"; mkfifo \"$F\"",
    "rm -rf \"$F\"; ln -s /run/absent \"$F\"",
    "rm -rf \"$F\"; ln -s \"$F\" \"$F\"",
    "rm -rf \"$F\"",
    "head -c 4096 /dev/zero >\"$F\"",
    "head -c 1000000 /dev/zero | tr '\\0' x >\"$F\"",
    "echo '{\"version\": 99, \"unknown\": [1, 2]}' >\"$F\"",
    "echo '[[[[' >\"$F\"",
    "printf 'somebody-else\\r\\neth0' >\"$F\"",
    "chmod 0 \"$F\"",
    "chattr +i \"$F\"",
];

/// The files of the plugins, sorted.
pub(super) fn files(host: &Host) -> Vec<String> {
    let found = host.sh(
        "find /var/lib/cni /run/cni /run/elsewhere -not -type d -not -path /run/cni/trestle/*.lock",
    );
    let mut files: Vec<_> = found.lines().map(str::to_owned).collect();
    files.sort();
    files
}

/// Do something to one of these files, or to one that everybody shares; what it was.
pub(super) fn corrupt_a_file(
    random: &mut Random,
    host: &Host,
    own: &[String],
) -> Option<(String, String)> {
    let shared = host.run(Program::new("sh").args(["-c", SHARED])).text();
    let mut shared: Vec<_> = shared.lines().map(str::to_owned).collect();
    shared.sort();
    let among = if random.one_in(4) || own.is_empty() {
        &shared
    } else {
        own
    };
    let file = among.get(random.below(among.len().max(1)))?.clone();
    let fate = random.pick(OUTCOMES);
    host.run(Program::new("sh").args(["-c", fate]).env("F", &file));
    Some((file.clone(), format!("file: {fate} with {file}")))
}
