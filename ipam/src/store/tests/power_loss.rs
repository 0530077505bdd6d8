//! What comes back from the disk after a loss of power: every file as it was, without content, full of zeroes, or not at all.

use super::*;

/// What became of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Whole,
    Empty,
    Zeroes,
    Missing,
}

const FATES: [Fate; 4] = [Fate::Whole, Fate::Empty, Fate::Zeroes, Fate::Missing];

const EARLIER: &str = "an earlier boot";

fn befall(path: &Path, fate: Fate) {
    let length = fs::metadata(path).unwrap().len();
    match fate {
        Fate::Whole => {}
        Fate::Empty => fs::write(path, "").unwrap(),
        Fate::Zeroes => fs::write(path, vec![0; usize::try_from(length).unwrap()]).unwrap(),
        Fate::Missing => fs::remove_file(path).unwrap(),
    }
}

/// A network in which `old` got 10.1.0.2 and fd00::2 under an earlier boot.
fn before() -> Setup {
    let setup = Setup::new();
    let origin = Origin {
        boot: EARLIER.into(),
        netns: None,
    };
    setup
        .add_from(&setup.store(), "old", &sets().each_ref(), Some(origin))
        .unwrap();
    setup
}

fn sets() -> [RangeSet; 2] {
    [set("10.1.0.0/29"), set("fd00::/64")]
}

/// Fill the network. Whoever gets an address keeps it, and nobody gets another's.
fn fill(setup: &Setup, what: &str) -> Vec<String> {
    let mut given = Vec::new();
    for index in 0.. {
        match setup.add(&format!("new{index}"), &[&set("10.1.0.0/29")]) {
            Ok(addresses) => given.extend(addresses),
            Err(Error::Exhausted { .. }) => break,
            Err(error) => panic!("{what}: {error}"),
        }
    }
    given.sort();
    let count = given.len();
    given.dedup();
    assert_eq!(given.len(), count, "{what}: {given:?}");
    for (index, _) in given.iter().enumerate() {
        assert_eq!(setup.held(&format!("new{index}")).len(), 1, "{what}");
    }
    given
}

#[test]
fn whatever_comes_back_is_free_after_the_next_boot_and_given_once() {
    for address in FATES {
        for record in FATES {
            for index in FATES {
                for del_first in [false, true] {
                    let what = format!(
                        "address {address:?}, record {record:?}, index {index:?}, DEL of another first: {del_first}"
                    );
                    let setup = before();
                    // Both address files are names of one file.
                    befall(&setup.dir().join("10.1.0.2"), address);
                    befall(&setup.own("old:eth0"), record);
                    befall(&setup.own("index"), index);
                    if del_first {
                        assert!(setup.del("another").is_empty(), "{what}");
                    }
                    let given = fill(&setup, &what);
                    // Only without any record may it be somebody else's, and stays until GC.
                    let kept = address == Fate::Whole && record == Fate::Missing;
                    assert_eq!(given.contains(&"10.1.0.2".to_owned()), !kept, "{what}");
                    assert_eq!(given.len(), if kept { 4 } else { 5 }, "{what}");
                    setup.store().lock().unwrap().retain(&[]).unwrap();
                    assert!(setup.files().is_empty(), "{what}");
                }
            }
        }
    }
}

#[test]
fn nothing_that_stands_is_taken_back() {
    for record in FATES {
        let setup = before();
        befall(&setup.own("old:eth0"), record);
        setup.host.alive.lock().unwrap().push("old".into());
        let given = fill(&setup, "stands");
        assert!(!given.contains(&"10.1.0.2".to_owned()), "{record:?}");
        assert_eq!(setup.held("old"), ["10.1.0.2", "fd00::2"], "{record:?}");
    }
}

#[test]
fn without_our_own_directory_it_is_anybodys_state_and_stays() {
    let setup = before();
    fs::remove_dir_all(setup.temp.path().join("data/.trestle")).unwrap();
    assert!(!fill(&setup, "no directory").contains(&"10.1.0.2".to_owned()));
    assert_eq!(setup.del("old"), ["10.1.0.2", "fd00::2"]);
}

#[test]
fn a_record_without_content_means_nothing_within_a_boot() {
    for fate in [Fate::Empty, Fate::Zeroes] {
        let setup = Setup::new();
        setup.add("lives", &[&set("10.1.0.0/29")]).unwrap();
        befall(&setup.own("lives:eth0"), fate);
        assert!(!fill(&setup, "lives").contains(&"10.1.0.2".to_owned()));
        assert_eq!(setup.held("lives"), ["10.1.0.2"]);
    }
}

#[test]
fn what_the_go_plugin_gave_stays_also_when_a_record_was_made_of_it() {
    let setup = before();
    setup.foreign("10.1.0.5", "go\r\neth0");
    assert!(setup.del("another").is_empty());
    assert!(setup.own("go:eth0").exists());
    let given = fill(&setup, "foreign");
    assert!(!given.contains(&"10.1.0.5".to_owned()), "{given:?}");
    assert_eq!(setup.held("go"), ["10.1.0.5"]);
}

#[test]
fn a_rebuild_that_is_interrupted_leaves_no_record_without_content() {
    let setup = before();
    befall(&setup.own("old:eth0"), Fate::Empty);
    // What a rebuild leaves that ends before the record has its name.
    fs::write(setup.own("new"), "{").unwrap();
    assert!(fill(&setup, "interrupted").contains(&"10.1.0.2".to_owned()));
    assert!(!setup.own("new").exists());
}

#[test]
fn addresses_that_outlive_boots_stay_until_that_is_switched() {
    for record in FATES {
        let setup = before();
        befall(&setup.own("old:eth0"), record);
        let keep = setup.store().with_reclaim(false);
        let given: Vec<_> = (0..4)
            .flat_map(|n| setup.add_from(&keep, &format!("vm{n}"), &[&set("10.1.0.0/29")], None))
            .flatten()
            .collect();
        assert_eq!(given, ["10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6"]);
        assert!(matches!(
            setup.add_from(&keep, "more", &[&set("10.1.0.0/29")], None),
            Err(Error::Exhausted { reclaim: false, .. })
        ));
        let freed = setup.add("new", &[&set("10.1.0.0/29")]);
        // Those of this boot are in use; of the earlier one it is known, unless the record is lost altogether.
        assert_eq!(freed.is_ok(), record != Fate::Missing, "{record:?}");
    }
}
