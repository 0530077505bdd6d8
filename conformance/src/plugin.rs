//! Calling one plugin the way a runtime does: the verb and the attachment in the environment, the network
//! configuration on standard input.

use std::path::PathBuf;

use serde_json::Value;

use crate::exec::{Output, Program};
use crate::host::{Host, Pod};

/// A plugin's executable on a host.
#[derive(Debug, Clone)]
pub struct Plugin<'h> {
    /// The machine it runs on.
    pub host: &'h Host,
    /// Its file.
    pub program: PathBuf,
    /// The directories for `CNI_PATH`, joined by colons.
    pub path: String,
}

/// The environment of one call. A variable that is none isn't set at all.
#[derive(Debug, Clone, Default)]
pub struct Call {
    /// `CNI_CONTAINERID`
    pub container: Option<String>,
    /// `CNI_NETNS`
    pub netns: Option<String>,
    /// `CNI_IFNAME`
    pub ifname: Option<String>,
    /// `CNI_ARGS`
    pub args: Option<String>,
}

impl Call {
    /// The attachment of a pod's `eth0`, the container being called like the pod.
    pub fn of(pod: &Pod) -> Self {
        Self::named(&pod.name, Some(&pod.netns()))
    }

    /// The attachment of a container's `eth0`, with or without a network namespace.
    pub fn named(container: &str, netns: Option<&str>) -> Self {
        Self {
            container: Some(container.to_owned()),
            netns: netns.map(str::to_owned),
            ifname: Some("eth0".to_owned()),
            args: None,
        }
    }

    /// The same with another interface name.
    pub fn ifname(mut self, ifname: &str) -> Self {
        self.ifname = Some(ifname.to_owned());
        self
    }

    /// The same with `CNI_ARGS`.
    pub fn args(mut self, args: &str) -> Self {
        self.args = Some(args.to_owned());
        self
    }
}

impl Plugin<'_> {
    /// Call it with a verb and a configuration.
    pub fn call(&self, verb: &str, configuration: &Value, call: &Call) -> Output {
        self.call_raw(verb, configuration.to_string(), call)
    }

    /// Call it with a verb and any bytes on standard input.
    pub fn call_raw(&self, verb: &str, stdin: impl Into<Vec<u8>>, call: &Call) -> Output {
        self.run(Program::new(&self.program), verb, stdin.into(), call)
    }

    /// Call it under `strace` with this fault: what its option `--inject` takes. The status of the plugin is the
    /// status of the output, and `/run/strace` of the host lists the calls that were touched.
    pub fn call_with_fault(
        &self,
        fault: &str,
        verb: &str,
        configuration: &Value,
        call: &Call,
    ) -> Output {
        let program = Program::new("strace").args(["-f", "-qq", "-y", "-o", "/run/strace"]);
        let calls = fault.split(':').next().unwrap_or(fault);
        let program = program.args([format!("--trace={calls}"), format!("--inject={fault}")]);
        let program = program.args([&self.program]);
        self.run(program, verb, configuration.to_string().into_bytes(), call)
    }

    fn run(&self, program: Program, verb: &str, stdin: Vec<u8>, call: &Call) -> Output {
        let mut program = program
            .env("CNI_COMMAND", verb)
            .env("CNI_PATH", &self.path)
            .stdin(stdin);
        let variables = [
            ("CNI_CONTAINERID", &call.container),
            ("CNI_NETNS", &call.netns),
            ("CNI_IFNAME", &call.ifname),
            ("CNI_ARGS", &call.args),
        ];
        for (name, value) in variables {
            if let Some(value) = value {
                program = program.env(name, value);
            }
        }
        self.host.run(program)
    }

    /// ADD that must succeed; its result.
    #[track_caller]
    pub fn add(&self, configuration: &Value, call: &Call) -> Value {
        self.call("ADD", configuration, call).succeeded().json()
    }

    /// DEL that must succeed and say nothing.
    #[track_caller]
    pub fn del(&self, configuration: &Value, call: &Call) {
        let output = self.call("DEL", configuration, call).succeeded();
        assert!(output.json().is_null(), "DEL has no result: {output}");
    }

    /// CHECK with the result of ADD put into the configuration.
    pub fn check(&self, configuration: &Value, result: &Value, call: &Call) -> Output {
        self.call("CHECK", &with_prev_result(configuration, result), call)
    }

    /// ADD that must fail; its error object.
    #[track_caller]
    pub fn add_error(&self, configuration: &Value, call: &Call) -> Value {
        self.call("ADD", configuration, call).error()
    }
}

/// The configuration as a runtime hands it to verbs after ADD.
pub fn with_prev_result(configuration: &Value, result: &Value) -> Value {
    let mut configuration = configuration.clone();
    configuration["prevResult"] = result.clone();
    configuration
}
