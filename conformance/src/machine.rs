//! A small machine to run a container runtime on: a [`Host`] with a PID namespace and all the others too.
//!
//! `e2e/machine.sh` makes it, and says what is private to it. Its first process ends when the pipe to its standard
//! input does, which is when this process ends, however that happens; the kernel then ends everything that runs
//! inside, so no container outlives a test.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::ops::Deref;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};

use crate::exec::{Output, Program};
use crate::host::Host;
use crate::place::Place;
use crate::workspace::workspace;

/// Moves itself into the machine's cgroup, which `nsenter` doesn't, and becomes the program.
const INTO_CGROUP: &str = "echo 0 >/sys/fs/cgroup/init/cgroup.procs && exec \"$@\"";

/// Where a machine keeps temporary files.
const TMPDIR: &str = "/run/e2e/tmp";

/// A host with processes of its own.
#[derive(Debug)]
pub struct Machine {
    /// As seen from inside: with the file systems that `machine.sh` has put in place.
    inside: Place,
    pid: String,
    init: Child,
    system: PathBuf,
    host: Host,
}

/// The host: its network, and files under `/run` and `/var/lib/cni`.
impl Deref for Machine {
    type Target = Host;

    fn deref(&self) -> &Host {
        &self.host
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.init.stdin.take());
        // Takes the cgroup away as well, once all processes have ended.
        let _ = self.init.wait();
    }
}

/// Why no machine can be made here, whatever there is on it.
pub(crate) fn problem(system: &Path) -> Option<String> {
    static PROBLEM: OnceLock<Option<String>> = OnceLock::new();
    PROBLEM
        .get_or_init(|| Machine::try_start(system).err())
        .clone()
}

impl Machine {
    /// Start one with the programs that are unpacked under this directory.
    ///
    /// # Panics
    /// When it doesn't start.
    pub fn start(system: &Path) -> Self {
        Self::try_start(system).unwrap_or_else(|error| panic!("start a machine: {error}"))
    }

    fn try_start(system: &Path) -> Result<Self, String> {
        let host = Host::new();
        let mut init = spawn(&host, system);
        match first_process(&mut init) {
            Ok((pid, inside)) => Ok(Self {
                inside,
                pid,
                init,
                system: system.to_owned(),
                host,
            }),
            Err(error) => {
                drop(init.stdin.take());
                let _ = init.wait();
                Err(format!("no small machine can be made here: {error}"))
            }
        }
    }

    /// The machine as its processes see it, to read and write files there.
    pub fn inside(&self) -> &Place {
        &self.inside
    }

    /// The path of a program that is unpacked for the machine.
    pub fn program(&self, name: &str) -> PathBuf {
        let dirs = ["usr/bin", "usr/sbin"].map(|dir| self.system.join(dir).join(name));
        let found = dirs.iter().find(|file| file.exists());
        found.unwrap_or(&dirs[0]).clone()
    }

    /// The archive of the image `localhost/busybox:e2e`.
    pub fn image(&self) -> String {
        self.system.join("image.tar").to_string_lossy().into_owned()
    }

    /// Run a program of this machine to its end.
    pub fn exec<S: AsRef<str>>(&self, program: &Path, args: &[S], env: &[(&str, &str)]) -> Output {
        let mut call = Program::new("nsenter").args(self.entering());
        call = call.args([program]);
        call = call.args(args.iter().map(AsRef::as_ref));
        for (name, value) in self.environment().iter().chain(env) {
            call = call.env(name, value);
        }
        call.run()
    }

    /// Start a program of this machine that goes on running, its output in a file of the machine and its process
    /// ID, as the machine counts, in `log` with `.pid` added.
    pub fn spawn<S: AsRef<str>>(
        &self,
        program: &Path,
        args: &[S],
        env: &[(&str, &str)],
        log: &str,
    ) -> Child {
        let script = format!("echo $$ >{log}.pid; exec \"$@\" >>{log} 2>&1");
        let mut call = Command::new("nsenter");
        call.args(self.entering())
            .args(["sh", "-c", &script, "sh"])
            .arg(program)
            .args(args.iter().map(AsRef::as_ref))
            .env_clear()
            .envs(self.environment())
            .envs(env.iter().copied())
            .stdin(Stdio::null());
        call.spawn().expect("start nsenter")
    }

    /// End by SIGKILL, as a crash would, what [`Machine::spawn`] started with this log.
    ///
    /// # Panics
    /// When it was not started, or is gone already.
    pub fn kill(&self, mut child: Child, log: &str) {
        let pid = self.inside.read(&format!("{log}.pid")).expect("a PID");
        let kill = format!("kill -9 {}", pid.trim());
        self.exec(Path::new("/bin/sh"), &["-c", &kill], &[])
            .succeeded();
        let _ = child.wait();
    }

    /// Connect to a socket of this machine.
    ///
    /// # Errors
    /// Those of `connect`.
    pub fn connect(&self, socket: &str) -> io::Result<UnixStream> {
        self.inside.enter(|| UnixStream::connect(socket))
    }

    /// The network namespace at a path of this machine, such as a pod's.
    ///
    /// # Panics
    /// When there is none.
    pub fn netns(&self, path: &str) -> Place {
        let net = self.inside.enter(|| File::open(path));
        let net = net.unwrap_or_else(|error| panic!("open {path}: {error}"));
        Place {
            mount: Arc::clone(&self.inside.mount),
            net: Arc::new(net),
        }
    }

    fn entering(&self) -> Vec<String> {
        let namespaces = [
            "--mount", "--net", "--pid", "--ipc", "--uts", "--cgroup", "--",
        ];
        let mut words = vec!["--target".to_owned(), self.pid.clone()];
        words.extend(namespaces.map(str::to_owned));
        words.extend(["sh", "-c", INTO_CGROUP, "sh"].map(str::to_owned));
        words
    }

    fn environment(&self) -> [(&'static str, &'static str); 3] {
        [
            (
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ),
            ("HOME", "/run/e2e"),
            ("TMPDIR", TMPDIR),
        ]
    }
}

/// What `machine.sh` says when all is ready: its first process, whose namespaces are the machine's.
fn first_process(init: &mut Child) -> Result<(String, Place), String> {
    let mut line = String::new();
    if let Some(stdout) = init.stdout.take() {
        let _ = BufReader::new(stdout).read_line(&mut line);
    }
    let pid = line.trim().to_owned();
    if pid.is_empty() || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(pid);
    }
    let open = |kind: &str| {
        let path = format!("/proc/{pid}/ns/{kind}");
        let file = File::open(&path).map_err(|error| format!("open {path}: {error}"));
        file.map(Arc::new)
    };
    let inside = Place {
        mount: open("mnt")?,
        net: open("net")?,
    };
    Ok((pid, inside))
}

fn spawn(host: &Host, system: &Path) -> Child {
    let script = workspace().join("conformance/e2e/machine.sh");
    let mut call = Command::new("unshare");
    call.args(["--mount", "--propagation", "private", "--"])
        .arg(script)
        .arg(system)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    host.enter(|| call.spawn()).expect("start unshare")
}
