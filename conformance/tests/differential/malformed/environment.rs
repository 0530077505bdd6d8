//! The variables that a runtime calls with.

use super::Input::{Args, Variable};
use super::{Row, refused, refused_alike, row, taken, taken_by_ours};

pub(super) fn rows() -> Vec<Row> {
    vec![
        refused_alike("no container ID", Variable("CNI_CONTAINERID", None), 4),
        refused_alike(
            "container ID is empty",
            Variable("CNI_CONTAINERID", Some("")),
            4,
        ),
        refused_alike(
            "container ID starts with a dash",
            Variable("CNI_CONTAINERID", Some("-x")),
            4,
        ),
        refused_alike(
            "container ID leads up",
            Variable("CNI_CONTAINERID", Some("../x")),
            4,
        ),
        refused_alike(
            "container ID with a space",
            Variable("CNI_CONTAINERID", Some("a b")),
            4,
        ),
        refused_alike(
            "container ID with a colon",
            Variable("CNI_CONTAINERID", Some("a:b")),
            4,
        ),
        refused_alike("no interface name", Variable("CNI_IFNAME", None), 4),
        refused_alike(
            "interface name is too long",
            Variable("CNI_IFNAME", Some("sixteen-bytes-xx")),
            4,
        ),
        refused_alike(
            "interface name is a dot",
            Variable("CNI_IFNAME", Some(".")),
            4,
        ),
        refused_alike(
            "interface name is two dots",
            Variable("CNI_IFNAME", Some("..")),
            4,
        ),
        refused_alike(
            "interface name with a slash",
            Variable("CNI_IFNAME", Some("a/b")),
            4,
        ),
        refused_alike(
            "interface name with a colon",
            Variable("CNI_IFNAME", Some("a:b")),
            4,
        ),
        refused_alike(
            "interface name with a space",
            Variable("CNI_IFNAME", Some("a b")),
            4,
        ),
        refused(
            "interface name exists",
            Variable("CNI_IFNAME", Some("lo")),
            102,
        ),
        refused_alike("no netns", Variable("CNI_NETNS", None), 4),
        refused_alike("netns is empty", Variable("CNI_NETNS", Some("")), 4),
        refused(
            "netns does not exist",
            Variable("CNI_NETNS", Some("/run/netns/none")),
            4,
        ),
        refused(
            "netns is no namespace",
            Variable("CNI_NETNS", Some("/etc/hostname")),
            4,
        ),
        refused(
            "netns is another kind",
            Variable("CNI_NETNS", Some("/proc/self/ns/mnt")),
            4,
        ),
        row(
            "netns is the host's own",
            Variable("CNI_NETNS", Some("/proc/self/ns/net")),
            (4, 0),
            "own-namespace",
        ),
        refused("args without a value", Args("IP"), 4),
        taken_by_ours("args with an unknown key", Args("UNHEARD=1")),
        taken(
            "args with an unknown key that may be ignored",
            Args("IgnoreUnknown=1;UNHEARD=1"),
        ),
        taken_by_ours("args with a semicolon at the end", Args("IgnoreUnknown=1;")),
        taken_by_ours("args with two equals signs", Args("IgnoreUnknown=1;A=b=c")),
        refused("args with an IP of nonsense", Args("IP=x"), 7),
        refused("args with a MAC of nonsense", Args("MAC=x"), 7),
        refused(
            "args with an IP with leading zeros",
            Args("IP=10.1.0.05"),
            7,
        ),
        taken(
            "args with a MAC with dots",
            Args("IgnoreUnknown=1;MAC=0200.0000.0007"),
        ),
        refused("args with an IP outside", Args("IP=10.9.0.9"), 101),
        taken_by_ours(
            "args with IgnoreUnknown of nonsense",
            Args("IgnoreUnknown=maybe"),
        ),
    ]
}
