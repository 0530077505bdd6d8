//! The host of a sequence: a container that is not to be trusted, and two honest neighbours.

use conformance::{Call, Host, Lab, Need, Output, Plugin, Pod, Snapshot, with_prev_result};
use serde_json::{Value, json};

use super::network::{KINDS, Names, Network, device};
use super::tampering::{Known, files};
use super::verify::protocol;
use crate::random::Random;

/// What an administrator has in the filter, restored after somebody flushed it.
const FILTERS: &[&str] = &[
    "true",
    "iptables -P FORWARD DROP",
    "nft add table inet admin; nft 'add chain inet admin forward { type filter hook forward priority 0; policy drop; }'",
];

/// What the plugins of a list were called with, as a runtime keeps it for DEL.
#[derive(Debug, Clone)]
pub(super) struct Attachment {
    pub(super) call: Call,
    /// Which program each configuration is for, whatever its `type` says.
    pub(super) programs: Vec<String>,
    pub(super) plugins: Vec<Value>,
    /// What the last plugin said.
    pub(super) result: Option<Value>,
    /// Whether every plugin succeeded.
    pub(super) whole: bool,
}

impl Attachment {
    pub(super) fn new(call: Call, plugins: Vec<Value>) -> Self {
        let program = |plugin: &Value| plugin["type"].as_str().unwrap_or_default().to_owned();
        let programs = plugins.iter().map(program).collect();
        Self {
            call,
            programs,
            plugins,
            result: None,
            whole: false,
        }
    }
}

/// An honest container.
#[derive(Debug)]
pub(super) struct Neighbour {
    pub(super) pod: Pod,
    pub(super) attachment: Attachment,
    pub(super) gateway: Option<&'static str>,
    pub(super) inside: Vec<String>,
}

/// A sequence's host, with everybody who lives there.
pub(super) struct Scene<'l> {
    pub(super) lab: &'l Lab,
    pub(super) host: Host,
    _world: Host,
    pub(super) names: Names,
    pub(super) networks: [Network; 2],
    pub(super) filter: &'static str,
    pub(super) subject: Option<Pod>,
    _accomplice: Pod,
    pub(super) witnesses: [Pod; 2],
    pub(super) neighbours: Vec<Neighbour>,
    /// Everything that the subject was ever attached with.
    pub(super) made: Vec<Attachment>,
    /// Files that something happened to.
    pub(super) spoilt: Vec<String>,
    pub(super) log: Vec<String>,
    pub(super) empty: Snapshot,
    pub(super) before: Snapshot,
    pub(super) files: Vec<String>,
}

/// The subject's number, by which it has its addresses, ports and devices.
pub(super) const SUBJECT_NUMBER: usize = 1;

/// Where the subject's namespace is.
pub(super) const SUBJECT: &str = "/run/netns/subject";

impl<'l> Scene<'l> {
    /// The host, before anybody is attached.
    pub(super) fn new(lab: &'l Lab, random: &mut Random) -> Self {
        let (host, world) = (Host::new(), Host::new());
        let names = Names::new(random);
        let kinds = kinds(lab);
        let networks = ['a', 'b'].map(|letter| Network::new(random, &kinds, &names, letter));
        let filter = random.pick(FILTERS);
        prepare(&host, &world);
        host.sh_line(filter);
        let (subject, accomplice) = (host.pod("subject"), host.pod("accomplice"));
        let witnesses = ["witness-a", "witness-b"].map(|name| host.pod(name));
        let empty = host.observe();
        let mut scene = Self {
            lab,
            _world: world,
            names,
            networks,
            filter,
            witnesses,
            made: Vec::new(),
            spoilt: Vec::new(),
            log: Vec::new(),
            before: empty.clone(),
            empty,
            subject: Some(subject),
            _accomplice: accomplice,
            neighbours: Vec::new(),
            files: Vec::new(),
            host,
        };
        let lists = scene
            .networks
            .iter()
            .map(|network| json!(network.plugins(1)).to_string());
        scene.log = lists.chain([format!("filter: {filter}")]).collect();
        scene
    }

    /// Attach the neighbours.
    pub(super) fn settle(&mut self) -> Result<(), String> {
        for (index, (name, letter)) in [("mate", 'm'), ("stranger", 't')].into_iter().enumerate() {
            let pod = self.host.pod(name);
            let mut attachment = self.honest(index, letter, Some(pod.netns()), 0);
            self.add(&mut attachment, None)?;
            if !attachment.whole {
                return Err("an honest ADD failed".to_owned());
            }
            let inside = inside(&pod);
            let gateway = self.networks[index].gateway();
            self.neighbours.push(Neighbour {
                pod,
                attachment,
                gateway,
                inside,
            });
        }
        // A network finds a guard that came with another one when the next container comes.
        for index in 0..2 {
            let mut attachment = self.honest(index, 'w', Some(self.witnesses[index].netns()), 2);
            self.add(&mut attachment, None)?;
            self.del(&attachment, None)?;
        }
        self.log.push("everybody has settled".to_owned());
        self.before = self.host.observe();
        self.files = files(&self.host);
        Ok(())
    }

    /// The attachment of a container to a network as everybody wishes it.
    pub(super) fn honest(
        &self,
        network: usize,
        letter: char,
        netns: Option<String>,
        number: usize,
    ) -> Attachment {
        let network = &self.networks[network];
        let interface = match network.main() {
            "loopback" => "lo".to_owned(),
            _ => self.names.interface(),
        };
        let container = self.names.container(letter);
        let call = Call {
            container: Some(container),
            netns,
            ifname: Some(interface),
            args: None,
        };
        Attachment::new(call, network.plugins(number))
    }

    pub(super) fn plugin(&self, program: &str) -> Plugin<'_> {
        self.lab.plugin(&self.host, program)
    }

    /// Keep what was done and what came of it.
    pub(super) fn note(
        &mut self,
        verb: &str,
        program: &str,
        conf: &str,
        call: &Call,
        output: &Output,
    ) {
        let conf: String = conf.chars().take(1500).collect();
        let call: String = format!("{call:?}").chars().take(700).collect();
        self.log
            .push(format!("{verb} {program} {conf}\n    {call}\n    {output}"));
    }

    /// Call one plugin, which must keep to the protocol; killed at that of its system calls, if there is one.
    pub(super) fn call(
        &mut self,
        verb: &str,
        program: &str,
        conf: &Value,
        call: &Call,
        killed: Option<usize>,
    ) -> Result<Output, String> {
        let output = match killed {
            Some(at) => {
                let fault = format!("all:signal=KILL:when={at}");
                self.plugin(program)
                    .call_with_fault(&fault, verb, conf, call)
            }
            None => self.plugin(program).call(verb, conf, call),
        };
        self.note(verb, program, &conf.to_string(), call, &output);
        let gone = output.status.code().is_none() || output.status.code() == Some(137);
        if killed.is_some() && gone {
            return Ok(output);
        }
        protocol(verb, &output)?;
        Ok(output)
    }

    /// ADD of a list, up to the first plugin that fails; one of them killed, if it is said which and where.
    pub(super) fn add(
        &mut self,
        attachment: &mut Attachment,
        killed: Option<(usize, usize)>,
    ) -> Result<(), String> {
        attachment.result = None;
        attachment.whole = false;
        for index in 0..attachment.plugins.len() {
            let mut conf = attachment.plugins[index].clone();
            if let Some(result) = &attachment.result {
                conf = with_prev_result(&conf, result);
            }
            let killed = killed.and_then(|(which, at)| (which == index).then_some(at));
            let program = attachment.programs[index].clone();
            let output = self.call("ADD", &program, &conf, &attachment.call, killed)?;
            if !output.ok() {
                return Ok(());
            }
            attachment.result = Some(output.json());
        }
        attachment.whole = true;
        Ok(())
    }

    /// CHECK of a list; whether all succeeded.
    pub(super) fn check(&mut self, attachment: &Attachment) -> Result<bool, String> {
        let result = attachment.result.clone().unwrap_or_else(|| json!({}));
        let mut all = true;
        for (program, conf) in attachment.programs.iter().zip(&attachment.plugins) {
            let conf = with_prev_result(conf, &result);
            all &= self
                .call("CHECK", program, &conf, &attachment.call, None)?
                .ok();
        }
        Ok(all)
    }

    /// DEL of a list, from the last plugin to the first; whether all succeeded.
    pub(super) fn del(
        &mut self,
        attachment: &Attachment,
        killed: Option<(usize, usize)>,
    ) -> Result<bool, String> {
        let mut all = true;
        for index in (0..attachment.plugins.len()).rev() {
            let mut conf = attachment.plugins[index].clone();
            if let Some(result) = &attachment.result {
                conf = with_prev_result(&conf, result);
            }
            let killed = killed.and_then(|(which, at)| (which == index).then_some(at));
            all &= self
                .call(
                    "DEL",
                    &attachment.programs[index],
                    &conf,
                    &attachment.call,
                    killed,
                )?
                .ok();
        }
        Ok(all)
    }

    /// GC of a network with this list of who lives.
    pub(super) fn gc(&mut self, network: usize, valid: &Value) -> Result<bool, String> {
        let attachment = Attachment::new(Call::default(), self.networks[network].plugins(0));
        let mut all = true;
        for (program, mut conf) in attachment.programs.into_iter().zip(attachment.plugins) {
            conf["cniVersion"] = json!("1.1.0");
            conf["cni.dev/valid-attachments"] = valid.clone();
            all &= self
                .call("GC", &program, &conf, &attachment.call, None)?
                .ok();
        }
        Ok(all)
    }

    /// Both neighbours, and the subject or not, as GC wants them.
    pub(super) fn living(&self, subject: bool) -> Value {
        let mut letters = vec!['m', 't'];
        letters.extend(subject.then_some('s'));
        let interfaces = [self.names.interface(), "lo".to_owned()];
        let all = letters
            .iter()
            .flat_map(|&letter| interfaces.iter().map(move |interface| (letter, interface)));
        all.map(|(letter, interface)| json!({"containerID": self.names.container(letter), "ifname": interface})).collect()
    }

    /// What the subject knows of its neighbour.
    pub(super) fn known(&self) -> Known {
        let mate = &self.neighbours[0];
        let interface = mate.attachment.call.ifname.clone().unwrap_or_default();
        let own = mate.pod.link(&interface).unwrap_or_default();
        let peer = own["link_index"].to_string();
        let links = self.host.ip_json("link show");
        let other = links
            .as_array()
            .into_iter()
            .flatten()
            .find(|link| link["ifindex"] == own["link_index"]);
        let other = other.cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or("x").to_owned();
        Known {
            interface: self.names.interface(),
            index: own["ifindex"].to_string(),
            peer,
            mac: text(&own["address"]),
            alias: text(&other["ifalias"]),
        }
    }
}

/// What a container looks like from inside.
pub(super) fn inside(pod: &Pod) -> Vec<String> {
    let snapshot = Snapshot::of(pod);
    snapshot
        .lines()
        .filter(|line| !line.starts_with("file "))
        .map(str::to_owned)
        .collect()
}

/// The plugins that make interfaces that can be tried here.
fn kinds(lab: &Lab) -> Vec<&'static str> {
    let has = |kind: Option<&'static str>| {
        kind.is_none_or(|kind| lab.lacks(Need::LinkKind(kind)).is_none())
    };
    let known = KINDS.into_iter().filter(|(_, kind)| has(*kind));
    known.map(|(plugin, _)| plugin).collect()
}

fn prepare(host: &Host, world: &Host) {
    // Nothing that a configuration names is out of the test host's own files.
    host.sh_line("mount -o remount,bind,ro /");
    for place in [host, world] {
        // The kernel makes itself addresses in its own time, which would be taken for something left behind.
        place.set_sysctl("net.ipv6.conf.default.addr_gen_mode", "1");
        place.set_sysctl("net.ipv6.conf.default.accept_dad", "0");
    }
    host.cable("up0", world, "eth0");
    host.cable("up1", world, "eth1");
    for letter in ['a', 'b'] {
        for number in 0..3 {
            let device = device(letter, number);
            host.ip(&format!(
                "link add {device} type veth peer name {device}-end"
            ));
        }
    }
    host.sh_line("mkfifo /run/fifo; ln -s /run/loop /run/loop; mkdir -p /run/cni /run/elsewhere");
}

/// A line for the shell.
pub(super) trait ShellLine {
    fn sh_line(&self, line: &str);
}

impl ShellLine for Host {
    fn sh_line(&self, line: &str) {
        self.run(conformance::Program::new("sh").args(["-c", line]))
            .succeeded();
    }
}
