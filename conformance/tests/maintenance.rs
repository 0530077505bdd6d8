//! CHECK, GC and STATUS of a bridge network.

use conformance::{Call, Case, Host, Lab, Need, Subject, bridge, case, host_local, layer2, with};
use serde_json::{Value, json};

use crate::common::{Attached, list, plain};

pub(crate) fn cases() -> Vec<Case> {
    vec![
        case!(check_notices_what_was_changed),
        case!(check_accepts_layer_2).ours(),
        case!(gc_removes_what_is_not_valid).ours(),
        case!(gc_without_attachments_does_nothing).ours(),
        case!(gc_by_cnitool_collects_everything),
        case!(status_is_fine_when_there_is_room),
        case!(status_tells_of_an_exhausted_pool_where_that_is_asked_for).ours(),
        case!(status_by_cnitool).needs(Need::NewCnitool),
    ]
}

/// What someone does to an attachment behind its back.
type Damage = fn(&Attached);

fn check_notices_what_was_changed(lab: &Lab) {
    let routed = with(plain(), json!({"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}));
    let harms: [(&str, Damage); 6] = [
        ("the address went", |it| it.pod.ip("addr flush dev eth0")),
        ("the interface went", |it| it.pod.ip("link del eth0")),
        ("the route went", |it| it.pod.ip("route del default")),
        ("the bridge went", |it| it.host.ip("link del cni0")),
        ("the container's MAC changed", |it| {
            it.pod.ip("link set eth0 down");
            it.pod.ip("link set eth0 address 02:00:00:00:00:99");
            it.pod.ip("link set eth0 up");
            it.pod.ip("route add default via 10.1.0.1");
        }),
        ("the address was given away", |it| {
            it.host.sh("rm /var/lib/cni/networks/net/10.1.0.2");
        }),
    ];
    for (what, harm) in harms {
        let it = Attached::new(lab, &routed);
        let call = Call::of(&it.pod);
        it.plugin(lab).check(&routed, &it.result, &call).succeeded();
        harm(&it);
        let output = it.plugin(lab).check(&routed, &it.result, &call);
        assert!(!output.ok(), "{what}, and CHECK says nothing");
        output.error();
    }
}

fn check_accepts_layer_2(lab: &Lab) {
    let it = Attached::new(lab, &layer2());
    it.plugin(lab)
        .check(&layer2(), &it.result, &Call::of(&it.pod))
        .succeeded();
    it.plugin(lab).del(&layer2(), &Call::of(&it.pod));
    it.assert_nothing_left();
}

/// The configuration of GC, with the attachments that are still valid.
fn valid(names: &[&str]) -> Value {
    let list: Vec<_> = names
        .iter()
        .map(|name| json!({"containerID": name, "ifname": "eth0"}))
        .collect();
    with(
        plain(),
        json!({"cni.dev/valid-attachments": list, "cni.dev/attachments": list}),
    )
}

fn gc_removes_what_is_not_valid(lab: &Lab) {
    let host = Host::new();
    let plugin = lab.plugin(&host, "bridge");
    let before = host.observe();
    let (kept, lost, gone) = (host.pod("kept"), host.pod("lost"), host.pod("gone"));
    let result = plugin.add(&plain(), &Call::of(&kept));
    plugin.add(&plain(), &Call::of(&lost));
    plugin.add(&plain(), &Call::of(&gone));
    gone.vanish();
    plugin
        .call("GC", &valid(&["kept"]), &Call::default())
        .succeeded();
    plugin
        .check(&plain(), &result, &Call::of(&kept))
        .succeeded();
    let now = host.observe();
    for name in ["lost", "gone"] {
        assert!(
            now.mentioning(name).is_empty(),
            "{name} is still known: {:?}",
            now.mentioning(name)
        );
    }
    assert!(
        lost.link("eth0").is_none(),
        "the interface of a collected container is gone"
    );
    plugin.call("GC", &valid(&[]), &Call::default()).succeeded();
    host.assert_nothing_left(&before, &["kept", "lost", "gone"]);
}

fn gc_without_attachments_does_nothing(lab: &Lab) {
    let it = Attached::new(lab, &plain());
    let before = it.host.observe();
    it.plugin(lab)
        .call("GC", &plain(), &Call::default())
        .succeeded();
    assert_eq!(it.host.observe().since(&before), "");
}

fn gc_by_cnitool_collects_everything(lab: &Lab) {
    let host = Host::new();
    host.configure("10-net.conflist", &list(&plain()));
    let cnitool = lab.cnitool(&host);
    let (a, b) = (host.pod("a"), host.pod("b"));
    let before = host.observe();
    cnitool.add("net", &a);
    cnitool.add("net", &b);
    cnitool.call("gc", "net", &a.netns()).succeeded();
    host.assert_nothing_left(&before, &[]);
}

fn status_is_fine_when_there_is_room(lab: &Lab) {
    let host = Host::new();
    for network in [plain(), layer2()] {
        // The Go plugin looks for an IPAM plugin even where there is none.
        if lab.subject == Subject::Go && network == layer2() {
            continue;
        }
        let output = lab
            .plugin(&host, "bridge")
            .call("STATUS", &network, &Call::default());
        assert!(output.succeeded().stdout.is_empty(), "STATUS has no result");
    }
}

fn status_tells_of_an_exhausted_pool_where_that_is_asked_for(lab: &Lab) {
    let when_full = json!({"statusWhenFull": "notReady"});
    let network = bridge(with(host_local(&["10.1.0.0/30"]), when_full));
    let it = Attached::new(lab, &network);
    let error = it
        .plugin(lab)
        .call("STATUS", &network, &Call::default())
        .error();
    assert_eq!(error["code"], 50, "{error}");
    let said = format!("{} {}", error["msg"], error["details"]);
    assert!(
        said.contains("1/1") || said.contains("1 of 1"),
        "used and total: {error}"
    );
    it.plugin(lab).del(&network, &Call::of(&it.pod));
    it.plugin(lab)
        .call("STATUS", &network, &Call::default())
        .succeeded();
}

fn status_by_cnitool(lab: &Lab) {
    let host = Host::new();
    host.configure("10-net.conflist", &list(&plain()));
    let pod = host.pod("pod");
    lab.cnitool(&host)
        .call("status", "net", &pod.netns())
        .succeeded();
}
