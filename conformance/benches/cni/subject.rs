//! Implementation is measured, and what for: implementations and the networks they are asked to make.

use std::path::PathBuf;

use conformance::{Host, Pod};
use serde_json::{Value, json};

pub(crate) use crate::kind::Kind;
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
    /// The first host's port that is mapped, for kinds that map any.
    pub(crate) port: u16,
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
            host.ip("addr add fd00:77::1/64 dev floor0 nodad");
            host.ip("link set floor0 up");
            host.sh("nft add table inet floor");
            host.sh("nft add set inet floor floor { type ipv4_addr . inet_service ; }");
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
        if kind.masquerades()
            && subject.who != Implementation::Floor
            && !network.rules().to_lowercase().contains("masquerade")
        {
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
        self.add_by(&self.chain(), container, pod, run)
    }

    /// The same by other plugins than its own.
    pub(crate) fn add_by(
        &self,
        chain: &[Value],
        container: &str,
        pod: &Pod,
        run: Runner<'_>,
    ) -> Result<Attached, String> {
        let mut attached = Attached {
            container: container.to_owned(),
            netns: pod.netns(),
            port: 20_000 + hash(container) % 10_000 * 2,
            result: Value::Null,
        };
        for plugin in chain {
            let done = run(self.call("ADD", plugin, &attached))?.succeeded()?;
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
            Implementation::Floor => vec![self.kind.floor()],
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
        let mappings = configuration.pointer_mut("/runtimeConfig/portMappings");
        let mappings = mappings.and_then(Value::as_array_mut);
        for (port, mapping) in (attached.port..).zip(mappings.into_iter().flatten()) {
            mapping["hostPort"] = json!(port);
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
