//! What the tests work with: the subject under test, the tools around it, and what is missing of them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use nix::unistd::Uid;
use tempfile::TempDir;

use crate::cnitool::Cnitool;
use crate::exec::Program;
use crate::host::Host;
use crate::machine;
use crate::plugin::Plugin;
use crate::workspace::workspace;

/// Names under which the binary is linked if it can't install itself.
const PLUGIN_NAMES: [&str; 8] = [
    "bridge",
    "host-local",
    "loopback",
    "static",
    "ptp",
    "portmap",
    "firewall",
    "tuning",
];

/// Whose plugins are tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The binary of this workspace.
    Trestle,
    /// The Go reference plugins.
    Go,
}

/// A release of containerd, from another of Debian's suites each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Containerd {
    /// 1.6, of bookworm.
    V1_6,
    /// 1.7, of trixie.
    V1_7,
    /// 2, of sid.
    V2,
}

impl Containerd {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::V1_6, Self::V1_7, Self::V2];

    /// The directory of the tools that has it.
    fn part(self) -> &'static str {
        match self {
            Self::V1_6 => "runtimes",
            Self::V1_7 => "containerd-1.7",
            Self::V2 => "containerd-2",
        }
    }
}

/// What a test can't do without, beside the subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// `cnitool` with add, check and del.
    Cnitool,
    /// `cnitool` with gc and status as well.
    NewCnitool,
    /// The Go reference plugins of the release we are compared with.
    GoPlugins,
    /// The Go reference plugins of the release users come from.
    OldGoPlugins,
    /// dnsmasq and ISC's server for DHCP.
    DhcpServers,
    /// `strace`, to make system calls fail.
    Strace,
    /// podman, runc and what belongs to them, and the image they run.
    Runtimes,
    /// A release of containerd.
    Containerd(Containerd),
    /// firewalld, and a message bus to reach it by.
    Firewalld,
    /// BIRD, the routing daemon.
    Bird,
    /// kubectl.
    Kubectl,
    /// The agent of a cluster's nodes, `trestle-node`.
    Agent,
    /// A plugin of the subject, which may not have it.
    Plugin(&'static str),
    /// `systemd-analyze`, to have units verified.
    SystemdAnalyze,
    /// `iptables-legacy`, and a kernel that has its tables.
    LegacyIptables,
    /// The kernel's bridge netfilter. Tests load no modules.
    BridgeNetfilter,
    /// A kernel whose bridges tell VLANs apart.
    VlanFiltering,
    /// A kernel whose bridges don't.
    NoVlanFiltering,
    /// A kernel with links of that kind.
    LinkKind(&'static str),
    /// A kernel without.
    NoLinkKind(&'static str),
}

impl Need {
    /// What it is a file of the tools for.
    fn file(self) -> Option<&'static str> {
        match self {
            Self::Cnitool => Some("cnitool-old/cnitool"),
            Self::NewCnitool => Some("cnitool-new/cnitool"),
            Self::GoPlugins => Some("plugins-new/bridge"),
            Self::OldGoPlugins => Some("plugins-old/bridge"),
            Self::DhcpServers => Some("dhcp-servers/usr/sbin/dnsmasq"),
            Self::Kubectl => Some("kubectl/usr/bin/kubectl"),
            Self::Strace => Some("/usr/bin/strace"),
            Self::SystemdAnalyze => Some("/usr/bin/systemd-analyze"),
            Self::BridgeNetfilter => Some("/proc/sys/net/bridge/bridge-nf-call-iptables"),
            Self::LegacyIptables
            | Self::Runtimes
            | Self::Containerd(_)
            | Self::Firewalld
            | Self::Bird
            | Self::Agent
            | Self::Plugin(_) => None,
            Self::VlanFiltering | Self::NoVlanFiltering => None,
            Self::LinkKind(_) | Self::NoLinkKind(_) => None,
        }
    }
}

/// The subject's plugins in a directory of their own, and the tools.
#[derive(Debug)]
pub struct Lab {
    /// Whose plugins are tested.
    pub subject: Subject,
    tools: PathBuf,
    bin: Option<PathBuf>,
    problem: Option<String>,
    _installed: Option<TempDir>,
}

impl Lab {
    /// Look for everything, fetching the tools if they are missing.
    ///
    /// # Panics
    /// When the environment names a subject or a binary that doesn't exist: that is a mistake, not a reason to
    /// skip.
    pub fn open() -> Self {
        let subject = match env::var("TRESTLE_SUBJECT").as_deref() {
            Err(_) | Ok("" | "trestle") => Subject::Trestle,
            Ok("go") => Subject::Go,
            Ok(other) => panic!("TRESTLE_SUBJECT={other}: should be trestle or go"),
        };
        let tools = obtain_tools();
        let mut lab = Self {
            subject,
            tools,
            bin: None,
            problem: None,
            _installed: None,
        };
        lab.problem = lab.missing_from_machine();
        if lab.problem.is_some() {
            return lab;
        }
        match subject {
            Subject::Go => match lab.lacks(Need::GoPlugins) {
                None => lab.bin = Some(lab.tools.join("plugins-new")),
                problem => lab.problem = problem,
            },
            Subject::Trestle => match find_binary() {
                Some(binary) => {
                    let installed = install(&binary);
                    lab.bin = Some(installed.path().to_owned());
                    lab._installed = Some(installed);
                }
                None => lab.problem = Some("no trestle binary: run cargo build first".to_owned()),
            },
        }
        lab
    }

    /// Why no test at all can run here.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Why a test that needs this can't run here.
    pub fn lacks(&self, need: Need) -> Option<String> {
        match need {
            Need::Plugin(name) => self.lacks_plugin(name),
            Need::Runtimes => self
                .lacks_part("runtimes")
                .or_else(|| machine::problem(&self.runtimes())),
            Need::Containerd(release) => self.lacks_part(release.part()),
            Need::Firewalld => self
                .lacks_part("firewalld")
                .or_else(|| machine::problem(&self.firewalld())),
            Need::Bird => self
                .lacks_part("bird")
                .or_else(|| machine::problem(&self.bird())),
            Need::Agent => agent()
                .is_none()
                .then(|| "no trestle-node: cargo build --package trestle-node makes it".to_owned()),
            Need::LegacyIptables => (!has_legacy_iptables())
                .then(|| "this host has no iptables-legacy that works".to_owned()),
            Need::VlanFiltering => (!bridges_tell_vlans_apart())
                .then(|| "this kernel has no VLAN filtering in bridges".to_owned()),
            Need::NoVlanFiltering => bridges_tell_vlans_apart()
                .then(|| "this kernel has VLAN filtering in bridges".to_owned()),
            Need::LinkKind(kind) => {
                (!kernel_has(kind)).then(|| format!("this kernel has no {kind}"))
            }
            Need::NoLinkKind(kind) => kernel_has(kind).then(|| format!("this kernel has {kind}")),
            _ => {
                let file = need.file().filter(|file| !self.tools.join(file).exists());
                let remedy = match need {
                    Need::Strace | Need::SystemdAnalyze => "install it",
                    Need::BridgeNetfilter => "run modprobe br_netfilter",
                    Need::Kubectl => "conformance/e2e/obtain.sh failed",
                    _ => "conformance/tools/obtain.sh failed",
                };
                file.map(|file| format!("no {file}: {remedy}"))
            }
        }
    }

    fn lacks_part(&self, part: &str) -> Option<String> {
        let complete = self.tools.join(part).join("VERSION").exists();
        (!complete).then(|| format!("no {part}: conformance/e2e/obtain.sh failed"))
    }

    fn lacks_plugin(&self, name: &str) -> Option<String> {
        let file = self.bin().join(name);
        let answers = file.exists()
            && Program::new(&file)
                .env("CNI_COMMAND", "VERSION")
                .stdin("{}")
                .run()
                .ok();
        (!answers).then(|| format!("the binary under test has no {name}"))
    }

    fn missing_from_machine(&self) -> Option<String> {
        if !Uid::effective().is_root() {
            return Some("needs root to make network namespaces".to_owned());
        }
        let tools = [
            ("ip", "iproute2"),
            ("bridge", "iproute2"),
            ("nft", "nftables"),
            ("iptables-save", "iptables"),
            ("ping", "iputils-ping"),
        ];
        let absent = tools.iter().find(|(tool, _)| find_in_path(tool).is_none());
        let absent = absent.map(|(tool, package)| format!("no {tool} here: install {package}"));
        absent.or_else(Host::problem)
    }

    /// The directory of the subject's plugins.
    pub fn bin(&self) -> &Path {
        self.bin.as_deref().unwrap_or(Path::new("/nonexistent"))
    }

    /// The directory of the Go plugins of the release we are compared with.
    pub fn go_plugins(&self) -> PathBuf {
        self.tools.join("plugins-new")
    }

    /// The directory of the Go plugins of the release users come from.
    pub fn old_go_plugins(&self) -> PathBuf {
        self.tools.join("plugins-old")
    }

    /// The container runtimes that `e2e/obtain.sh` unpacks, and their image.
    pub fn runtimes(&self) -> PathBuf {
        self.tools.join("runtimes")
    }

    /// The directory of `containerd`, its shim and `ctr` of that release.
    pub fn containerd(&self, release: Containerd) -> PathBuf {
        self.tools.join(release.part()).join("usr/bin")
    }

    /// firewalld and a message bus, which `e2e/obtain.sh` unpacks too.
    pub fn firewalld(&self) -> PathBuf {
        self.tools.join("firewalld")
    }

    /// BIRD, which `e2e/obtain.sh` unpacks too.
    pub fn bird(&self) -> PathBuf {
        self.tools.join("bird")
    }

    /// DHCP servers, which `tools/obtain.sh` unpacks.
    pub fn dhcp_servers(&self) -> PathBuf {
        self.tools.join("dhcp-servers")
    }

    /// kubectl, which `e2e/obtain.sh` unpacks.
    pub fn kubectl(&self) -> PathBuf {
        self.tools.join("kubectl/usr/bin/kubectl")
    }

    /// The agent of a cluster's nodes.
    ///
    /// # Panics
    /// Where there is none; see [`Need::Agent`].
    pub fn agent(&self) -> PathBuf {
        agent().expect("trestle-node was built")
    }

    /// The binary under test.
    ///
    /// # Panics
    /// Where the subject is not ours.
    pub fn binary(&self) -> PathBuf {
        self.bin().join("trestle")
    }

    /// One of the subject's plugins on a host.
    pub fn plugin<'h>(&self, host: &'h Host, name: &str) -> Plugin<'h> {
        self.plugin_in(host, name, self.bin(), &[])
    }

    /// The plugin of that name in `dir`, with more directories for what it delegates to.
    pub fn plugin_in<'h>(
        &self,
        host: &'h Host,
        name: &str,
        dir: &Path,
        more: &[&Path],
    ) -> Plugin<'h> {
        let path: Vec<_> = [dir]
            .iter()
            .chain(more)
            .map(|dir| dir.to_string_lossy())
            .collect();
        Plugin {
            host,
            program: dir.join(name),
            path: path.join(":"),
        }
    }

    /// `cnitool` with the subject's plugins, the release that has gc and status if it is there.
    pub fn cnitool<'h>(&self, host: &'h Host) -> Cnitool<'h> {
        let new = self.tools.join("cnitool-new/cnitool");
        let program = if new.exists() {
            new
        } else {
            self.tools.join("cnitool-old/cnitool")
        };
        let path = self.bin().to_string_lossy().into_owned();
        Cnitool {
            host,
            program,
            path,
            env: Vec::new(),
        }
    }
}

fn bridges_tell_vlans_apart() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let bridge = "link add br0 type bridge vlan_filtering 1";
        let program = Program::new("ip").args(bridge.split(' '));
        Host::new().run(program).ok()
    })
}

/// Whether the kernel makes links of that kind, asked for as `ip` does.
fn kernel_has(kind: &str) -> bool {
    let host = Host::new();
    host.ip("link add below type veth peer name other");
    let line = match kind {
        "vlan" => "link add link below name probe type vlan id 5".to_owned(),
        "vrf" => "link add probe type vrf table 10".to_owned(),
        "dummy" => "link add probe type dummy".to_owned(),
        kind => format!("link add link below name probe type {kind}"),
    };
    host.run(Program::new("ip").args(line.split(' '))).ok()
}

fn has_legacy_iptables() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let program = Program::new("iptables-legacy").args(["-w", "-t", "nat", "-S"]);
        find_in_path("iptables-legacy").is_some() && Host::new().run(program).ok()
    })
}

/// Where the tools are. `TRESTLE_TOOLS_FETCH=no` takes what is there, for who has just tried.
fn obtain_tools() -> PathBuf {
    obtain("conformance/tools/obtain.sh")
}

/// Fetch the container runtimes, unless the environment says that somebody has just tried. To be called before
/// tests that need them are run.
pub fn obtain_runtimes() {
    obtain("conformance/e2e/obtain.sh");
}

fn obtain(script: &str) -> PathBuf {
    let tools = env::var_os("TRESTLE_TOOLS")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let tools = tools.unwrap_or_else(|| workspace().join("target/conformance-tools"));
    if env::var("TRESTLE_TOOLS_FETCH").as_deref() != Ok("no") {
        // What is missing afterwards is the reason of the tests that need it.
        let _ = Command::new(workspace().join(script))
            .env("TRESTLE_TOOLS", &tools)
            .stdin(Stdio::null())
            .status();
    }
    tools
}

fn find_binary() -> Option<PathBuf> {
    if let Some(path) = env::var_os("TRESTLE_BIN").filter(|path| !path.is_empty()) {
        let path = fs::canonicalize(&path);
        return Some(path.expect("TRESTLE_BIN names the binary to test"));
    }
    // Test executables are in target/…/deps, the binaries one level up.
    let executable = env::current_exe().ok()?;
    let binary = executable.parent()?.parent()?.join("trestle");
    binary.exists().then_some(binary)
}

/// The binary under every plugin name in a new directory, by its own `install` if it has one already. Beside the
/// binary, because hard links need one file system, or where `TRESTLE_INSTALL_DIR` says.
fn install(binary: &Path) -> TempDir {
    let elsewhere = env::var_os("TRESTLE_INSTALL_DIR").map(PathBuf::from);
    let beside = binary.parent().unwrap_or(Path::new("/tmp"));
    let parent = elsewhere.as_deref().unwrap_or(beside);
    let dir = TempDir::with_prefix_in("conformance-bin-", parent).expect("make a directory");
    let arguments = [
        "install".as_ref(),
        "--bin-dir".as_ref(),
        dir.path().as_os_str(),
    ];
    let installed = Program::new(binary).args(arguments).run().ok();
    if installed && dir.path().join("bridge").exists() {
        return dir;
    }
    for name in PLUGIN_NAMES {
        let _ = fs::remove_file(dir.path().join(name));
        fs::hard_link(binary, dir.path().join(name)).expect("link the binary");
    }
    dir
}

fn find_in_path(tool: &str) -> Option<PathBuf> {
    let dirs = [
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
        "/usr/local/sbin",
        "/usr/local/bin",
    ];
    dirs.iter()
        .map(|dir| Path::new(dir).join(tool))
        .find(|file| file.exists())
}

/// What `cargo test` has built beside this test, of the same profile.
fn agent() -> Option<PathBuf> {
    let test = env::current_exe().ok()?;
    let built = test.ancestors().nth(2)?.join("trestle-node");
    built.exists().then_some(built)
}
