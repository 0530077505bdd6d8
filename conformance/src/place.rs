//! A pair of namespaces to do things in.
//!
//! Entering is a thread of its own: namespaces belong to threads, a program started there inherits them, and
//! when the thread ends, by return or by panic, nothing is left to restore. A socket stays in the network
//! namespace it was made in, whichever thread uses it later.

use std::fs::{self, File};
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::{panic, thread};

use nix::sched::{CloneFlags, setns, unshare};
use serde_json::Value;

use crate::exec::{Output, Program};

/// A network namespace seen from a mount namespace. Both live as long as this value or a process inside.
#[derive(Debug, Clone)]
pub struct Place {
    pub(crate) mount: Arc<File>,
    pub(crate) net: Arc<File>,
}

impl Place {
    /// Do something inside, in a thread that ends with it. A panic passes through.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let inside = || {
            // A thread that shares its root directory with others may not change its mount namespace.
            unshare(CloneFlags::CLONE_FS).expect("unshare the root directory");
            setns(&*self.mount, CloneFlags::CLONE_NEWNS).expect("enter the mount namespace");
            setns(&*self.net, CloneFlags::CLONE_NEWNET).expect("enter the network namespace");
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(value) => value,
            Err(payload) => panic::resume_unwind(payload),
        })
    }

    /// Run a program inside to its end.
    pub fn run(&self, program: Program) -> Output {
        self.enter(|| program.run())
    }

    /// Run a command line that must succeed (words separated by white space, no quoting); its standard output.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let mut words = line.split_whitespace();
        let program = Program::new(words.next().unwrap_or("true")).args(words);
        self.run(program).succeeded().text()
    }

    /// `ip` with these arguments, succeeding.
    #[track_caller]
    pub fn ip(&self, arguments: &str) {
        self.sh(&format!("ip {arguments}"));
    }

    /// What `ip -j -d` says; null when it says nothing.
    #[track_caller]
    pub fn ip_json(&self, arguments: &str) -> Value {
        let words = arguments.split_whitespace();
        self.run(Program::new("ip").args(["-j", "-d"]).args(words))
            .succeeded()
            .json()
    }

    /// The interface of that name as `ip -j -d link` describes it.
    pub fn link(&self, name: &str) -> Option<Value> {
        let links = self.ip_json("link show");
        links
            .as_array()?
            .iter()
            .find(|link| link["ifname"] == name)
            .cloned()
    }

    /// The port attributes of that interface as `bridge -j -d link` describes them.
    pub fn bridge_port(&self, name: &str) -> Option<Value> {
        let ports = self
            .run(Program::new("bridge").args(["-j", "-d", "link"]))
            .succeeded()
            .json();
        ports
            .as_array()?
            .iter()
            .find(|port| port["ifname"] == name)
            .cloned()
    }

    /// The global addresses on an interface, as `address/prefix length`, sorted.
    pub fn addresses(&self, interface: &str) -> Vec<String> {
        let shown = self.ip_json(&format!("addr show dev {interface}"));
        let infos = shown[0]["addr_info"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let mut found: Vec<String> = infos
            .iter()
            .filter(|info| info["scope"] == "global")
            .map(|info| {
                format!(
                    "{}/{}",
                    info["local"].as_str().unwrap_or("?"),
                    info["prefixlen"]
                )
            })
            .collect();
        found.sort();
        found
    }

    /// The value of a sysctl, dots or slashes between its parts.
    #[track_caller]
    pub fn sysctl(&self, name: &str) -> String {
        let path = sysctl_path(name);
        let value = self.enter(|| fs::read_to_string(&path));
        value
            .unwrap_or_else(|error| panic!("read {path}: {error}"))
            .trim()
            .to_owned()
    }

    /// Set a sysctl.
    #[track_caller]
    pub fn set_sysctl(&self, name: &str, value: &str) {
        let path = sysctl_path(name);
        let done = self.enter(|| fs::write(&path, value));
        done.unwrap_or_else(|error| panic!("write {path}: {error}"));
    }

    /// Write a file as this place sees the file system, its directory made if need be.
    #[track_caller]
    pub fn write(&self, path: &str, content: impl AsRef<[u8]> + Send) {
        let done = self.enter(|| {
            Path::new(path)
                .parent()
                .map_or(Ok(()), fs::create_dir_all)?;
            fs::write(path, content)
        });
        done.unwrap_or_else(|error| panic!("write {path}: {error}"));
    }

    /// Read a file as this place sees the file system; none if it isn't there.
    pub fn read(&self, path: &str) -> Option<String> {
        self.enter(|| fs::read(path))
            .ok()
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The names in a directory as this place sees the file system, sorted; none if it isn't there.
    pub fn list(&self, path: &str) -> Vec<String> {
        let mut names: Vec<String> = self.enter(|| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect()
        });
        names.sort();
        names
    }

    /// Whether an address answers a ping within two seconds.
    pub fn pings(&self, to: IpAddr) -> bool {
        let to = to.to_string();
        self.run(Program::new("ping").args(["-n", "-q", "-c", "1", "-W", "2", &to]))
            .ok()
    }
}

/// An interface's name may hold dots, so the slashed spelling is kept when there is one.
fn sysctl_path(name: &str) -> String {
    let name = if name.contains('/') {
        name.to_owned()
    } else {
        name.replace('.', "/")
    };
    format!("/proc/sys/{name}")
}
