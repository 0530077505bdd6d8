//! The command line and the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use ipnet::IpNet;

/// The agent of a Kubernetes node: plugins, the node's list, routes to the pods of other nodes.
#[derive(Debug, Clone, Parser)]
#[command(name = "trestle-node", version)]
pub(crate) struct Args {
    /// The name of this node's object in the API
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: String,
    /// The kubeconfig to use; KUBECONFIG, ~/.kube/config or the pod's service account unless given
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Where the host's file system is: the plugins' command line runs with this as its root
    #[arg(long, env = "HOST_ROOT", value_name = "DIR", default_value = "/")]
    pub(crate) host_root: PathBuf,
    /// Directory of the plugins, as the host sees it
    #[arg(
        long,
        env = "CNI_BIN_DIR",
        value_name = "DIR",
        default_value = "/opt/cni/bin"
    )]
    pub(crate) bin_dir: PathBuf,
    /// Directory of the network configurations, as the host sees it
    #[arg(
        long,
        env = "CNI_CONF_DIR",
        value_name = "DIR",
        default_value = "/etc/cni/net.d"
    )]
    pub(crate) conf_dir: PathBuf,
    /// Directory in which the runtime's CNI library keeps its cache, as the host sees it
    #[arg(long, value_name = "DIR", default_value = "/var/lib/cni")]
    pub(crate) cache_dir: PathBuf,
    /// The name of the list that is written
    #[arg(long, value_name = "NAME", default_value = "10-trestle.conflist")]
    pub(crate) conf_name: String,
    /// What the list is made from; a bridge with portmap and firewall unless given
    #[arg(long, env = "TEMPLATE", value_name = "FILE")]
    pub(crate) template: Option<PathBuf>,
    /// The prefixes that all pods of the cluster are in, separated by commas
    #[arg(
        long,
        env = "CLUSTER_CIDRS",
        value_name = "CIDRS",
        value_delimiter = ','
    )]
    pub(crate) cluster_cidrs: Vec<IpNet>,
    /// Install the plugins into --bin-dir and keep them current
    #[arg(long, value_name = "on|off", default_value = "on")]
    pub(crate) install: Switch,
    /// Write the list
    #[arg(long, value_name = "on|off", default_value = "on")]
    pub(crate) list: Switch,
    /// Keep routes to the pods of the other nodes; `off` leaves them to a cloud's controller or to BGP, and removes those
    /// that the agent made
    #[arg(long, env = "ROUTES", value_name = "on|off", default_value = "on")]
    pub(crate) routes: Switch,
    /// The number that marks the agent's routes (`protocol` of ip route)
    #[arg(long, value_name = "NUMBER", default_value_t = 116, value_parser = clap::value_parser!(u8).range(20..))]
    pub(crate) route_protocol: u8,
    /// Repair what a flush of the host's rules took, when it happens
    #[arg(long, value_name = "on|off", default_value = "on")]
    pub(crate) repair: Switch,
    /// How often, in seconds, `gc` is called and the plugins are looked at; 0 for only at the start
    #[arg(long, value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) gc_interval: u64,
    /// Call `gc` at all
    #[arg(long, value_name = "on|off", default_value = "on")]
    pub(crate) gc: Switch,
    /// Where /healthz, /readyz and /metrics are served
    #[arg(
        long,
        env = "LISTEN",
        value_name = "ADDRESS:PORT",
        default_value = "127.0.0.1:9474"
    )]
    pub(crate) listen: SocketAddr,
    /// Remove taints with these keys from the node once it is ready, separated by commas
    #[arg(
        long,
        env = "REMOVE_TAINTS",
        value_name = "KEYS",
        value_delimiter = ','
    )]
    pub(crate) remove_taints: Vec<String>,
    /// Set the node's condition NetworkUnavailable to False once it is ready
    #[arg(
        long,
        env = "SET_NETWORK_AVAILABLE",
        value_name = "on|off",
        default_value = "off"
    )]
    pub(crate) set_network_available: Switch,
    /// The binary of the plugins to install; beside this program unless given
    #[arg(long, value_name = "FILE")]
    pub(crate) trestle: Option<PathBuf>,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

impl Switch {
    pub(crate) fn is_on(self) -> bool {
        self == Self::On
    }
}

impl Args {
    /// A path of the host, as this process sees it.
    pub(crate) fn on_host(&self, path: &std::path::Path) -> PathBuf {
        let below = path.strip_prefix("/").unwrap_or(path);
        self.host_root.join(below)
    }

    /// The time between two calls of `gc`; none for only one.
    pub(crate) fn gc_every(&self) -> Option<Duration> {
        (self.gc_interval > 0).then(|| Duration::from_secs(self.gc_interval))
    }
}
