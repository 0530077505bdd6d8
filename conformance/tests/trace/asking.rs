//! Who is meant, and when nothing can be traced.

use conformance::{Case, Lab, Program, Protocol, case};
use serde_json::json;

use super::{Node, at};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_container_is_found_by_its_id_the_beginning_of_it_and_its_pods_name),
        case!(who_is_not_there_or_not_meant_alone_is_an_error),
        case!(without_privileges_it_is_refused),
        case!(a_person_reads_the_way_in_numbered_steps),
    ]
}

fn a_container_is_found_by_its_id_the_beginning_of_it_and_its_pods_name(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.pod("a");
    let tool = node
        .cnitool()
        .env("CNI_ARGS", "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart");
    tool.add("net", &a);
    let b = node.join("b");
    let _server = b.serve(Protocol::Tcp, b.ips()[0], 8080);
    let to = at(b.ips()[0], 8080);
    let listed = node.run(Program::new(lab.bin().join("trestle")).args([
        "list",
        "--json",
        "--conf-dir",
        conformance::Host::NET_D,
    ]));
    let listed = listed.succeeded().json();
    let all = listed["attachments"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let id = all
        .iter()
        .find(|it| it["pod"] == "shop/cart")
        .expect("the pod")["container"]
        .clone();
    let id = id.as_str().expect("an ID");
    for name in ["shop/cart", "cart", id, &id[..id.len() - 1], &a.netns()] {
        node.trace(&[name, &to]).is("answered", &[]);
    }
}

fn who_is_not_there_or_not_meant_alone_is_an_error(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let _members = (node.join("a"), node.join("b"));
    for (arguments, words) in [
        (["nobody", "10.1.0.3:80"], "no container, and no pod"),
        (["shop/nobody", "10.1.0.3:80"], "no container, and no pod"),
        (["/run/netns/nobody", "10.1.0.3:80"], "No such file"),
        // IDs of cnitool begin alike.
        (["cnitool", "10.1.0.3:80"], "may be any of"),
    ] {
        let output = node.call(&arguments);
        assert_eq!(output.status.code(), Some(3), "{output}");
        assert!(output.stderr.contains(words), "{words}: {output}");
    }
    let output = node.call(&["/run/netns/a", "10.1.0.3", "--tcp"]);
    assert_eq!(output.status.code(), Some(3), "{output}");
    assert!(output.stderr.contains("needs a port"), "{output}");
    let output = node.call(&["/run/netns/a", "web:80"]);
    assert_eq!(output.status.code(), Some(2), "{output}");
}

fn without_privileges_it_is_refused(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let a = node.join("a");
    let trestle = lab.bin().join("trestle");
    let trestle = trestle.to_string_lossy();
    let path = a.netns();
    let drop = Program::new("setpriv").args([
        "--bounding-set=-all",
        "--inh-caps=-all",
        &trestle,
        "trace",
        &path,
        "10.1.0.1",
    ]);
    let output = node.run(drop);
    assert_eq!(output.status.code(), Some(3), "{output}");
    assert!(
        output.stderr.contains("Operation not permitted"),
        "{output}"
    );
    assert!(output.stderr.contains("root"), "{output}");
}

fn a_person_reads_the_way_in_numbered_steps(lab: &Lab) {
    let node = Node::new(lab, json!({}));
    let (a, b) = (node.join("a"), node.join("b"));
    let text = node.call(&[&a.netns(), &at(b.ips()[0], 81)]).text();
    for line in text.lines() {
        assert!(line.chars().count() <= 80, "{line}");
    }
    for words in [
        "TCP connection from",
        "there\n   1  pod ",
        "back\n",
        "refused (step ",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}
