//! Throw-away hosts and the pods on them.
//!
//! A host is a network namespace and a mount namespace of its own, where `/run` and `/var/lib/cni` are empty
//! `tmpfs`es and `/sys` shows its interfaces; a pod is a network namespace bound under the host's `/run/netns`, as
//! a runtime does it. They are held by file descriptors alone, so however a test ends the kernel takes
//! interfaces, rules, mounts and files away with the last of them.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Deref;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::{panic, thread};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::place::Place;

/// A machine: what happens on it stays on it.
#[derive(Debug)]
pub struct Host {
    place: Place,
}

impl Deref for Host {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Host {
    /// Where network configurations go in every host.
    pub const NET_D: &'static str = "/run/net.d";

    /// A machine with nothing but the loopback interface, which is up.
    ///
    /// # Panics
    /// When the namespaces can't be made.
    pub fn new() -> Self {
        let (mount, net) = Self::make().expect("make the namespaces of a host");
        let host = Self {
            place: Place {
                mount: Arc::new(mount),
                net: Arc::new(net),
            },
        };
        host.ip("link set lo up");
        host
    }

    /// Why no host can be made on this machine: no privileges, or `/` is no mount point, as in a chroot.
    pub fn problem() -> Option<String> {
        let error = Self::make().err()?;
        Some(format!("can't make namespaces here ({error})"))
    }

    fn make() -> io::Result<(File, File)> {
        let made = thread::scope(|scope| scope.spawn(make_host).join());
        made.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }

    /// Make a pod: a network namespace at `/run/netns/NAME`.
    pub fn pod(&self, name: &str) -> Pod {
        self.pod_of(name, || {
            unshare(CloneFlags::CLONE_NEWNET).expect("make the network namespace of a pod");
            PathBuf::from("/proc/thread-self/ns/net")
        })
    }

    /// The same in a user namespace of its own, whose root owns the network namespace.
    pub fn pod_with_own_users(&self, name: &str) -> Pod {
        let script = ["sh", "-c", "echo; read _"];
        let mut maker = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net"])
            .args(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start unshare");
        let mut ready = [0];
        let mut stdout = maker.stdout.take().expect("a pipe");
        stdout
            .read_exact(&mut ready)
            .expect("make a user namespace");
        let pod = self.pod_of(name, || {
            PathBuf::from(format!("/proc/{}/ns/net", maker.id()))
        });
        drop(maker.stdin.take());
        let _ = maker.wait();
        pod
    }

    /// A pod with the namespace that `make`, called on this host, gives the path of.
    fn pod_of(&self, name: &str, make: impl FnOnce() -> PathBuf + Send) -> Pod {
        let path = PathBuf::from(format!("/run/netns/{name}"));
        let net = self.enter(|| {
            File::create_new(&path).expect("make the mount point of a pod");
            bind(&make(), &path).expect("bind a pod's namespace");
            File::open(&path).expect("open a pod's namespace")
        });
        let place = Place {
            mount: Arc::clone(&self.mount),
            net: Arc::new(net),
        };
        Pod {
            place,
            name: name.to_owned(),
            path,
        }
    }

    /// Connect two places by a cable (a veth pair) whose ends are up and have these names.
    pub fn cable(&self, end: &str, other: &Place, other_end: &str) {
        let plug = Path::new("/run/netns/.cable");
        self.enter(|| {
            File::create(plug).expect("make a mount point");
            let there = format!("/proc/self/fd/{}", other.net.as_raw_fd());
            bind(Path::new(&there), plug).expect("bind the other end's namespace");
        });
        self.ip(&format!(
            "link add {end} type veth peer name {other_end} netns .cable"
        ));
        self.enter(|| release(plug))
            .expect("release the other end's namespace");
        self.ip(&format!("link set {end} up"));
        other.ip(&format!("link set {other_end} up"));
    }

    /// Put a network configuration where `cnitool` of this host looks for it.
    pub fn configure(&self, file: &str, configuration: &str) {
        self.write(&format!("{}/{file}", Self::NET_D), configuration);
    }

    /// Make an executable script at a path of this host.
    pub fn script(&self, path: &str, text: &str) {
        self.write(path, text);
        self.sh(&format!("chmod 0755 {path}"));
    }
}

/// A container's network namespace on a [`Host`].
#[derive(Debug)]
pub struct Pod {
    place: Place,
    /// What it is called.
    pub name: String,
    /// The path for `CNI_NETNS`, as the host sees it.
    pub path: PathBuf,
}

impl Deref for Pod {
    type Target = Place;

    fn deref(&self) -> &Place {
        &self.place
    }
}

impl Pod {
    /// The path for `CNI_NETNS` as text.
    pub fn netns(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Take the namespace away, as a runtime or a crash does: the path is gone, and with the last reference the
    /// kernel destroys the namespace and its interfaces, a little later.
    pub fn vanish(self) -> String {
        let path = self.netns();
        self.place
            .enter(|| release(&self.path))
            .expect("release a pod's namespace");
        path
    }
}

fn make_host() -> io::Result<(File, File)> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    cover("/var/lib", "cni")?;
    testbed::detach_below("/run")?;
    tmpfs(Path::new("/run"))?;
    for dir in ["/run/netns", "/run/lock", Host::NET_D] {
        fs::create_dir_all(dir)?;
    }
    // A sysfs shows the network namespace it was mounted from.
    mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), none)?;
    Ok((
        File::open("/proc/thread-self/ns/mnt")?,
        File::open("/proc/thread-self/ns/net")?,
    ))
}

/// Put an empty `tmpfs` at `parent/child`. When that doesn't exist, the parent is covered and everything else in
/// it bound back, because making it would change the machine.
fn cover(parent: &str, child: &str) -> io::Result<()> {
    let path = Path::new(parent).join(child);
    if path.is_dir() {
        return tmpfs(&path);
    }
    let original = File::open(parent)?;
    let original = PathBuf::from(format!("/proc/thread-self/fd/{}", original.as_raw_fd()));
    let entries: Vec<_> = fs::read_dir(&original)?.collect::<Result<_, _>>()?;
    tmpfs(Path::new(parent))?;
    for entry in entries.iter().filter(|entry| entry.path().is_dir()) {
        let place = Path::new(parent).join(entry.file_name());
        fs::create_dir(&place)?;
        bind(&original.join(entry.file_name()), &place)?;
    }
    fs::create_dir(&path)
}

fn tmpfs(at: &Path) -> io::Result<()> {
    Ok(mount(
        Some("tmpfs"),
        at,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0755"),
    )?)
}

fn bind(what: &Path, at: &Path) -> io::Result<()> {
    Ok(mount(
        Some(what),
        at,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )?)
}

fn release(path: &Path) -> io::Result<()> {
    umount2(path, MntFlags::MNT_DETACH)?;
    fs::remove_file(path)
}
