//! Network namespaces for tests: each is held by a thread that does nothing but run closures in it.

use std::process::Command;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use nix::sched::{CloneFlags, unshare};

type Job = Box<dyn FnOnce() + Send>;

/// A host of a test's own: a thread in a network namespace that vanishes with it.
pub struct Node {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    tid: i32,
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// A new namespace whose loopback interface is up.
    ///
    /// # Panics
    /// When it can't be made, as all of these do when something can't be done.
    pub fn new() -> Self {
        let (jobs, queue) = channel::<Job>();
        let (ready, started) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("unshare the network namespace");
            ready.send(nix::unistd::gettid().as_raw()).expect("success");
            queue.into_iter().for_each(|job| job());
        });
        let tid = started.recv().expect("the namespace was made");
        let node = Self {
            jobs: Some(jobs),
            thread: Some(thread),
            tid,
        };
        node.sh("ip link set lo up");
        node
    }

    /// Runs `work` in the namespace and gives its result; a panic in there is one here.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (reply, result) = channel();
        let job = Box::new(move || {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let _ = reply.send(caught);
        });
        self.jobs
            .as_ref()
            .expect("success")
            .send(job)
            .expect("the thread lives");
        match result.recv().expect("the thread answers") {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs a shell script in the namespace, gives its output, and panics when it fails.
    pub fn sh(&self, script: &str) -> String {
        let text = script.to_owned();
        let output = self.run(move || {
            Command::new("sh")
                .args(["-ec", &text])
                .output()
                .expect("success")
        });
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{script}: {errors}");
        String::from_utf8(output.stdout).expect("success")
    }

    /// What `ip link … netns` takes to mean this namespace.
    pub fn netns(&self) -> i32 {
        self.tid
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
