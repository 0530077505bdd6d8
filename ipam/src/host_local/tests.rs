use std::fs;
use std::path::PathBuf;

use cni_conf::request::CniArgs;
use cni_conf::version::SpecVersion;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A network whose section `ipam` is given; `dataDir` is added to it.
struct Network {
    temp: TempDir,
    conf: Value,
    version: SpecVersion,
    args: CniArgs,
}

impl Network {
    fn new(ipam: Value) -> Self {
        let mut network = Self {
            temp: tempfile::tempdir().unwrap(),
            conf: json!({}),
            version: SpecVersion::V1_1_0,
            args: CniArgs::default(),
        };
        network.set_ipam(ipam);
        network
    }

    fn subnet(subnet: &str) -> Self {
        Self::new(json!({"ranges": [[{"subnet": subnet}]]}))
    }

    fn set_ipam(&mut self, mut ipam: Value) {
        ipam["dataDir"] = json!(self.temp.path());
        self.conf["ipam"] = ipam;
    }

    fn with(mut self, key: &str, value: Value) -> Self {
        self.conf[key] = value;
        self
    }

    fn with_args(mut self, args: &str) -> Self {
        self.args = CniArgs::parse(args).unwrap();
        self
    }

    fn request(&self) -> Request {
        Request {
            version: self.version,
            network: "net".try_into().unwrap(),
            plugin: "bridge".try_into().unwrap(),
            conf: self.conf.clone(),
            cni_path: Vec::new(),
            prev_result: None,
        }
    }

    fn attachment(&self, container: &str) -> Attachment {
        Attachment {
            container: container.try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
            netns: None,
            args: self.args.clone(),
            netns_override: false,
        }
    }

    fn add(&self, container: &str) -> Result<CniResult, Error> {
        HostLocal::default().add(&self.request(), &self.attachment(container))
    }

    fn ips(&self, container: &str) -> Vec<String> {
        let result = self.add(container).unwrap();
        result.ips.iter().map(|ip| ip.address.to_string()).collect()
    }

    fn error(&self, container: &str) -> String {
        self.add(container).unwrap_err().to_string()
    }

    fn del(&self, container: &str) {
        HostLocal::default()
            .del(&self.request(), &self.attachment(container))
            .unwrap();
    }

    fn check(&self, container: &str, result: CniResult) -> Result<(), Error> {
        let request = Request {
            prev_result: Some(result),
            ..self.request()
        };
        HostLocal::default().check(&request, &self.attachment(container))
    }

    fn status(&self) -> Result<(), Error> {
        HostLocal::default().status(&self.request())
    }

    fn directory(&self) -> PathBuf {
        self.temp.path().join("net")
    }

    fn files(&self) -> usize {
        let entries = fs::read_dir(self.directory()).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.parse::<IpAddr>().is_ok()).count()
    }
}

#[test]
fn the_result_has_addresses_gateways_routes_and_dns_in_the_order_of_the_sets() {
    let resolv = tempfile::NamedTempFile::new().unwrap();
    fs::write(resolv.path(), "nameserver 10.0.0.53\nsearch example.org\n").unwrap();
    let network = Network::new(json!({
        "ranges": [
            [{"subnet": "fd00::/64", "gateway": "fd00::ff"}],
            [{"Subnet": "10.1.0.0/16", "RangeStart": "10.1.2.3", "rangeEnd": "10.1.2.9"}]
        ],
        "subnet": "10.9.0.0/24",
        "routes": [
            {"dst": "0.0.0.0/0"},
            {"dst": "10.2.0.0/16", "gw": "10.1.0.9", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 7, "scope": 0}
        ],
        "resolvConf": resolv.path(),
    }))
    .with("runtimeConfig", json!({"ipRanges": [[{"subnet": "10.8.0.0/24"}]]}));
    let value = network.add("a").unwrap().to_value(SpecVersion::V1_1_0);
    assert_eq!(
        value["ips"],
        json!([
            {"address": "10.8.0.2/24", "gateway": "10.8.0.1"},
            {"address": "10.9.0.2/24", "gateway": "10.9.0.1"},
            {"address": "fd00::1/64", "gateway": "fd00::ff"},
            {"address": "10.1.2.3/16", "gateway": "10.1.0.1"},
        ])
    );
    assert_eq!(value["routes"], network.conf["ipam"]["routes"]);
    assert_eq!(
        value["dns"],
        json!({"nameservers": ["10.0.0.53"], "search": ["example.org"]})
    );
    assert_eq!(value.get("interfaces"), None);
}

#[test]
fn requested_addresses_come_from_all_three_sources() {
    let network = Network::new(json!({"ranges": [
        [{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}], [{"subnet": "10.2.0.0/24"}], [{"subnet": "10.3.0.0/24"}]
    ]}))
    .with_args("IgnoreUnknown=1;IP=10.2.0.7")
    .with("args", json!({"cni": {"ips": ["fd00::7/64"]}}))
    .with("runtimeConfig", json!({"ips": ["10.1.0.7", "10.2.0.7"]}));
    assert_eq!(
        network.ips("a"),
        ["10.1.0.7/24", "fd00::7/64", "10.2.0.7/24", "10.3.0.2/24"]
    );
    assert!(
        network
            .error("b")
            .contains("10.1.0.7: held by container a interface eth0")
    );
    assert_eq!(network.files(), 4);
}

#[test]
fn a_requested_address_that_no_set_uses_up_fails_without_a_trace() {
    for (ips, problem) in [
        (
            json!(["10.9.0.1"]),
            "10.9.0.1 is in none of the ranges 10.1.0.1-10.1.0.254",
        ),
        (json!(["10.1.0.7", "10.1.0.8"]), "10.1.0.8 is the second"),
        (
            json!(["10.1.0.1"]),
            "10.1.0.1 is the gateway of range 10.1.0.1-",
        ),
        (json!(["10.1.0.255"]), "10.1.0.255 is in none"),
        (json!(["fd00::1"]), "fd00::1 is in none"),
        (
            json!(["nonsense"]),
            "field \"runtimeConfig.ips[0]\": expected an IP address",
        ),
    ] {
        let network = Network::subnet("10.1.0.0/24").with("runtimeConfig", json!({"ips": ips}));
        let error = network.error("a");
        assert!(error.contains(problem), "{error}");
        assert!(!network.directory().exists());
    }
}

#[test]
fn a_bad_range_is_named_with_its_path_and_the_remedy() {
    let cases = [
        (
            json!({"ranges": [[{"subnet": "10.1.0.1/24"}]]}),
            "ipam.ranges[0][0].subnet \"10.1.0.1/24\" has host bits",
        ),
        (
            json!({"ranges": [[{"subnet": "x"}]]}),
            "field \"ipam.ranges[0][0].subnet\": expected a subnet",
        ),
        (
            json!({"subnet": "10.1.0.0/31"}),
            "ipam.subnet \"10.1.0.0/31\" is too small",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "rangeEnd": "10.1.1.1"}),
            "ipam.rangeEnd \"10.1.1.1\"",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "gateway": "x"}),
            "field \"ipam.gateway\": expected an IP",
        ),
        (
            json!({"ranges": [[]]}),
            "ipam.ranges[0] \"[]\" is a range set without a range",
        ),
        (json!({}), "no range to allocate"),
        (
            json!({"subnet": "10.1.0.0/24", "ranges": [[{"subnet": "10.1.0.0/16"}]]}),
            "range set 1[0] \"10.1.0.1-10.1.255.254\" overlaps with the range 10.1.0.1-10.1.0.254",
        ),
    ];
    for (ipam, problem) in cases {
        let error = Network::new(ipam).add("a").unwrap_err();
        assert!(error.msg.contains(problem), "{error}");
        assert_eq!(error.code, Code::InvalidConfig);
    }
}

#[test]
fn versions_before_0_3_0_have_room_for_one_address_per_family() {
    let mut network = Network::new(json!({"ranges": [
        [{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]
    ]}));
    network.version = SpecVersion::V0_2_0;
    assert_eq!(network.ips("a").len(), 2);
    network.conf["ipam"]["subnet"] = json!("10.2.0.0/24");
    assert!(
        network
            .error("b")
            .contains("the configuration asks for 2 and 1")
    );
}

#[test]
fn a_second_add_fails_and_the_attachment_keeps_what_it_has() {
    let network = Network::subnet("10.1.0.0/24");
    network.ips("a");
    assert_eq!(network.add("a").unwrap_err().code, Code::Conflict);
    assert_eq!(network.files(), 1);
}

#[test]
fn del_works_without_anything_and_after_the_pool_has_changed() {
    let mut network = Network::subnet("10.1.0.0/24");
    network.del("a");
    network.ips("a");
    network.set_ipam(json!({"ranges": [[{"subnet": "broken"}]], "routes": 7}));
    network.del("a");
    network.del("a");
    assert_eq!(network.files(), 0);
}

#[test]
fn check_compares_the_result_with_the_disk() {
    let network = Network::new(json!({"ranges": [
        [{"subnet": "10.1.0.0/24"}], [{"subnet": "fd00::/64"}]
    ]}));
    let mut result = network.add("a").unwrap();
    network.check("a", result.clone()).unwrap();
    let foreign = IpConfig {
        interface: None,
        address: "192.0.2.1/24".parse().unwrap(),
        gateway: None,
    };
    result.ips.push(foreign);
    network.check("a", result.clone()).unwrap();

    let error = network.check("b", result.clone()).unwrap_err();
    assert_eq!(error.code, Code::CheckFailed);
    fs::remove_file(network.directory().join("fd00::2")).unwrap();
    let error = network.check("a", result).unwrap_err();
    assert!(error.msg.contains("does not hold fd00::2"), "{error}");
    network.del("a");
    let error = network.check("a", CniResult::default()).unwrap_err();
    assert!(error.msg.contains("does not hold any address"), "{error}");
}

#[test]
fn gc_releases_everything_but_the_valid_attachments() {
    let network = Network::subnet("10.1.0.0/24");
    for container in ["a", "b", "c"] {
        network.ips(container);
    }
    let valid = [network.attachment("b").id()];
    HostLocal::default().gc(&network.request(), &valid).unwrap();
    assert_eq!(network.files(), 1);
    assert!(network.directory().join("10.1.0.3").exists());
    HostLocal::default().gc(&network.request(), &[]).unwrap();
    assert_eq!(network.files(), 0);
}

#[test]
fn status_tells_an_exhausted_pool_only_to_those_who_ask() {
    let mut network = Network::subnet("10.1.0.0/30");
    network.status().unwrap();
    assert!(!network.directory().exists());
    network.ips("a");
    network.status().unwrap();
    network.conf["ipam"]["statusWhenFull"] = json!("ready");
    network.status().unwrap();
    network.conf["ipam"]["statusWhenFull"] = json!("notready");
    assert_eq!(network.status().unwrap_err().code, Code::InvalidConfig);
    network.conf["ipam"]["statusWhenFull"] = json!("notReady");
    let error = network.status().unwrap_err();
    assert_eq!(error.code, Code::NotAvailable);
    assert!(
        error.msg.contains("1 of 1 are used in range set 0"),
        "{error}"
    );
    assert!(
        error.msg.contains(network.directory().to_str().unwrap()),
        "{error}"
    );
    network.del("a");
    network.status().unwrap();
}

#[test]
fn status_tells_a_data_dir_that_can_not_be_written() {
    let mut network = Network::subnet("10.1.0.0/30");
    let file = network.temp.path().join("file");
    fs::write(&file, "").unwrap();
    network.conf["ipam"]["dataDir"] = json!(file);
    assert_eq!(network.status().unwrap_err().code, Code::NotAvailable);
    network.conf["ipam"]["dataDir"] = json!(file.join("below"));
    assert_eq!(network.status().unwrap_err().code, Code::NotAvailable);
}

#[test]
fn without_the_section_ipam_add_explains_itself() {
    let network = Network::new(json!({}));
    let request = Request {
        conf: json!({"ipam": null}),
        ..network.request()
    };
    let error = HostLocal::default()
        .add(&request, &network.attachment("a"))
        .unwrap_err();
    assert!(error.msg.contains("no section \"ipam\""), "{error}");
}
