//! A machine that firewalld guards, and what its user would type.

use std::path::Path;
use std::process::Child;
use std::sync::Mutex;

use conformance::{Host, Lab, Machine, Pod, Protocol, Snapshot};

use crate::{MACHINE, OUTSIDE, eventually, ip, outside};

/// A bus that root may do everything on.
const BUS: &str = r#"<busconfig>
  <type>system</type>
  <listen>unix:path=/run/dbus/system_bus_socket</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="root"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

const LOG: &str = "/run/e2e/firewalld.log";

/// A machine that firewalld guards, and the network it is on.
pub(crate) struct Guarded {
    pub(crate) machine: Machine,
    pub(crate) outside: Host,
    /// How the machine looked before firewalld came.
    pub(crate) before: Snapshot,
    daemons: Mutex<Vec<Child>>,
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // They end with the machine; this only collects the children.
        for daemon in self.daemons.get_mut().into_iter().flatten() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

impl Guarded {
    pub(crate) fn start(lab: &Lab) -> Self {
        let machine = Machine::start(&lab.firewalld());
        let (outside, before) = outside(&machine);
        for address in MACHINE {
            let net = if address.contains(':') {
                "fd00:1::/64"
            } else {
                "10.0.0.0/8"
            };
            outside.ip(&format!("route add {net} via {address}"));
        }
        machine.write("/run/e2e.bus", BUS);
        machine.sh("mkdir -p /run/dbus");
        let mut guarded = Self {
            machine,
            outside,
            before,
            daemons: Mutex::default(),
        };
        let bus = ["--config-file=/run/e2e.bus", "--nofork", "--nopidfile"];
        guarded.spawn("dbus-daemon", &bus, "/run/e2e/bus.log");
        let socket = "/run/dbus/system_bus_socket";
        let listens = || guarded.machine.connect(socket).is_ok();
        assert!(eventually(listens), "the bus doesn't listen");
        // The socket stays.
        guarded.before = guarded.machine.observe();
        guarded.start_firewalld();
        guarded
    }

    fn spawn(&self, name: &str, args: &[&str], log: &str) {
        let program = Path::new("/usr/bin").join(name);
        let child = self.machine.spawn(&program, args, &[], log);
        self.daemons.lock().expect("lock").push(child);
    }

    pub(crate) fn start_firewalld(&self) {
        let log = "--log-target=console";
        let args = ["/usr/sbin/firewalld", "--nofork", "--nopid", log];
        self.spawn("python3", &args, LOG);
        let runs = || self.try_cmd("--state").is_some();
        let log = || self.machine.inside().read(LOG);
        assert!(eventually(runs), "firewalld doesn't run: {:?}", log());
    }

    /// End firewalld, which takes its rules along.
    pub(crate) fn stop_firewalld(&self) {
        let pid = self.machine.inside().read(&format!("{LOG}.pid"));
        let kill = Path::new("/bin/kill");
        let pid = pid.expect("a PID").trim().to_owned();
        self.machine.exec(kill, &[pid], &[]).succeeded();
        let gone = || self.try_cmd("--state").is_none();
        assert!(eventually(gone), "firewalld goes on");
    }

    /// What firewalld's user would type.
    fn try_cmd(&self, words: &str) -> Option<String> {
        let python = Path::new("/usr/bin/python3");
        let args: Vec<&str> = ["/usr/bin/firewall-cmd"]
            .into_iter()
            .chain(words.split_whitespace())
            .collect();
        let output = self.machine.exec(python, &args, &[]);
        output.ok().then(|| output.text().trim().to_owned())
    }

    #[track_caller]
    pub(crate) fn cmd(&self, words: &str) -> String {
        let said = self.try_cmd(words);
        said.unwrap_or_else(|| panic!("firewall-cmd {words} failed"))
    }

    /// Lines for a shell, one after the other.
    #[track_caller]
    pub(crate) fn shell(&self, lines: &[&str]) {
        let script = format!("PATH=/usr/sbin:/usr/bin:/sbin:/bin; {}", lines.join(" && "));
        let output = self
            .machine
            .exec(Path::new("/bin/sh"), &["-c", script.as_str()], &[]);
        output.succeeded();
    }

    /// The sources of a zone, sorted.
    #[track_caller]
    pub(crate) fn sources(&self, zone: &str) -> Vec<String> {
        let listed = self.cmd(&format!("--zone={zone} --list-sources"));
        let mut sources: Vec<String> = listed.split_whitespace().map(str::to_owned).collect();
        sources.sort();
        sources
    }

    /// Asserts whether a container reaches what is outside, over both families; nothing is reached from there.
    #[track_caller]
    pub(crate) fn assert_open(&self, pod: &Pod, open: bool) {
        for address in OUTSIDE {
            for protocol in Protocol::BOTH {
                let server = self.outside.serve(protocol, ip(address), 7000);
                if open {
                    let seen = pod.ask(protocol, server.address);
                    seen.unwrap_or_else(|error| panic!("{protocol:?} to {address}: {error}"));
                } else {
                    assert!(
                        pod.cannot_reach(protocol, server.address),
                        "{protocol:?} to {address} gets through"
                    );
                }
            }
        }
    }
}
