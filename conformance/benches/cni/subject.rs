//! Implementation is measured, and what for: implementations and the networks they are asked to make.

use std::path::PathBuf;

use conformance::{Host, Pod};
use serde_json::{Value, json};

use crate::process::{Call, Done};

/// Whose program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Implementation {
    /// Hand-packed netlink and nothing else.
    Floor,
    /// This workspace.
    Trestle,
    /// The Go plugins.
    Go,
}

impl Implementation {
    pub(crate) const ALL: [Self; 3] = [Self::Floor, Self::Trestle, Self::Go];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Trestle => "trestle",
            Self::Go => "go",
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// bridge + host-local
    Bridge,
    /// The same with masquerade in nftables.
    Nftables,
    /// The same with masquerade in iptables.
    Iptables,
    /// ptp + host-local, portmap with one port.
    PtpPortmap,
    /// bridge + host-local with an IPv6 address as well.
    DualStack,
    /// bridge + host-local + firewall.
    Firewall,
    /// macvlan + host-local.
    Macvlan,
}

impl Kind {
    /// What a container alone is attached to.
    pub(crate) const EACH: [Self; 5] = [
        Self::Bridge,
        Self::Nftables,
        Self::Iptables,
        Self::PtpPortmap,
        Self::Macvlan,
    ];

    /// Whether the floor does it, too. Others are compared with its bridge.
    pub(crate) fn has_floor(self) -> bool {
        matches!(self, Self::Bridge | Self::Macvlan)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Nftables => "bridge, nftables masquerade",
            Self::Iptables => "bridge, iptables masquerade",
            Self::PtpPortmap => "ptp + portmap",
            Self::DualStack => "bridge, dual stack",
            Self::Firewall => "bridge + firewall",
            Self::Macvlan => "macvlan",
        }
    }

    /// The plugins in the order of ADD, with their configuration.
    fn plugins(self) -> Vec<Value> {
        let ipam = json!({"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]});
        let bridge = json!({
            "type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true, "ipam": ipam
        });
        let masquerade = |backend: &str| {
            let mut bridge = bridge.clone();
            bridge["ipMasq"] = json!(true);
            bridge["ipMasqBackend"] = json!(backend);
            vec![bridge]
        };
        match self {
            Self::Bridge => vec![bridge],
            Self::Firewall => vec![bridge, json!({"type": "firewall"})],
            Self::DualStack => {
                let mut bridge = bridge;
                bridge["ipam"]["ranges"] =
                    json!([[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]]);
                vec![bridge]
            }
            Self::Nftables => masquerade("nftables"),
            Self::Iptables => masquerade("iptables"),
            Self::PtpPortmap => {
                let mut ipam = ipam;
                ipam["routes"] = json!([{"dst": "0.0.0.0/0"}]);
                let portmap = json!({
                    "type": "portmap",
                    "runtimeConfig": {"portMappings": [{"hostPort": 0, "containerPort": 80, "protocol": "tcp"}]}
                });
                vec![json!({"type": "ptp", "ipam": ipam}), portmap]
            }
            Self::Macvlan => {
                let mut ipam = ipam;
                ipam["routes"] = json!([{"dst": "0.0.0.0/0"}]);
                vec![json!({"type": "macvlan", "master": "up0", "ipam": ipam})]
            }
        }
    }

    fn masquerades(self) -> bool {
        matches!(self, Self::Nftables | Self::Iptables)
    }
}

/// An implementation and its files.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    pub(crate) who: Implementation,
    /// The directory of its plugins; of the floor, its program.
    pub(crate) bin: PathBuf,
}

/// One network of one implementation on a host of its own.
pub(crate) struct Network {
    pub(crate) subject: Subject,
    pub(crate) kind: Kind,
    pub(crate) host: Host,
    /// What its DEL complains about although it does its work.
    pub(crate) complaint: Option<String>,
    /// A container that stays: a node with none is not what anybody waits for.
    pub(crate) resident: Pod,
}

/// A container that is attached, with what ADD said about it.
pub(crate) struct Attached {
    pub(crate) container: String,
    pub(crate) netns: String,
    port: u16,
    pub(crate) result: Value,
}

/// How one verb of a whole chain of plugins is run: for time, or under another program.
pub(crate) type Runner<'r> = &'r mut dyn FnMut(Call) -> Result<Done, String>;

impl Network {
    /// A fresh host with one container attached, after a second one was tried: whether this implementation really
    /// does what is asked for. A plugin that ignores a key would be measured doing nothing.
    pub(crate) fn new(subject: &Subject, kind: Kind) -> Result<Self, String> {
        Self::on(Host::new(), subject, kind)
    }

    /// The same on a host that has something already.
    pub(crate) fn on(host: Host, subject: &Subject, kind: Kind) -> Result<Self, String> {
        if subject.who == Implementation::Floor {
            host.ip("link add floor0 address 0a:59:00:00:00:01 type bridge mcast_snooping 0");
            host.ip("addr add 10.77.0.1/16 dev floor0");
            host.ip("link set floor0 up");
        }
        if kind == Kind::Macvlan {
            host.ip("link add up0 type veth peer name other0");
            host.ip("link set up0 up");
            host.ip("link set other0 up");
        }
        let mut network = Self {
            subject: subject.clone(),
            kind,
            resident: host.pod("resident"),
            host,
            complaint: None,
        };
        let run: fn(Call) -> Result<Done, String> = |call| call.run();
        let attach = |pod: &Pod| {
            let add = || network.add(&pod.name, pod, &mut { run });
            network.host.enter(add)
        };
        attach(&network.resident)?;
        let pod = network.host.pod("try-out");
        let attached = attach(&pod)?;
        if kind.masquerades() && !network.rules().to_lowercase().contains("masquerade") {
            return Err("ADD succeeded, but nothing masquerades".to_owned());
        }
        let detached = network.host.enter(|| network.del(&attached, &mut { run }));
        network.complaint = detached.err();
        // Go's with nftables does its work and ends with an error, beside an iptables whose wording it doesn't know.
        let left = network.rules().contains("try-out") || pod.link("eth0").is_some();
        match network.complaint.take_if(|_| left) {
            Some(complaint) => Err(complaint),
            None => Ok(network),
        }
    }

    fn rules(&self) -> String {
        self.host.sh("nft list ruleset") + &self.host.sh("iptables-save")
    }

    /// ADD, in the namespaces of this thread.
    pub(crate) fn add(
        &self,
        container: &str,
        pod: &Pod,
        run: Runner<'_>,
    ) -> Result<Attached, String> {
        let mut attached = Attached {
            container: container.to_owned(),
            netns: pod.netns(),
            port: 20_000 + hash(container) % 20_000,
            result: Value::Null,
        };
        for plugin in self.chain() {
            let done = run(self.call("ADD", &plugin, &attached))?.succeeded()?;
            attached.result = serde_json::from_slice(&done.stdout)
                .map_err(|error| format!("result of {}: {error}", plugin["type"]))?;
        }
        Ok(attached)
    }

    /// DEL, in the namespaces of this thread.
    pub(crate) fn del(&self, attached: &Attached, run: Runner<'_>) -> Result<(), String> {
        for plugin in self.chain().iter().rev() {
            let done = run(self.call("DEL", plugin, attached))?;
            if self.complaint.is_none() {
                done.succeeded()?;
            }
        }
        Ok(())
    }

    /// The configurations of its plugins, in the order of ADD.
    pub(crate) fn chain(&self) -> Vec<Value> {
        match self.subject.who {
            Implementation::Floor if self.kind == Kind::Macvlan => {
                vec![json!({"type": "floor", "kind": "macvlan"})]
            }
            Implementation::Floor => vec![json!({"type": "floor"})],
            Implementation::Trestle | Implementation::Go => self.kind.plugins(),
        }
    }

    fn call(&self, verb: &str, plugin: &Value, attached: &Attached) -> Call {
        let bin = &self.subject.bin;
        let mut configuration = plugin.clone();
        configuration["cniVersion"] = json!("1.0.0");
        configuration["name"] = json!("bench");
        if !attached.result.is_null() {
            configuration["prevResult"] = attached.result.clone();
        }
        if let Some(port) = configuration.pointer_mut("/runtimeConfig/portMappings/0/hostPort") {
            *port = json!(attached.port);
        }
        let program = match self.subject.who {
            Implementation::Floor => bin.clone(),
            _ => bin.join(plugin["type"].as_str().unwrap_or_default()),
        };
        Call {
            command: vec![program],
            env: vec![
                ("CNI_COMMAND", verb.to_owned()),
                ("CNI_CONTAINERID", attached.container.clone()),
                ("CNI_NETNS", attached.netns.clone()),
                ("CNI_IFNAME", "eth0".to_owned()),
                ("CNI_PATH", bin.to_string_lossy().into_owned()),
            ],
            stdin: configuration.to_string().into_bytes(),
        }
    }
}

fn hash(text: &str) -> u16 {
    text.bytes().fold(7, |hash: u16, byte| {
        hash.wrapping_mul(31).wrapping_add(u16::from(byte))
    })
}
