//! Calling a plugin as a runtime does.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::answer::Answer;

/// Longer than any plugin takes: what is still running then hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// The search path of plugins, which inherit nothing else of the environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of one call. What is none isn't set at all.
#[derive(Debug, Clone, Default)]
pub(crate) struct Call {
    pub(crate) verb: Option<String>,
    pub(crate) container: Option<String>,
    pub(crate) netns: Option<String>,
    pub(crate) ifname: Option<String>,
}

impl Call {
    /// The variables by their names.
    fn variables(&self) -> impl Iterator<Item = (&'static str, &String)> {
        [
            ("CNI_COMMAND", &self.verb),
            ("CNI_CONTAINERID", &self.container),
            ("CNI_NETNS", &self.netns),
            ("CNI_IFNAME", &self.ifname),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.as_ref()?)))
    }

    /// Run the plugin to its end, in the namespaces of this thread.
    pub(crate) fn run(&self, program: &Path, path: &Path, stdin: &[u8]) -> Result<Answer, String> {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", PATH)
            .env("LC_ALL", "C")
            .env("CNI_PATH", path)
            .envs(self.variables())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("start {}: {error}", program.display()))?;
        let (input, stdin) = (child.stdin.take(), stdin.to_vec());
        // It may end without having read everything.
        thread::spawn(move || input.map(|mut pipe| pipe.write_all(&stdin)));
        let (stdout, stderr) = (collect(child.stdout.take()), collect(child.stderr.take()));
        let (Ok(stdout), Ok(stderr)) =
            (stdout.recv_timeout(PATIENCE), stderr.recv_timeout(PATIENCE))
        else {
            return Err(give_up(&mut child));
        };
        let status = child
            .wait()
            .map_err(|error| format!("wait for it: {error}"))?;
        Ok(Answer {
            status,
            stdout,
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
        })
    }
}

fn collect<R: Read + Send + 'static>(pipe: Option<R>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            let _ = pipe.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

fn give_up(child: &mut Child) -> String {
    let _ = child.kill();
    let _ = child.wait();
    format!(
        "not finished, or its output not closed, after {} s",
        PATIENCE.as_secs()
    )
}
