//! Networks and attachments that many tests start from.

use std::net::IpAddr;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use conformance::{
    Call, Host, Lab, Output, Place, Plugin, Pod, Snapshot, bridge, host_local, with,
};
use serde_json::{Value, json};

/// The first container's address in [`plain`].
pub(crate) const POD: [u8; 4] = [10, 1, 0, 2];

/// The bridge's address in [`plain`].
pub(crate) const GATEWAY: [u8; 4] = [10, 1, 0, 1];

/// `net`: a bridge that is the gateway of an IPv4 subnet.
pub(crate) fn plain() -> Value {
    bridge(host_local(&["10.1.0.0/24"]))
}

/// The same with an IPv6 subnet as well.
pub(crate) fn dual() -> Value {
    bridge(host_local(&["10.1.0.0/24", "fd00:1::/64"]))
}

/// A network's configuration list, as cnitool reads it.
pub(crate) fn list(network: &Value) -> String {
    let plugin = with(network.clone(), json!({"cniVersion": null, "name": null}));
    json!({"cniVersion": "1.1.0", "name": "net", "plugins": [plugin]}).to_string()
}

/// The plugins that every test of the protocol is put to.
pub(crate) const PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];

/// An address from its text.
pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The attachment of a new pod called `pod`.
pub(crate) fn attachment(host: &Host) -> Call {
    Call::of(&host.pod("pod"))
}

/// The code of the error that a plugin ended with.
#[track_caller]
pub(crate) fn code(output: &Output) -> u64 {
    output.error()["code"].as_u64().unwrap_or_default()
}

/// The MAC of an interface.
#[track_caller]
pub(crate) fn mac(place: &Place, name: &str) -> String {
    let link = place.link(name).unwrap_or_else(|| panic!("no {name}"));
    link["address"].as_str().unwrap_or_default().to_owned()
}

/// A host with one pod, `pod`, attached to a network.
pub(crate) struct Attached {
    pub(crate) host: Host,
    pub(crate) pod: Pod,
    /// How the host looked before.
    pub(crate) before: Snapshot,
    pub(crate) result: Value,
}

impl Attached {
    #[track_caller]
    pub(crate) fn new(lab: &Lab, network: &Value) -> Self {
        let host = Host::new();
        let pod = host.pod("pod");
        let before = host.observe();
        let result = lab.plugin(&host, "bridge").add(network, &Call::of(&pod));
        Self {
            host,
            pod,
            before,
            result,
        }
    }

    pub(crate) fn plugin(&self, lab: &Lab) -> Plugin<'_> {
        lab.plugin(&self.host, "bridge")
    }

    /// The name of the host's end.
    #[track_caller]
    pub(crate) fn veth(&self) -> String {
        let name = self.result["interfaces"][1]["name"].as_str();
        name.expect("the result names the host's end").to_owned()
    }

    /// The port attributes of the host's end.
    #[track_caller]
    pub(crate) fn port(&self) -> Value {
        self.host
            .bridge_port(&self.veth())
            .expect("the host's end is a port")
    }

    #[track_caller]
    pub(crate) fn assert_nothing_left(&self) {
        self.host.assert_nothing_left(&self.before, &["pod"]);
        assert!(
            self.pod.link("eth0").is_none(),
            "the container's interface is gone"
        );
    }
}

/// Wait for what the kernel does in its own time.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
    panic!("waited for ten seconds: {what}");
}

/// Do something many times, all at the same time.
pub(crate) fn at_once<R: Send>(count: usize, work: impl Fn(usize) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count)
            .map(|index| scope.spawn(move || work(index)))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(value) => value,
                Err(panic) => resume_unwind(panic),
            })
            .collect()
    })
}
