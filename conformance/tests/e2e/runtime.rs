//! A release of containerd: how it is configured, and what networks it takes.

use conformance::{Case, Containerd, Lab, Need, workspace};
use serde_json::{Value, json};

use crate::image::IMAGE;
use crate::node::Node;
use crate::with_plugins;

/// Where containerd listens.
pub(crate) const SOCKET: &str = "/run/e2e/containerd.sock";

/// Where it finds network configuration lists.
pub(crate) const NET_D: &str = "/run/e2e/net.d";

/// The template that containerd makes a list of when there is none and a kubelet names the pod subnets.
pub(crate) const TEMPLATE: &str = "/run/e2e/list.tmpl";

/// A network of these plugins, the same for every release: containerd 1 reads `cniVersion`, which it supports up to
/// 1.0.0, and containerd 2 takes the newest of `cniVersions`, which has STATUS.
pub(crate) fn network(plugins: &[Value]) -> Value {
    json!({
        "cniVersion": "1.0.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "net",
        "plugins": plugins
    })
}

/// A release of containerd that is to run pods with the plugins under test.
pub(crate) struct Runtime<'l> {
    pub(crate) lab: &'l Lab,
    pub(crate) release: Containerd,
}

impl Runtime<'_> {
    /// A node with a network of these plugins.
    pub(crate) fn start(&self, plugins: &[Value]) -> Node {
        Node::start(self, &network(plugins))
    }

    /// The configuration file. `restrict_oom_score_adj` lets containerd work where this process may not raise a
    /// score, `runc.sh` where it has no cgroup controllers; neither has to do with networks. A second list in the directory
    /// is a second network of every pod.
    pub(crate) fn configuration(&self) -> String {
        let bin = self.lab.bin().display();
        let runc = workspace().join("conformance/e2e/runc.sh");
        let runc = runc.display();
        // Version 3 gives images and pods a plugin each, and knows more than one directory of network plugins.
        let (version, head, cri, bin_dir) = match self.release {
            Containerd::V1_6 | Containerd::V1_7 => (
                2,
                format!(
                    r#"[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{IMAGE}""#
                ),
                "io.containerd.grpc.v1.cri",
                format!(r#"bin_dir = "{bin}""#),
            ),
            Containerd::V2 => (
                3,
                format!(
                    r#"[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]"#
                ),
                "io.containerd.cri.v1.runtime",
                format!(r#"bin_dirs = ["{bin}"]"#),
            ),
        };
        format!(
            r#"version = {version}
root = "/run/e2e/root"
state = "/run/containerd/state"
temp = "/run/e2e/tmp"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.nri.v1.nri"]
{head}
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."{cri}".cni]
{bin_dir}
conf_dir = "{NET_D}"
conf_template = "{TEMPLATE}"
max_conf_num = 2
[plugins."{cri}".containerd]
default_runtime_name = "runc"
[plugins."{cri}".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."{cri}".containerd.runtimes.runc.options]
SystemdCgroup = false
BinaryName = "{runc}"
[grpc]
address = "{SOCKET}"
"#
        )
    }
}

/// What is shown with a release.
#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) run: fn(&Runtime),
    /// The plugins it takes beside those of every bridge network.
    pub(crate) plugins: &'static [&'static str],
}

/// A [`Scenario`] named like the function that shows it.
macro_rules! scenario {
    ($run:ident $(, $plugin:literal)*) => {
        $crate::runtime::Scenario { name: stringify!($run), run: $run, plugins: &[$($plugin),*] }
    };
}
pub(crate) use scenario;

impl Scenario {
    /// The test that shows it with this release.
    pub(crate) fn with(self, release: Containerd) -> Case {
        let module = match release {
            Containerd::V1_6 => "containerd_1_6",
            Containerd::V1_7 => "containerd_1_7",
            Containerd::V2 => "containerd_2",
        };
        let test = move |lab: &Lab| (self.run)(&Runtime { lab, release });
        let case = Case::new(format!("{module}::{}", self.name), test);
        let case = case.needs(Need::Containerd(release));
        let case = with_plugins(case, &["bridge", "host-local", "loopback"]);
        with_plugins(case, self.plugins)
    }
}
