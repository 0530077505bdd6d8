//! One network put to both makers: the life of a container on it, and what traffic does meanwhile.

use std::net::SocketAddr;
use std::rc::Rc;

use conformance::differential::{Side, compare};
use conformance::{Call, Case, EchoServer, Lab, Need, Place, Pod, Protocol};
use serde_json::{Value, json};

use crate::common::ip;

/// A network and what is done with a container on it.
pub(super) struct Scenario {
    name: String,
    /// The plugins of the network in their order.
    pub(super) chain: Vec<Value>,
    /// `CNI_ARGS`.
    pub(super) args: Option<&'static str>,
    /// The differences that must show, and no others.
    pub(super) differences: Vec<&'static str>,
    /// Parts of facts that both sides must have, so that the key is known to have had its effect.
    seen: Vec<&'static str>,
    needs: Vec<Need>,
    prepare: fn(&Side),
    prepare_pod: fn(&Side, &Pod),
    meanwhile: fn(&Scene),
}

/// A side with a container attached.
pub(super) struct Scene<'a> {
    pub(super) side: &'a Side,
    pub(super) pod: Rc<Pod>,
    /// A machine beside the host, which knows the way to the containers.
    pub(super) outside: Pod,
}

impl Scenario {
    /// A container's life on a network whose plugins are these.
    pub(super) fn new(name: impl Into<String>, chain: Vec<Value>) -> Self {
        Self {
            name: name.into(),
            chain,
            args: None,
            differences: Vec::new(),
            seen: Vec::new(),
            needs: vec![Need::GoPlugins],
            prepare: |_| {},
            prepare_pod: |_, _| {},
            meanwhile: |_| {},
        }
    }

    /// It shows these differences as well. With `!` in front, one that it would show by its kind and doesn't.
    pub(super) fn differs(mut self, names: &[&'static str]) -> Self {
        for name in names {
            match name.strip_prefix('!') {
                Some(absent) => self.differences.retain(|known| *known != absent),
                None => self.differences.push(name),
            }
        }
        self
    }

    /// Both sides see this.
    pub(super) fn sees(mut self, facts: &[&'static str]) -> Self {
        self.seen.extend(facts);
        self
    }

    /// Every verb gets these `CNI_ARGS`.
    pub(super) fn args(mut self, args: &'static str) -> Self {
        self.args = Some(args);
        self
    }

    /// It can't do without this.
    pub(super) fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    /// The host is prepared so before.
    pub(super) fn prepared(mut self, prepare: fn(&Side)) -> Self {
        self.prepare = prepare;
        self
    }

    /// The container is prepared so before.
    pub(super) fn prepared_pod(mut self, prepare: fn(&Side, &Pod)) -> Self {
        self.prepare_pod = prepare;
        self
    }

    /// Done while the container is attached.
    pub(super) fn meanwhile(mut self, meanwhile: fn(&Scene)) -> Self {
        self.meanwhile = meanwhile;
        self
    }

    pub(super) fn into_case(mut self) -> Case {
        let needs = std::mem::take(&mut self.needs);
        let name = format!("differential::{}", self.name);
        let case = Case::new(name, move |lab| self.run(lab));
        needs.into_iter().fold(case, Case::needs)
    }

    fn run(&self, lab: &Lab) {
        compare(lab, &self.differences, &self.seen, |side| {
            let outside = outside(side);
            let pod = side.pod("pod");
            (self.prepare)(side);
            (self.prepare_pod)(side, &pod);
            side.start();
            let scene = Scene { side, pod, outside };
            side.life(&self.chain, &self.call(&scene.pod), |_| {
                (self.meanwhile)(&scene);
            });
        });
    }

    fn call(&self, pod: &Pod) -> Call {
        let call = Call::of(pod);
        let call = match self.args {
            Some(args) => call.args(args),
            None => call,
        };
        if self.chain[0]["type"] == "loopback" {
            call.ifname("lo")
        } else {
            call
        }
    }
}

/// A machine beside the host, which has two addresses of each family there.
pub(super) fn outside(side: &Side) -> Pod {
    let outside = side.host.pod("outside");
    side.host.cable("up0", &outside, "eth0");
    for address in ["198.51.100.1/24", "198.51.100.9/24"] {
        side.host.ip(&format!("addr add {address} dev up0"));
    }
    for address in ["2001:db8:5::1/64", "2001:db8:5::9/64"] {
        side.host.ip(&format!("addr add {address} dev up0 nodad"));
    }
    outside.ip("addr add 198.51.100.2/24 dev eth0");
    outside.ip("addr add 2001:db8:5::2/64 dev eth0 nodad");
    outside.ip("route add 10.0.0.0/8 via 198.51.100.1");
    outside.ip("route add fd00::/8 via 2001:db8:5::1");
    outside
}

impl Scene<'_> {
    /// Attach one more container to a network, and forget what that changed.
    pub(super) fn attach(&self, name: &str, chain: &[Value]) -> Rc<Pod> {
        let pod = self.side.pod(name);
        let step = self.side.add(chain, &Call::of(&pod));
        assert!(step.is_some(), "{name} can be attached");
        self.side.start();
        pod
    }

    /// Ask a server and write down which address it saw, or that no answer came.
    pub(super) fn probe(&self, what: &str, from: &Place, protocol: Protocol, to: &str) {
        let to: SocketAddr = to.parse().expect("an address and a port");
        self.side
            .probe(&format!("{what} by {to}"), from, protocol, to);
    }
}

/// Servers of both protocols on port 80 of each of the addresses.
pub(super) fn servers(pod: &Place, addresses: &[&str]) -> Vec<EchoServer> {
    let serve =
        |address: &&str| Protocol::BOTH.map(|protocol| pod.serve(protocol, ip(address), 80));
    addresses.iter().flat_map(serve).collect()
}

/// What gets through between pod, host and outside, and which source address is seen.
pub(super) fn traffic(scene: &Scene) {
    let families = [
        ("10.1.0.1", "10.1.0.2", "198.51.100.2"),
        ("fd00:1::1", "fd00:1::2", "2001:db8:5::2"),
    ];
    let (side, pod) = (scene.side, &*scene.pod);
    let has = pod.addresses("eth0");
    for (gateway, address, far) in families {
        if !has.iter().any(|own| own.split('/').next() == Some(address)) {
            continue;
        }
        let (gateway, address, far) = (ip(gateway), ip(address), ip(far));
        let _there = pod.serve(Protocol::Tcp, address, 80);
        let to = SocketAddr::new(address, 80);
        side.probe("host to pod", &side.host, Protocol::Tcp, to);
        side.note(
            "traffic",
            format!("pod pings gateway {gateway}: {}", pod.pings(gateway)),
        );
        let family = if address.is_ipv4() { "-4" } else { "-6" };
        if pod.ip_json(&format!("{family} route show default")) == json!([]) {
            side.note("traffic", format!("no way out of the pod with {address}"));
            continue;
        }
        side.note(
            "traffic",
            format!(
                "outside pings pod {address}: {}",
                scene.outside.pings(address)
            ),
        );
        let server = scene.outside.serve(Protocol::Udp, far, 80);
        side.probe("pod to outside", pod, Protocol::Udp, server.address);
    }
}
