//! Running a program to its end, with everything it wrote.

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// Far longer than anything here takes: a program that is still running then hangs.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// The search path of programs inside a test host, which inherit nothing from the environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A program to run, with an environment that holds only what it is given here.
#[derive(Debug)]
pub struct Program {
    command: Command,
    stdin: Vec<u8>,
    shown: String,
}

impl Program {
    /// The program at `path`, or found on the usual search path by its name.
    pub fn new(path: impl AsRef<OsStr>) -> Self {
        let shown = path.as_ref().to_string_lossy().into_owned();
        let mut command = Command::new(path);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C");
        // Where a program that counts its own lines for `make coverage` writes them.
        if let Some(profile) = std::env::var_os("LLVM_PROFILE_FILE") {
            command.env("LLVM_PROFILE_FILE", profile);
        }
        Self {
            command,
            stdin: Vec::new(),
            shown,
        }
    }

    /// Add arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        for arg in args {
            self.shown.push(' ');
            self.shown.push_str(&arg.as_ref().to_string_lossy());
            self.command.arg(arg);
        }
        self
    }

    /// Set one variable of the environment.
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// What the program reads from its standard input; nothing by default.
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = bytes.into();
        self
    }

    /// Run to the end, in the namespaces of the calling thread.
    ///
    /// # Panics
    /// When the program can't be started, or has not ended after two minutes.
    pub fn run(mut self) -> Output {
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match self.command.spawn() {
            Ok(child) => child,
            Err(error) => panic!("start {}: {error}", self.shown),
        };
        let input = child.stdin.take();
        let stdin = self.stdin;
        // Writing fails when the program ends without having read everything, which is its right.
        thread::spawn(move || input.map(|mut pipe| pipe.write_all(&stdin)));
        let stdout = collect(child.stdout.take());
        let stderr = collect(child.stderr.take());
        let (Ok(stdout), Ok(stderr)) = (
            stdout.recv_timeout(TIME_LIMIT),
            stderr.recv_timeout(TIME_LIMIT),
        ) else {
            give_up(&mut child, &self.shown)
        };
        let status = child.wait().expect("wait for a child");
        Output {
            shown: self.shown,
            status,
            stdout,
            stderr: text(&stderr),
        }
    }
}

fn collect<R: Read + Send + 'static>(pipe: Option<R>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

fn give_up(child: &mut Child, shown: &str) -> ! {
    let _ = child.kill();
    let _ = child.wait();
    panic!("{shown}: not finished after {} s", TIME_LIMIT.as_secs());
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How a program ended and what it wrote.
#[derive(Debug, Clone)]
pub struct Output {
    shown: String,
    /// The status it ended with.
    pub status: ExitStatus,
    /// Standard output, as it came.
    pub stdout: Vec<u8>,
    /// Standard error, as text.
    pub stderr: String,
}

impl Output {
    /// Whether the status was 0.
    pub fn ok(&self) -> bool {
        self.status.success()
    }

    /// Standard output as text.
    pub fn text(&self) -> String {
        text(&self.stdout)
    }

    /// Standard output as JSON; null when there is none.
    ///
    /// # Panics
    /// When it is something else.
    pub fn json(&self) -> Value {
        if self.stdout.iter().all(u8::is_ascii_whitespace) {
            return Value::Null;
        }
        match serde_json::from_slice(&self.stdout) {
            Ok(value) => value,
            Err(error) => panic!("stdout is no JSON ({error}): {self}"),
        }
    }

    /// This output again, if the program succeeded.
    ///
    /// # Panics
    /// With everything the program wrote, if it failed.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        assert!(self.ok(), "should have succeeded: {self}");
        self
    }

    /// The error object of a plugin that failed as the specification says: status 1, and on standard output one
    /// object with a numeric `code` and a text `msg`.
    ///
    /// # Panics
    /// When the plugin succeeded, was killed, or wrote anything else.
    #[track_caller]
    pub fn error(&self) -> Value {
        assert!(!self.ok(), "should have failed: {self}");
        assert_eq!(
            self.status.code(),
            Some(1),
            "status of a failed plugin: {self}"
        );
        let error = self.json();
        assert!(error["code"].is_u64(), "an error has a code: {self}");
        assert!(
            error["msg"].as_str().is_some_and(|msg| !msg.is_empty()),
            "and a msg: {self}"
        );
        error
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (out, err) = (self.text(), &self.stderr);
        write!(
            f,
            "{}: {}\nstdout: {}\nstderr: {}",
            self.shown,
            self.status,
            out.trim(),
            err.trim()
        )
    }
}
