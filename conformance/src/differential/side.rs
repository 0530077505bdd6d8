//! One maker's plugins on a host of their own, and the facts that are collected there.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;

use serde_json::{Value, json};

use super::facts::{facts, flatten};
use super::neutral::neutral;
use super::{Fact, Implementation};
use crate::exec::Output;
use crate::host::{Host, Pod};
use crate::network::with;
use crate::place::Place;
use crate::plugin::{Call, Plugin, with_prev_result};
use crate::traffic::Protocol;

/// Answers of the kernel that a host here doesn't wait for: duplicate address detection takes a second or two, and
/// with it addresses and routes come later.
const AT_ONCE: [(&str, &str); 2] = [
    ("net/ipv6/conf/default/dad_transmits", "0"),
    ("net/ipv6/conf/default/router_solicitation_delay", "0"),
];

/// One maker's plugins on a host of their own.
pub struct Side {
    /// Whose plugins.
    pub maker: Implementation,
    /// The host.
    pub host: Host,
    bin: PathBuf,
    step: RefCell<String>,
    pods: RefCell<Vec<Rc<Pod>>>,
    seen: RefCell<BTreeMap<String, BTreeSet<String>>>,
    facts: RefCell<BTreeSet<Fact>>,
}

impl Side {
    /// A new host.
    pub fn new(maker: Implementation, bin: PathBuf) -> Self {
        let host = Host::new();
        at_once(&host);
        let seen = BTreeMap::from([("host".to_owned(), facts(&host, true))]);
        Self {
            maker,
            host,
            bin,
            step: RefCell::default(),
            pods: RefCell::default(),
            seen: RefCell::new(seen),
            facts: RefCell::default(),
        }
    }

    pub(super) fn into_facts(self) -> BTreeSet<Fact> {
        self.facts.into_inner()
    }

    /// Say what comes next; facts are told apart by it.
    pub fn step(&self, name: impl Into<String>) {
        *self.step.borrow_mut() = name.into();
    }

    /// A new pod.
    pub fn pod(&self, name: &str) -> Rc<Pod> {
        let pod = Rc::new(self.host.pod(name));
        at_once(&pod);
        self.seen
            .borrow_mut()
            .insert(name.to_owned(), facts(&pod, false));
        self.pods.borrow_mut().push(Rc::clone(&pod));
        pod
    }

    /// Write down a fact.
    pub fn note(&self, place: &str, what: impl AsRef<str>) {
        self.facts.borrow_mut().insert(Fact {
            step: self.step.borrow().clone(),
            place: place.to_owned(),
            what: neutral(what.as_ref()),
        });
    }

    /// Forget what has changed up to now, as a test does that has prepared the host.
    pub fn start(&self) {
        self.look(|_, _| {});
    }

    /// Write down what has changed since the last look.
    pub fn observe(&self) {
        self.look(|place, change| self.note(place, change));
    }

    fn look(&self, mut change: impl FnMut(&str, &str)) {
        let mut seen = self.seen.borrow_mut();
        let pods = self.pods.borrow();
        let places = pods.iter().map(|pod| (pod.name.as_str(), &***pod));
        for (name, place) in [("host", &*self.host)].into_iter().chain(places) {
            let now = facts(place, name == "host");
            let before = seen
                .insert(name.to_owned(), now.clone())
                .unwrap_or_default();
            before
                .difference(&now)
                .for_each(|line| change(name, &format!("- {line}")));
            now.difference(&before)
                .for_each(|line| change(name, &format!("+ {line}")));
        }
    }

    /// One of the side's plugins.
    pub fn plugin(&self, name: &str) -> Plugin<'_> {
        Plugin {
            host: &self.host,
            program: self.bin.join(name),
            path: self.bin.to_string_lossy().into_owned(),
        }
    }

    /// Call a verb of the plugin that a configuration is for, and write down how it ended.
    pub fn call(&self, verb: &str, configuration: &Value, call: &Call) -> Output {
        let plugin = configuration["type"].as_str().unwrap_or("bridge");
        let output = self.plugin(plugin).call(verb, configuration, call);
        let who = call.container.as_deref().unwrap_or("nobody");
        if output.ok() {
            self.note("answer", format!("{plugin} {verb} {who} succeeded"));
            flatten("", &output.json(), &mut |path, value| {
                self.note("answer", format!("{plugin} {verb} {who} {path}={value}"));
            });
        } else {
            let code = output.error()["code"].as_u64().unwrap_or_default();
            self.note(
                "answer",
                format!("{plugin} {verb} {who} failed code={code}"),
            );
        }
        output
    }

    /// ADD by a chain of plugins, as a runtime does it: each gets the result of the one before. The last result, or
    /// none if a plugin failed.
    pub fn add(&self, chain: &[Value], call: &Call) -> Option<Value> {
        let mut result = Value::Null;
        for configuration in chain {
            let output = self.call("ADD", &handed_on(configuration, &result), call);
            if !output.ok() {
                return None;
            }
            result = output.json();
        }
        Some(result)
    }

    /// CHECK by a chain of plugins, with the result of ADD.
    pub fn check(&self, chain: &[Value], result: &Value, call: &Call) {
        for configuration in chain {
            self.call("CHECK", &handed_on(configuration, result), call);
        }
    }

    /// DEL by a chain of plugins, last first, with the result of ADD.
    pub fn del(&self, chain: &[Value], result: &Value, call: &Call) {
        for configuration in chain.iter().rev() {
            self.call("DEL", &handed_on(configuration, result), call);
        }
    }

    /// A whole life: ADD, CHECK, something to do meanwhile, DEL, and DEL again, everything observed.
    pub fn life(&self, chain: &[Value], call: &Call, meanwhile: impl FnOnce(&Self)) {
        self.step("add");
        let result = self.add(chain, call);
        self.observe();
        if let Some(result) = &result {
            self.step("check");
            self.check(chain, result, call);
            meanwhile(self);
        }
        self.step("del");
        self.del(chain, &result.unwrap_or_default(), call);
        self.observe();
        self.step("del again");
        self.del(chain, &Value::Null, call);
    }

    /// GC by a chain of plugins, with this list of attachments that are valid.
    pub fn gc(&self, chain: &[Value], valid: &Value) {
        for configuration in chain {
            let list = json!({"cni.dev/valid-attachments": valid, "cni.dev/attachments": valid});
            self.call("GC", &with(configuration.clone(), list), &Call::default());
        }
    }

    /// STATUS of a chain of plugins.
    pub fn status(&self, chain: &[Value]) {
        for configuration in chain {
            self.call("STATUS", configuration, &Call::default());
        }
    }

    /// Ask a server and write down which address it saw, or that no answer came.
    pub fn probe(&self, what: &str, from: &Place, protocol: Protocol, to: SocketAddr) {
        // Once more, because a busy machine may be late with its neighbour discovery.
        let answer = from.ask(protocol, to).or_else(|_| from.ask(protocol, to));
        let seen = match answer {
            Ok(seen) => format!("seen as {seen}"),
            Err(_) => "no answer".to_owned(),
        };
        self.note("traffic", format!("{what} {protocol:?}: {seen}"));
    }
}

/// A configuration as it reaches a plugin of a chain.
fn handed_on(configuration: &Value, result: &Value) -> Value {
    if result.is_null() {
        configuration.clone()
    } else {
        with_prev_result(configuration, result)
    }
}

/// The configuration of one more plugin in the chain of a network called `net`.
pub fn chained(plugin: &str, more: Value) -> Value {
    with(
        json!({"cniVersion": "1.1.0", "name": "net", "type": plugin}),
        more,
    )
}

fn at_once(place: &Place) {
    for (name, value) in AT_ONCE {
        place.set_sysctl(name, value);
    }
}
