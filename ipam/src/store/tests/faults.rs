use super::super::record::Record;
use super::*;

#[test]
fn what_others_removed_is_not_held_any_more() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    setup.add("a", &[&set]).unwrap();
    fs::remove_file(setup.dir().join("10.1.0.2")).unwrap();
    setup.foreign("10.1.0.2", "other\r\neth0");
    assert!(setup.del("a").is_empty());
    assert_eq!(setup.files(), ["10.1.0.2"]);
    assert_eq!(setup.held("other"), ["10.1.0.2"]);
}

#[test]
fn garbage_in_our_own_files_is_never_fatal() {
    for (name, content) in [
        ("a:eth0", "garbage"),
        ("a:eth0", ""),
        ("index", "{"),
        ("b:eth0", "x"),
        (".odd", ""),
    ] {
        let setup = Setup::new();
        setup.add("a", &[&set("10.1.0.0/24")]).unwrap();
        fs::write(setup.own(name), content).unwrap();
        assert_eq!(setup.del("a"), ["10.1.0.2"], "{name} {content:?}");
        assert!(setup.files().is_empty() && setup.is_stamped());
        assert!(
            setup.add("b", &[&set("10.1.0.0/24")]).is_ok(),
            "{name} {content:?}"
        );
    }
}

#[test]
fn without_our_own_directory_everything_is_still_found() {
    let setup = Setup::new();
    setup.add("a", &[&set("10.1.0.0/24")]).unwrap();
    let own = setup.temp.path().join("data/.trestle");
    fs::remove_dir_all(&own).unwrap();
    assert_eq!(setup.held("a"), ["10.1.0.2"]);
    fs::remove_dir_all(&own).unwrap();
    fs::write(&own, "a file").unwrap();
    assert_eq!(setup.del("a"), ["10.1.0.2"]);
    let error = setup.add("b", &[&set("10.1.0.0/24")]).unwrap_err();
    assert!(
        error.to_string().contains(".trestle: Not a directory"),
        "{error}"
    );
    assert!(setup.files().is_empty());
}

#[test]
fn a_record_of_an_add_that_died_before_its_address_was_made_is_not_believed() {
    let setup = Setup::new();
    let set = set("10.1.0.0/24");
    setup.add("a", &[&set]).unwrap();
    let record = fs::read_to_string(setup.own("a:eth0"))
        .unwrap()
        .replace("\"a\"", "\"b\"");
    fs::write(setup.own("b:eth0"), record).unwrap();
    assert!(setup.held("b").is_empty());
    assert!(setup.del("b").is_empty());
    assert!(!setup.own("b:eth0").exists());
    assert_eq!(setup.held("a"), ["10.1.0.2"]);
}

#[test]
fn empty_files_are_free_and_garbage_files_are_not() {
    let setup = Setup::new();
    let set = set("10.1.0.0/29");
    for n in 2..=5 {
        setup.foreign(&format!("10.1.0.{n}"), "\u{0}garbage\n\n\n");
    }
    setup.foreign("10.1.0.6", "");
    assert_eq!(setup.add("a", &[&set]).unwrap(), ["10.1.0.6"]);
    assert!(matches!(
        setup.add("b", &[&set]),
        Err(Error::Exhausted { used: 5, .. })
    ));
    // Debris that appears without the directory's time being changed.
    fs::write(setup.dir().join("10.1.0.3"), "").unwrap();
    assert!(setup.is_stamped());
    assert_eq!(setup.add("b", &[&set]).unwrap(), ["10.1.0.3"]);
    fs::write(setup.dir().join("10.1.0.4"), "").unwrap();
    setup.request("c", &set, "10.1.0.4").unwrap();
}

#[test]
fn symbolic_links_are_not_followed() {
    let setup = Setup::new();
    let set = set("10.1.0.0/29");
    let outside = setup.temp.path().join("outside");
    fs::write(&outside, "precious").unwrap();
    setup.add("a", &[&set]).unwrap();
    for name in ["10.1.0.3", "10.1.0.4"] {
        symlink(&outside, setup.dir().join(name)).unwrap();
    }
    fs::remove_file(setup.dir().join("last_reserved_ip.0")).unwrap();
    symlink(&outside, setup.dir().join("last_reserved_ip.0")).unwrap();
    for name in ["new", "b:eth0"] {
        symlink(&outside, setup.own(name)).unwrap();
    }
    fs::remove_file(setup.own("index")).unwrap();
    symlink(&outside, setup.own("index")).unwrap();
    assert_eq!(setup.add("b", &[&set]).unwrap(), ["10.1.0.5"]);
    assert_eq!(setup.del("b"), ["10.1.0.5"]);
    assert_eq!(fs::read_to_string(&outside).unwrap(), "precious");
}

#[test]
fn a_network_directory_or_data_dir_that_is_something_else_is_a_clear_error() {
    let setup = Setup::new();
    let data = setup.temp.path().join("data");
    fs::write(&data, "").unwrap();
    let error = setup.add("a", &[&set("10.1.0.0/24")]).unwrap_err();
    assert!(
        error.remedy().contains("directories"),
        "{error} {}",
        error.remedy()
    );
    assert!(setup.store().check_writable().is_err());
    assert!(setup.del("a").is_empty());

    fs::remove_file(&data).unwrap();
    fs::create_dir(&data).unwrap();
    symlink(setup.temp.path(), data.join("net")).unwrap();
    let error = setup.add("a", &[&set("10.1.0.0/24")]).unwrap_err();
    assert!(
        error.remedy().contains("symbolic link"),
        "{error} {}",
        error.remedy()
    );
}

#[test]
fn a_lock_that_is_held_is_an_error_that_names_the_holder() {
    let setup = Setup::new();
    let store = setup.store();
    let session = store.lock().unwrap();
    let error = setup.add("a", &[&set("10.1.0.0/24")]).unwrap_err();
    assert_eq!(error.code(), cni_conf::error::Code::TryAgainLater);
    assert!(
        error.to_string().contains(&std::process::id().to_string()),
        "{error}"
    );
    drop(session);
    setup.add("a", &[&set("10.1.0.0/24")]).unwrap();
}

#[test]
fn whether_the_state_can_be_written_is_found_without_making_it() {
    let setup = Setup::new();
    setup.store().check_writable().unwrap();
    assert!(!setup.temp.path().join("data").exists());
    setup.add("a", &[&set("10.1.0.0/24")]).unwrap();
    setup.store().check_writable().unwrap();
    assert!(!setup.own("new").exists() && setup.is_stamped());
}

#[test]
fn an_address_that_somebody_took_in_between_stays_theirs() {
    let setup = Setup::new();
    let store = setup.store();
    let mut session = store.lock().unwrap();
    // After the choice, and without the lock: a person, or a program that knows no lock.
    setup.foreign("10.1.0.3", "theirs\r\neth0");
    let record = Record {
        owner: (&id("a")).into(),
        addresses: ["10.1.0.2", "10.1.0.3", "10.1.0.4"]
            .map(|text| text.parse().unwrap())
            .into(),
        origin: None,
    };
    session.write_all(&record).unwrap_err();
    drop(session);
    assert_eq!(
        fs::read_to_string(setup.dir().join("10.1.0.3")).unwrap(),
        "theirs\r\neth0"
    );
    assert!(!setup.dir().join("10.1.0.2").exists() && !setup.dir().join("10.1.0.4").exists());
    assert!(setup.held("a").is_empty());
}

#[test]
fn what_is_no_directory_is_not_opened_as_one() {
    let setup = Setup::new();
    let file = setup.temp.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Dir::open(&file).is_err());
    let directory = Dir::open(setup.temp.path()).unwrap().unwrap();
    assert!(directory.find("file").is_err());
    assert!(directory.find("none").unwrap().is_none());
    // A program that is executed while it is open must not hold it on.
    let flags = |path: &str| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{path}")).unwrap();
        let line = info.lines().find_map(|line| {
            line.strip_prefix("flags:")
                .map(str::trim)
                .map(str::to_owned)
        });
        u32::from_str_radix(&line.unwrap(), 8).unwrap()
    };
    let open_as = |wanted: &std::path::Path| {
        let all = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let mut names =
            all.filter(|entry| fs::read_link(entry.path()).is_ok_and(|to| to == wanted));
        names.next().unwrap().file_name().into_string().unwrap()
    };
    const CLOEXEC: u32 = 0o200_0000;
    assert_ne!(flags(&open_as(setup.temp.path())) & CLOEXEC, 0);
}

#[test]
fn a_data_dir_that_cannot_be_looked_at_is_an_error_and_not_nothing() {
    let setup = Setup::new();
    let data = setup.temp.path().join("data");
    symlink(&data, &data).unwrap();
    assert!(setup.store().lock_existing().is_err());
}
