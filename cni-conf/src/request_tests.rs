//! Tests of [`super`].

use serde_json::json;

use super::*;

const FULL: [(&str, &str); 5] = [
    ("CNI_CONTAINERID", "c1"),
    ("CNI_NETNS", "/run/netns/a"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/opt/cni/bin:/usr/lib/cni"),
    (
        "CNI_ARGS",
        "K8S_POD_NAME=a=b;IP=10.0.0.1;IgnoreUnknown=1;MAC=",
    ),
];

fn call(verb: &str, without: &[&str], conf: Value) -> Result<(Request, Call), Error> {
    let env = FULL
        .into_iter()
        .filter(|(name, _)| !without.contains(name))
        .collect();
    let (conf, version) = parse_config(conf.to_string().as_bytes())?;
    parse(verb, &env, conf, version?)
}

fn conf() -> Value {
    json!({"cniVersion": "1.1.0", "name": "net", "type": "bridge"})
}

#[test]
fn add_reads_environment_and_configuration() {
    let (request, call) = call("ADD", &[], conf()).unwrap();
    let Call::Add(attachment) = call else {
        panic!("{call:?}")
    };
    assert_eq!(
        request.cni_path,
        [Path::new("/opt/cni/bin"), Path::new("/usr/lib/cni")]
    );
    assert_eq!(attachment.netns.as_deref(), Some(Path::new("/run/netns/a")));
    assert_eq!(attachment.args.get("IP"), Some("10.0.0.1"));
    assert_eq!(attachment.args.get("K8S_POD_NAME"), Some("a=b"));
    assert_eq!(attachment.args.get("MAC"), None);
    assert!(request.prev_result.is_none());
}

#[test]
fn missing_variables_are_all_named() {
    let error = call("ADD", &["CNI_NETNS", "CNI_IFNAME"], conf()).unwrap_err();
    assert_eq!(error.code, Code::InvalidEnvironment);
    assert!(
        error.msg.ends_with("CNI_NETNS, CNI_IFNAME"),
        "{}",
        error.msg
    );
    assert!(call("DEL", &["CNI_NETNS", "CNI_ARGS"], conf()).is_ok());
    assert!(
        call(
            "STATUS",
            &["CNI_NETNS", "CNI_CONTAINERID", "CNI_IFNAME"],
            conf()
        )
        .is_ok()
    );
}

#[test]
fn invalid_variables_are_named_with_their_value() {
    for (name, value) in [
        ("CNI_CONTAINERID", "../x"),
        ("CNI_IFNAME", "a/b"),
        ("CNI_ARGS", "novalue"),
    ] {
        let mut env: BTreeMap<_, _> = FULL.into_iter().collect();
        env.insert(name, value);
        let env = env.into_iter().collect();
        let error = parse("ADD", &env, conf(), SpecVersion::V1_1_0).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        assert!(
            error.msg.contains(name) && error.msg.contains(value),
            "{}",
            error.msg
        );
    }
}

/// The kernel takes `e%d` for a pattern; what an earlier version made of it must be removable.
#[test]
fn an_interface_name_with_a_percent_sign_is_refused_but_for_removal() {
    let mut env: BTreeMap<_, _> = FULL.into_iter().collect();
    env.insert("CNI_IFNAME", "e%d");
    let env = env.into_iter().collect();
    for verb in ["ADD", "CHECK"] {
        let error = parse(verb, &env, conf(), SpecVersion::V1_1_0).unwrap_err();
        assert_eq!(error.code, Code::InvalidEnvironment);
        assert!(
            error.msg.contains("CNI_IFNAME: interface name \"e%d\""),
            "{}",
            error.msg
        );
    }
    parse("DEL", &env, conf(), SpecVersion::V1_1_0).unwrap();
}

#[test]
fn verbs_need_the_version_that_brought_them() {
    for (verb, version, fails) in [
        ("CHECK", "0.3.1", true),
        ("GC", "1.0.0", true),
        ("STATUS", "1.0.0", true),
        ("DEL", "0.1.0", false),
    ] {
        let mut conf = conf();
        conf["cniVersion"] = version.into();
        match call(verb, &[], conf) {
            Err(error) => assert!(
                fails && error.code == Code::IncompatibleVersion,
                "{verb} {error}"
            ),
            Ok(_) => assert!(!fails, "{verb}"),
        }
    }
    assert_eq!(
        call("ADDD", &[], conf()).unwrap_err().code,
        Code::InvalidEnvironment
    );
}

#[test]
fn a_missing_version_is_0_1_0_and_an_unknown_one_an_error() {
    let (request, _) = call("ADD", &[], json!({"name": "net", "type": "bridge"})).unwrap();
    assert_eq!(request.version, SpecVersion::V0_1_0);
    let error = call("ADD", &[], json!({"cniVersion": "9.9.9", "name": "net"})).unwrap_err();
    assert_eq!(error.code, Code::IncompatibleVersion);
}

#[test]
fn name_and_type_are_required_and_validated() {
    for bad in [
        json!({"type": "bridge"}),
        json!({"name": "net"}),
        json!({"name": "", "type": "bridge"}),
        json!({"name": "a/b", "type": "bridge"}),
        json!({"name": "net", "type": "../../bin/sh"}),
        json!({"name": 5, "type": "bridge"}),
    ] {
        assert_eq!(
            call("ADD", &[], bad.clone()).unwrap_err().code,
            Code::InvalidConfig,
            "{bad}"
        );
    }
}

#[test]
fn anything_but_one_json_object_is_a_decoding_error() {
    let huge = format!("{{\"name\":\"{}\"}}", "x".repeat(CONFIG_MAX));
    for bad in [
        "", " ", "x", "[]", "1", "null", "{} {}", "{\"a\":}", "{", "\"{}\"", "\u{0}", &huge,
    ] {
        let error = parse_config(bad.as_bytes()).unwrap_err();
        assert_eq!(error.code, Code::Decoding, "{bad:.20?}");
    }
    assert_eq!(
        parse_config(b"{\"a\": \"\xff\"}").unwrap_err().code,
        Code::Decoding
    );
}

#[test]
fn deep_nesting_is_an_error_and_no_stack_overflow() {
    let deep = format!("{{\"a\":{}", "[".repeat(500_000));
    assert_eq!(
        parse_config(deep.as_bytes()).unwrap_err().code,
        Code::Decoding
    );
}

#[test]
fn prev_result_is_needed_by_check_and_optional_for_del() {
    assert_eq!(
        call("CHECK", &[], conf()).unwrap_err().code,
        Code::InvalidConfig
    );
    let mut broken = conf();
    broken["prevResult"] = json!({"ips": "x"});
    assert!(
        call("DEL", &[], broken.clone())
            .unwrap()
            .0
            .prev_result
            .is_none()
    );
    let error = call("ADD", &[], broken).unwrap_err();
    assert!(error.msg.contains("\"prevResult.ips\""), "{}", error.msg);
}

#[test]
fn gc_takes_both_spellings_and_refuses_to_guess() {
    let attachments = json!([{"containerID": "c1", "ifname": "eth0"}]);
    for key in ["cni.dev/valid-attachments", "cni.dev/attachments"] {
        let mut conf = conf();
        conf[key] = attachments.clone();
        let Call::Gc(Some(valid)) = call("GC", &[], conf).unwrap().1 else {
            panic!()
        };
        assert_eq!(valid[0].container.as_str(), "c1");
    }
    assert!(matches!(call("GC", &[], conf()).unwrap().1, Call::Gc(None)));
}
