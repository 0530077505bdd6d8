//! What lint says of lists.

use super::*;

fn told(text: &str) -> Vec<(&'static str, Place, String)> {
    let flaws = flaws(text).into_iter();
    flaws
        .map(|it| (it.id, it.place, format!("{}; {}", it.problem, it.remedy)))
        .collect()
}

#[test]
fn the_lists_that_come_with_it_have_no_flaw() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../cni-conf/net.d");
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|it| it != "md") {
            assert_eq!(file(&path).flaws.unwrap(), [], "{}", path.display());
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let list = |plugins: &str| {
        format!("{{\"cniVersion\": \"1.0.0\", \"name\": \"n\",\n\"plugins\": [\n{plugins}\n]}}")
    };
    for (text, id, place, says) in [
        (
            "{\n\"name\": }".to_owned(),
            "list-invalid",
            (2, 9),
            "no JSON",
        ),
        ("[]".to_owned(), "list-invalid", (1, 1), "object"),
        (
            "{\"name\": \"../x\", \"plugins\": []}".to_owned(),
            "list-invalid",
            (1, 2),
            "../x",
        ),
        (
            "{\"name\": \"n\",\n \"cniVersion\": \"9.0.0\", \"plugins\": []}".to_owned(),
            "version-unsupported",
            (2, 2),
            "1.1.0",
        ),
        (
            list("{\"type\": \"../sh\"}"),
            "list-invalid",
            (3, 2),
            "../sh",
        ),
        (list("{}"), "list-invalid", (3, 1), "type"),
        (
            list("{\"type\": \"bridge\", \"isGatway\": true}"),
            "key-unknown",
            (3, 20),
            "\"isGateway\"?",
        ),
        (
            list("{\"type\": \"bridge\", \"mtu\": \"big\"}"),
            "list-invalid",
            (3, 20),
            "mtu",
        ),
        (
            list(
                "{\"type\": \"bridge\",\n\"ipam\": {\"type\": \"host-local\", \"subnet\": \"10.1.0.0/24\", \"dataDri\": \"/x\"}}",
            ),
            "key-unknown",
            (4, 57),
            "\"dataDir\"?",
        ),
        (
            list(
                "{\"type\": \"bridge\", \"ipam\": {\"type\": \"host-local\",\n\"ranges\": [[{\"subnet\": \"10.1.0.1/24\"}]]}}",
            ),
            "list-invalid",
            (4, 14),
            "10.1.0.1/24",
        ),
        (
            list("{\"type\": \"bridge\"}, {\"type\": \"portmap\"}"),
            "capability-missing",
            (3, 22),
            "portMappings",
        ),
        (
            list("{\"type\": \"firewall\"}"),
            "list-invalid",
            (3, 2),
            "first",
        ),
    ] {
        let told = told(&text);
        let [(told_id, told_place, words)] = &told[..] else {
            panic!("{text}: {told:#?}")
        };
        assert_eq!((*told_id, *told_place), (id, place), "{text}: {words}");
        assert!(words.contains(says), "{text}: {words}");
    }
}

#[test]
fn what_others_read_and_what_nobody_is_to_read_is_no_flaw() {
    for plugin in [
        r#"{"type": "calico", "anything": {"goes": 1}}"#,
        r#"{"type": "bridge", "ISGATEWAY": true, "_comment": "x", "//": "y"}"#,
        r#"{"type": "bridge", "args": {"cni": {"labels": []}}, "runtimeConfig": {"x": 1}}"#,
        r#"{"type": "bridge", "ipam": {"type": "whereabouts", "range": "10.0.0.0/8"}}"#,
        r#"{"type": "bridge", "capabilities": {"ipRanges": true}, "ipam": {"type": "host-local"}}"#,
    ] {
        let list = format!(r#"{{"cniVersion": "1.0.0", "name": "n", "plugins": [{plugin}]}}"#);
        assert_eq!(told(&list), [], "{plugin}");
    }
}

#[test]
fn the_nearest_key_is_one_that_may_be_meant() {
    let known = ["isGateway", "ipMasq", "mtu"];
    assert_eq!(nearest("isgatway", &known), Some("isGateway"));
    assert_eq!(nearest("ipmask", &known), Some("ipMasq"));
    assert_eq!(nearest("completelyDifferent", &known), None);
    assert_eq!(distance("", "abc"), 3);
    assert_eq!(distance("kitten", "sitting"), 3);
}
