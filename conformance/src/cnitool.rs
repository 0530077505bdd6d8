//! The real `cnitool`, which drives a network configuration list through libcni as a runtime does.

use std::path::PathBuf;

use serde_json::Value;

use crate::exec::{Output, Program};
use crate::host::{Host, Pod};

/// `cnitool` on a host, with its networks in [`Host::NET_D`].
#[derive(Debug, Clone)]
pub struct Cnitool<'h> {
    /// The machine it runs on.
    pub host: &'h Host,
    /// Its file.
    pub program: PathBuf,
    /// The directories for `CNI_PATH`, joined by colons.
    pub path: String,
    /// More of the environment: `CNI_ARGS`, `CAP_ARGS`, `CNI_IFNAME`.
    pub env: Vec<(String, String)>,
}

impl Cnitool<'_> {
    /// The same with one more variable in the environment.
    pub fn env(&self, name: &str, value: &str) -> Self {
        let mut with = self.clone();
        with.env.push((name.to_owned(), value.to_owned()));
        with
    }

    /// Run a verb of it for a network and the path of a network namespace.
    pub fn call(&self, verb: &str, network: &str, netns: &str) -> Output {
        let mut program = Program::new(&self.program)
            .args([verb, network, netns])
            .env("NETCONFPATH", Host::NET_D)
            .env("CNI_PATH", &self.path);
        for (name, value) in &self.env {
            program = program.env(name, value);
        }
        self.host.run(program)
    }

    /// Attach a pod; the result.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn add(&self, network: &str, pod: &Pod) -> Value {
        self.call("add", network, &pod.netns()).succeeded().json()
    }

    /// Check a pod's attachment.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn check(&self, network: &str, pod: &Pod) {
        self.call("check", network, &pod.netns()).succeeded();
    }

    /// Detach a pod.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn del(&self, network: &str, pod: &Pod) {
        self.call("del", network, &pod.netns()).succeeded();
    }
}
