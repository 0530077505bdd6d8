//! DHCP servers on machines outside, and the daemon that holds leases.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use tempfile::NamedTempFile;

use crate::host::Host;
use crate::lab::Lab;

/// A program that runs on a host until this value is dropped. What it writes is a log there.
#[derive(Debug)]
pub struct Background<'h> {
    _host: &'h Host,
    child: Child,
    log: NamedTempFile,
}

impl Drop for Background<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<'h> Background<'h> {
    /// Start it, and wait until its log says that it is ready.
    ///
    /// # Panics
    /// When it can't be started, or ends.
    #[track_caller]
    fn start(host: &'h Host, mut command: Command, ready: &str) -> Self {
        let log = NamedTempFile::new().expect("make a log");
        let child = host.enter(|| {
            let out = log.as_file().try_clone().expect("open the log twice");
            let err = out.try_clone().expect("and once more");
            command.stdin(Stdio::null()).stdout(out).stderr(err);
            command.spawn().expect("start a program")
        });
        let mut background = Self {
            _host: host,
            child,
            log,
        };
        if !ready.is_empty() {
            background.wait_for(ready, 1);
        }
        background
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap_or_default()
    }

    /// How many lines of the log have that text.
    pub fn count(&self, text: &str) -> usize {
        self.log()
            .lines()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Wait until so many lines of the log have that text.
    ///
    /// # Panics
    /// When that takes longer than anything does, or the program has ended.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, lines: usize) {
        for _ in 0..1500 {
            if self.count(text) >= lines {
                return;
            }
            let ended = self.child.try_wait().ok().flatten();
            assert!(ended.is_none(), "it ended ({ended:?}):\n{}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
        panic!(
            "{lines} lines with {text:?} were waited for:\n{}",
            self.log()
        );
    }

    /// Kill it, as nobody expects.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Have it end, and wait for that; its status.
    pub fn terminate(mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        self.child.wait().ok().and_then(|status| status.code())
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Lab {
    /// dnsmasq on an interface of a machine, with a pool and more options.
    #[track_caller]
    pub fn dnsmasq<'h>(
        &self,
        machine: &'h Host,
        interface: &str,
        pool: &str,
        more: &[&str],
    ) -> Background<'h> {
        let root = self.dhcp_servers();
        let mut command = Command::new(root.join("usr/sbin/dnsmasq"));
        command
            .env("LD_LIBRARY_PATH", libraries(&root))
            .args(["-k", "-C", "/dev/null", "-p", "0", "-z", "--no-ping"])
            .args(["--user=root", "--log-dhcp", "--log-facility=-"])
            .args(["-l", "/run/dnsmasq.leases", "-i", interface, "-F", pool])
            .args(more);
        Background::start(machine, command, "sockets bound exclusively to interface")
    }

    /// ISC's server on an interface of a machine, with the statements of its configuration.
    #[track_caller]
    pub fn dhcpd<'h>(&self, machine: &'h Host, interface: &str, conf: &str) -> Background<'h> {
        let root = self.dhcp_servers();
        machine.write("/run/dhcpd.conf", conf);
        machine.sh("touch /run/dhcpd.leases");
        let mut command = Command::new(root.join("usr/sbin/dhcpd"));
        command
            .env("LD_LIBRARY_PATH", libraries(&root))
            .args(["-f", "-d", "-cf", "/run/dhcpd.conf"])
            .args([
                "-lf",
                "/run/dhcpd.leases",
                "-pf",
                "/run/dhcpd.pid",
                interface,
            ]);
        Background::start(machine, command, "Sending on   Socket/fallback")
    }

    /// `dhcp daemon` of the plugins in `dir`, with more arguments.
    #[track_caller]
    pub fn dhcp_daemon<'h>(&self, host: &'h Host, dir: &Path, more: &[&str]) -> Background<'h> {
        let mut command = Command::new(dir.join("dhcp"));
        command.env_clear().arg("daemon").args(more);
        let ours = dir == self.bin();
        let daemon = Background::start(host, command, if ours { "listening at" } else { "" });
        // That of the Go plugins says nothing.
        for _ in 0..500 {
            if host
                .read("/proc/net/unix")
                .is_some_and(|text| text.contains("/run/cni/dhcp.sock"))
            {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        daemon
    }
}

fn libraries(root: &Path) -> std::path::PathBuf {
    let tuple = format!("{}-linux-gnu", std::env::consts::ARCH);
    root.join("usr/lib").join(tuple)
}
