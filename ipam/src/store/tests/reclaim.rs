use super::*;

#[test]
fn addresses_of_an_earlier_boot_are_free_at_the_first_add() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    for container in ["gone", "stands", "vm"] {
        let mut origin = Origin::now(None, &setup.host).unwrap();
        origin.boot = "an earlier one".into();
        setup
            .add_from(&setup.store(), container, &[&set], Some(origin))
            .unwrap();
    }
    setup.foreign("10.1.0.99", "go\r\neth0");
    setup.host.alive.lock().unwrap().push("stands".into());
    let keep = setup.store().with_reclaim(false);
    setup.add_from(&keep, "a", &[&set], None).unwrap();
    assert_eq!(setup.files().len(), 5);
    assert_eq!(setup.add("b", &[&set]).unwrap(), ["10.1.0.6"]);
    assert_eq!(
        setup.files(),
        ["10.1.0.3", "10.1.0.5", "10.1.0.6", "10.1.0.99"]
    );
    assert!(setup.is_stamped() && !setup.own("gone:eth0").exists());
}

#[test]
fn addresses_of_namespaces_that_are_gone_are_free_when_the_pool_is_exhausted() {
    let setup = Setup::new();
    let set = set("10.1.0.0/29");
    let paths: Vec<PathBuf> = ["n1", "n2", "n3", "n4"]
        .map(|name| setup.netns(name))
        .into();
    let cookie = |path: &Path, cookie| {
        setup
            .host
            .cookies
            .lock()
            .unwrap()
            .insert(path.to_owned(), cookie);
    };
    paths.iter().for_each(|path| cookie(path, 1));
    for (container, path) in ["lives", "gone", "other", "stands"].iter().zip(&paths) {
        setup.add_in(container, &set, path);
    }
    fs::remove_file(&paths[1]).unwrap();
    cookie(&paths[2], 2);
    fs::remove_file(&paths[3]).unwrap();
    setup.host.alive.lock().unwrap().push("stands".into());

    assert_eq!(setup.add("a", &[&set]).unwrap(), ["10.1.0.6"]);
    assert_eq!(
        setup.files().len(),
        5,
        "nothing is taken back before it is needed"
    );
    let keep = setup.store().with_reclaim(false);
    assert!(setup.add_from(&keep, "b", &[&set], None).is_err());
    let usage = setup.store().lock().unwrap().usage(&set).unwrap();
    assert_eq!(usage, Usage { used: 3, total: 5 });
    assert_eq!(setup.add("b", &[&set]).unwrap(), ["10.1.0.3"]);
    assert_eq!(setup.add("c", &[&set]).unwrap(), ["10.1.0.4"]);
    assert!(setup.add("d", &[&set]).is_err());
    assert_eq!(
        (setup.held("lives").len(), setup.held("stands").len()),
        (1, 1)
    );
    assert!(setup.held("gone").is_empty());
}

#[test]
fn a_namespace_that_was_replaced_at_its_path_is_gone() {
    let setup = Setup::new();
    let set = set("10.1.0.0/30");
    let path = setup.netns("n1");
    setup.add_in("a", &set, &path);
    assert!(setup.add("b", &[&set]).is_err());
    let other = setup.netns("n2");
    fs::rename(other, &path).unwrap();
    assert_eq!(setup.add("b", &[&set]).unwrap(), ["10.1.0.2"]);
}

#[test]
fn a_requested_address_of_a_container_that_is_gone_is_free() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    let path = setup.netns("n1");
    setup.add_in("a", &set, &path);
    assert!(setup.request("b", &set, "10.1.0.2").is_err());
    fs::remove_file(&path).unwrap();
    setup.request("b", &set, "10.1.0.2").unwrap();
}

#[test]
fn the_origin_outlives_a_rebuild_but_not_another_gift_to_the_same_owner() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    let path = setup.netns("n1");
    setup.add_in("a", &set, &path);
    setup.add_in("b", &set, &path);
    setup.foreign("10.1.0.9", "c\r\neth0");
    setup.foreign("10.1.0.10", "b\r\neth0");
    let leases = setup.store().lock().unwrap().leases().unwrap();
    let origins: Vec<bool> = leases.iter().map(|h| h.origin.is_some()).collect();
    assert_eq!(origins, [true, false, false]);
    assert_eq!(setup.held("b"), ["10.1.0.3", "10.1.0.10"]);
}

#[test]
fn gc_keeps_what_is_valid_and_frees_the_rest() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    for container in ["a", "b", "c"] {
        setup.add(container, &[&set]).unwrap();
    }
    setup.foreign("10.1.0.20", "a");
    setup.foreign("10.1.0.21", "old");
    setup.foreign("10.1.0.22", "\u{0}\n\n");
    let mut freed = setup
        .store()
        .lock()
        .unwrap()
        .retain(&[id("a"), id("c")])
        .unwrap();
    freed.sort();
    let expected = ["10.1.0.3", "10.1.0.21", "10.1.0.22"].map(|a| a.parse::<IpAddr>().unwrap());
    assert_eq!(freed, expected);
    assert_eq!(setup.files(), ["10.1.0.2", "10.1.0.20", "10.1.0.4"]);
    assert!(setup.is_stamped() && !setup.own("b:eth0").exists());
    assert_eq!(setup.held("c"), ["10.1.0.4"]);
}

#[test]
fn addresses_that_outlive_a_boot_are_synced_and_work_the_same() {
    let setup = Setup::new();
    let keep = setup.store().with_reclaim(false);
    setup
        .add_from(&keep, "vm", &[&set("10.1.0.0/24"), &set("fd00::/64")], None)
        .unwrap();
    assert_eq!(setup.files(), ["10.1.0.2", "fd00::2"]);
    assert!(setup.is_stamped());
}
