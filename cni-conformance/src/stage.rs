//! The throw-away host that a check happens on.
//!
//! Namespaces belong to threads: a thread that has made some of its own starts programs inside, and when it ends the kernel takes
//! interfaces, mounts and files away.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::net::if_::if_nameindex;
use nix::sched::{CloneFlags, setns, unshare};

/// The container's namespace, as the host sees it.
pub(crate) const NETNS: &str = "/run/netns/pod";

/// Where the plugins are seen on a stage: their own directory may be one that is covered.
const PLUGINS: &str = "/run/plugins";

/// A host with one container, in the namespaces of the thread that has it.
pub(crate) struct Stage;

impl Stage {
    /// Why this process can't make one: it isn't root, or `/` is no mount point.
    pub(crate) fn problem() -> Option<String> {
        let error = on_stage(Path::new("/"), |_, _| ()).err()?;
        Some(format!("needs namespaces of its own, as root ({error})"))
    }

    /// The interfaces of the host that no bridge is, sorted: a network's bridge stays for its next container.
    pub(crate) fn links(&self) -> Vec<String> {
        let bridges = |name: &String| {
            Path::new("/sys/class/net")
                .join(name)
                .join("bridge")
                .exists()
        };
        let mut links = interfaces();
        links.retain(|name| !bridges(name));
        links
    }

    /// The interfaces of the container, sorted; none if its namespace is gone.
    pub(crate) fn container_links(&self) -> Vec<String> {
        let inside = || {
            let netns = File::open(NETNS).ok()?;
            setns(netns, CloneFlags::CLONE_NEWNET).ok()?;
            Some(interfaces())
        };
        thread::scope(|scope| scope.spawn(inside).join())
            .ok()
            .flatten()
            .unwrap_or_default()
    }

    /// Take the container's namespace away, as a crash does.
    pub(crate) fn lose_container(&self) -> Result<(), String> {
        let gone = umount2(NETNS, MntFlags::MNT_DETACH)
            .map_err(io::Error::from)
            .and_then(|()| fs::remove_file(NETNS));
        gone.map_err(|error| format!("take away {NETNS}: {error}"))
    }

    /// Run a script of a shell, which must succeed. The container's namespace is called `pod` for `ip`.
    pub(crate) fn sh(&self, script: &str) -> Result<(), String> {
        let output = Command::new("sh").args(["-ec", script]).output();
        let output = output.map_err(|error| format!("start sh: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("could not be prepared: {}", said.trim()))
    }
}

/// Do something on a new stage; `work` gets the directory that shows `plugins` there.
pub(crate) fn on_stage<R: Send>(
    plugins: &Path,
    work: impl FnOnce(&Stage, &Path) -> R + Send,
) -> io::Result<R> {
    let inside = || {
        set_up(plugins)?;
        Ok(work(&Stage, Path::new(PLUGINS)))
    };
    let ended = thread::scope(|scope| scope.spawn(inside).join());
    ended.unwrap_or_else(|_| Err(io::Error::other("the check itself failed")))
}

fn set_up(plugins: &Path) -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    // Before its path may be covered. Only what this mount namespace shows can be bound.
    let plugins = File::open(plugins)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    for covered in ["/run", "/var/lib"] {
        let mode = Some("mode=0755");
        mount(
            Some("tmpfs"),
            covered,
            Some("tmpfs"),
            MsFlags::empty(),
            mode,
        )?;
    }
    for directory in ["/run/netns", "/run/lock", PLUGINS] {
        fs::create_dir_all(directory)?;
    }
    // A sysfs shows the network namespace that it was mounted from.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    bind(
        &PathBuf::from(format!("/proc/thread-self/fd/{}", plugins.as_raw_fd())),
        Path::new(PLUGINS),
    )?;
    File::create_new(NETNS)?;
    let container = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        bind(Path::new("/proc/thread-self/ns/net"), Path::new(NETNS))
    };
    thread::scope(|scope| scope.spawn(container).join())
        .unwrap_or_else(|_| Err(io::Error::other("the container's thread failed")))
}

fn bind(what: &Path, at: &Path) -> io::Result<()> {
    let none = None::<&str>;
    Ok(mount(Some(what), at, none, MsFlags::MS_BIND, none)?)
}

/// The names of the interfaces in this thread's network namespace.
fn interfaces() -> Vec<String> {
    let all = if_nameindex();
    let mut names: Vec<String> = all
        .iter()
        .flat_map(|all| all.iter())
        .map(|interface| {
            CString::from(interface.name())
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}
