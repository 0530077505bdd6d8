use super::*;

#[test]
fn files_are_those_of_the_go_plugin() {
    let setup = Setup::new();
    setup
        .add("abc", &[&set("10.1.0.0/24"), &set("fd00::/64")])
        .unwrap();
    let read = |name: &str| fs::read_to_string(setup.dir().join(name)).unwrap();
    assert_eq!(setup.files(), ["10.1.0.2", "fd00::2"]);
    assert_eq!(read("10.1.0.2"), "abc\r\neth0");
    assert_eq!(read("fd00::2"), "abc\r\neth0");
    assert_eq!(read("last_reserved_ip.0"), "10.1.0.2");
    assert_eq!(read("last_reserved_ip.1"), "fd00::2");
    assert_eq!(read("lock"), "");
    assert_eq!(fs::read_dir(setup.dir()).unwrap().count(), 5);
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(setup.dir().join("10.1.0.2")), 0o600);
    assert_eq!(mode(setup.dir()), 0o755);
    assert!(!setup.own("new").exists());
    assert!(setup.is_stamped());
}

#[test]
fn addresses_go_round_and_released_ones_are_not_the_next() {
    let setup = Setup::new();
    let set = set("10.1.0.0/29");
    for (container, address) in [("a", "10.1.0.2"), ("b", "10.1.0.3"), ("c", "10.1.0.4")] {
        assert_eq!(setup.add(container, &[&set]).unwrap(), [address]);
    }
    assert_eq!(setup.del("a"), ["10.1.0.2"]);
    assert_eq!(setup.add("d", &[&set]).unwrap(), ["10.1.0.5"]);
    assert_eq!(setup.add("e", &[&set]).unwrap(), ["10.1.0.6"]);
    assert_eq!(setup.add("f", &[&set]).unwrap(), ["10.1.0.2"]);
    assert_eq!(
        fs::read_to_string(setup.dir().join("last_reserved_ip.0")).unwrap(),
        "10.1.0.2"
    );
}

#[test]
fn a_pool_with_more_used_than_probed_gives_its_last_address_and_then_says_so() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    for n in 2..=253 {
        setup.foreign(&format!("10.1.0.{n}"), "other\r\neth0");
    }
    assert_eq!(setup.add("a", &[&set]).unwrap(), ["10.1.0.254"]);
    let error = setup.add("b", &[&set]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("253 of 253 are used in range set 0"),
        "{text}"
    );
    assert!(text.contains(setup.dir().to_str().unwrap()), "{text}");
    assert_eq!(error.code(), cni_conf::error::Code::NoAddress);
    assert_eq!(setup.files().len(), 253);
}

#[test]
fn all_or_nothing_when_one_family_is_exhausted() {
    let setup = Setup::new();
    let (v4, v6) = (set("10.1.0.0/24"), set("fd00::/126"));
    setup.foreign("fd00::2", "other\r\neth0");
    setup.foreign("fd00::3", "other\r\neth0");
    assert!(matches!(
        setup.add("a", &[&v4, &v6]),
        Err(Error::Exhausted { set: 1, .. })
    ));
    assert_eq!(setup.files(), ["fd00::2", "fd00::3"]);
    assert_eq!(setup.held("a"), Vec::<String>::new());
}

#[test]
fn a_second_add_fails_while_the_first_address_is_held() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    setup.add("a", &[&set]).unwrap();
    let error = setup.add("a", &[&set]).unwrap_err().to_string();
    assert!(
        error.contains("container a interface eth0: it already holds 10.1.0.2"),
        "{error}"
    );
    assert_eq!(setup.del("a"), ["10.1.0.2"]);
    setup.add("a", &[&set]).unwrap();
}

#[test]
fn requested_addresses_are_given_or_their_holder_is_named() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    setup.request("a", &set, "10.1.0.9").unwrap();
    let error = setup
        .request("b", &set, "10.1.0.9")
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "allocate 10.1.0.9: held by container a interface eth0"
    );
    assert_eq!(setup.add("b", &[&set]).unwrap(), ["10.1.0.10"]);
}

#[test]
fn del_of_nothing_succeeds_and_makes_nothing() {
    let setup = Setup::new();
    assert!(setup.del("a").is_empty());
    assert!(!setup.temp.path().join("data").exists());
    setup.add("b", &[&set("10.1.0.0/24")]).unwrap();
    assert!(setup.del("a").is_empty());
    assert_eq!(setup.files(), ["10.1.0.2"]);
}

#[test]
fn what_others_gave_is_found_and_released() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    setup.foreign("10.1.0.7", "go\r\neth0");
    setup.foreign("10.1.0.8", "go\r\neth1");
    setup.foreign("10.1.0.9", "old");
    setup.foreign("last_reserved_ip.0", "10.1.0.9");
    assert_eq!(setup.held("go"), ["10.1.0.7"]);
    assert_eq!(setup.add("a", &[&set]).unwrap(), ["10.1.0.10"]);
    assert!(setup.is_stamped());
    // Behind our back, after we have looked.
    setup.foreign("10.1.0.20", "later\r\neth0");
    assert!(!setup.is_stamped());
    assert_eq!(setup.held("later"), ["10.1.0.20"]);
    assert_eq!(setup.del("go"), ["10.1.0.7"]);
    assert_eq!(setup.del("old"), ["10.1.0.9"]);
    assert_eq!(setup.files(), ["10.1.0.10", "10.1.0.20", "10.1.0.8"]);
}

#[test]
fn an_exact_owner_goes_before_a_file_with_only_the_container() {
    let setup = Setup::new();
    setup.foreign("10.1.0.7", "a");
    setup.foreign("10.1.0.8", "a\r\neth0");
    assert_eq!(setup.del("a"), ["10.1.0.8"]);
    assert_eq!(setup.del("a"), ["10.1.0.7"]);
}

/// Whoever reads an address file and writes it back as old releases of the Go plugin did.
#[test]
fn an_address_file_rewritten_in_the_old_format_is_the_same_owners() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    setup.add("a", &[&set]).unwrap();
    setup.add("b", &[&set]).unwrap();
    setup.foreign("10.1.0.2", "a");
    assert!(setup.is_stamped(), "the directory says nothing of it");
    assert_eq!(setup.held("a"), ["10.1.0.2"]);
    assert_eq!(setup.del("a"), ["10.1.0.2"]);
    // Another container's, or another interface's, is not.
    for content in ["a", "b\r\neth1"] {
        setup.foreign("10.1.0.3", content);
        assert_eq!(setup.del("b"), Vec::<String>::new(), "{content}");
        assert_eq!(setup.files(), ["10.1.0.3"], "{content}");
    }
}

#[test]
fn thousands_of_addresses_of_one_attachment_are_given_back() {
    let setup = Setup::new();
    let sets: Vec<RangeSet> = (0..2000)
        .map(|n| set(&format!("fd00:1111:2222:3333:4444:5555:{n:x}:0/112")))
        .collect();
    let given = setup.add("a", &sets.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(given.len(), 2000);
    let record = fs::metadata(setup.own("a:eth0")).unwrap().len();
    assert!(record > 16 << 10, "{record}");
    assert_eq!(setup.held("a").len(), 2000);
    assert_eq!(setup.del("a").len(), 2000);
    assert_eq!(setup.files(), Vec::<String>::new());
}

/// A record that is larger than any of ours, or whatever else makes it unreadable just when it has been written.
#[test]
fn an_unreadable_record_hides_no_address() {
    let setup = Setup::new();
    setup.add("a", &[&set("10.1.0.0/24")]).unwrap();
    fs::remove_file(setup.own("a:eth0")).unwrap();
    fs::create_dir(setup.own("a:eth0")).unwrap();
    assert_eq!(setup.del("a"), ["10.1.0.2"]);
    assert_eq!(setup.files(), Vec::<String>::new());
}
