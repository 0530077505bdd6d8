//! The plugin `static`: addresses that are written in the configuration, or asked for by the runtime.
//!
//! It keeps no state. The addresses are those of `ipam.addresses`, and after them those of `IP` in CNI_ARGS; if
//! `args.cni.ips` names any, only those; if `runtimeConfig.ips` names any, only those. `GATEWAY` in CNI_ARGS is the
//! gateway of each address in whose subnet it lies. Lists in CNI_ARGS have commas.

use std::net::IpAddr;

use cni_conf::addr;
use cni_conf::dispatch::Plugin;
use cni_conf::error::{Code, Error};
use cni_conf::json::FieldError;
use cni_conf::request::{Attachment, AttachmentId, CniArgs, Request};
use cni_conf::result::{CniResult, Dns, IpConfig, Route};
use ipnet::IpNet;
use serde::Deserialize;

use crate::conf::{self, Wire};

/// The plugin `static`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Static;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Section {
    addresses: Vec<AddressWire>,
    routes: Vec<Route>,
    dns: Dns,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct AddressWire {
    address: String,
    gateway: String,
}

impl Plugin for Static {
    fn add(&self, request: &Request, attachment: &Attachment) -> Result<CniResult, Error> {
        let wire: Wire<Section> = Wire::read(request)?;
        let ips = read_addresses(&wire, &attachment.args)?;
        if ips.is_empty() {
            return Err(Error::config("no address is configured").with_details(
                "set \"addresses\": [{\"address\": \"10.1.0.5/24\"}] in \"ipam\", or ask for one by IP in CNI_ARGS, \
                 args.cni.ips or runtimeConfig.ips",
            ));
        }
        conf::check_count(request.version, ips.iter().map(|ip| ip.address.addr()))?;
        let section = wire.section()?;
        Ok(CniResult {
            ips,
            routes: section.routes.clone(),
            dns: section.dns.clone(),
            ..CniResult::default()
        })
    }

    fn del(&self, _: &Request, _: &Attachment) -> Result<(), Error> {
        Ok(())
    }

    fn check(&self, request: &Request, attachment: &Attachment) -> Result<(), Error> {
        let wire: Wire<Section> = Wire::read(request)?;
        let result: Vec<&IpConfig> = request
            .prev_result
            .iter()
            .flat_map(|result| &result.ips)
            .collect();
        for ip in read_addresses(&wire, &attachment.args)? {
            let is_same = |other: &&IpConfig| {
                other.address == ip.address && (ip.gateway.is_none() || other.gateway == ip.gateway)
            };
            if !result.iter().any(is_same) {
                let gateway = ip.gateway.map(|gateway| format!(" with gateway {gateway}"));
                return Err(Error::new(
                    Code::CheckFailed,
                    format!(
                        "check {} of container {}: {}{} is configured but not in prevResult",
                        attachment.ifname,
                        attachment.container,
                        ip.address,
                        gateway.unwrap_or_default()
                    ),
                )
                .with_details(
                    "the configuration has changed; run DEL and ADD for this container",
                ));
            }
        }
        Ok(())
    }

    fn gc(&self, _: &Request, _: &[AttachmentId]) -> Result<(), Error> {
        Ok(())
    }

    fn status(&self, request: &Request) -> Result<(), Error> {
        // The addresses may come with ADD only, so none is no error here.
        let wire: Wire<Section> = Wire::read(request)?;
        wire.section()?;
        read_addresses(&wire, &CniArgs::default()).map(drop)
    }
}

fn read_addresses(wire: &Wire<Section>, args: &CniArgs) -> Result<Vec<IpConfig>, Error> {
    let runtime: Vec<_> = wire.runtime_ips().collect();
    let asked: Vec<_> = if runtime.is_empty() {
        wire.args_ips().collect()
    } else {
        runtime
    };
    let mut ips = Vec::new();
    if asked.is_empty() {
        for (index, address) in wire.section()?.addresses.iter().enumerate() {
            let path = format!("ipam.addresses[{index}]");
            ips.push(read_configured(&path, address)?);
        }
        for text in list(args, "IP") {
            ips.push(read_address("CNI_ARGS IP", text)?);
        }
    } else {
        for (path, text) in asked {
            ips.push(read_address(&path, text)?);
        }
    }
    for text in list(args, "GATEWAY") {
        let gateway = conf::parse_address("CNI_ARGS GATEWAY", text)?;
        for ip in ips.iter_mut().filter(|ip| ip.address.contains(&gateway)) {
            ip.gateway = Some(gateway);
        }
    }
    Ok(ips)
}

/// The parts of a value of CNI_ARGS that has commas.
fn list<'a>(args: &'a CniArgs, key: &str) -> impl Iterator<Item = &'a str> {
    args.get(key)
        .into_iter()
        .flat_map(|value| value.split(',').map(str::trim))
}

fn read_configured(path: &str, wire: &AddressWire) -> Result<IpConfig, FieldError> {
    let mut ip = read_address(&format!("{path}.address"), wire.address.trim())?;
    if !wire.gateway.is_empty() {
        let gateway = conf::parse_address(&format!("{path}.gateway"), wire.gateway.trim())?;
        ip.gateway = Some(gateway);
    }
    Ok(ip)
}

fn read_address(path: &str, text: &str) -> Result<IpConfig, FieldError> {
    let expected = match text.parse::<IpAddr>() {
        Ok(_) => "expected an address with its prefix length, like 10.1.0.5/24",
        Err(_) => "expected an address like 10.1.0.5/24 or fd00::5/64",
    };
    Ok(IpConfig {
        interface: None,
        address: unmapped(addr::parse_net(path, text, expected)?),
        gateway: None,
    })
}

/// An IPv4 address that is written in IPv6 notation (`::ffff:10.1.0.5/120`) as the IPv4 address it means.
fn unmapped(net: IpNet) -> IpNet {
    net.prefix_len()
        .checked_sub(96)
        .filter(|_| net.addr() != net.addr().to_canonical())
        .and_then(|prefix| IpNet::new(net.addr().to_canonical(), prefix).ok())
        .unwrap_or(net)
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn call(conf: Value, args: &str) -> (Request, Attachment) {
        let request = Request {
            version: SpecVersion::V1_1_0,
            network: "net".try_into().unwrap(),
            plugin: "bridge".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        };
        let attachment = Attachment {
            container: "c".try_into().unwrap(),
            ifname: "eth0".try_into().unwrap(),
            netns: None,
            args: CniArgs::parse(args).unwrap(),
            netns_override: false,
        };
        (request, attachment)
    }

    fn add(conf: Value, args: &str) -> Result<Value, Error> {
        let (request, attachment) = call(conf, args);
        Ok(Static
            .add(&request, &attachment)?
            .to_value(SpecVersion::V1_1_0))
    }

    fn configured() -> Value {
        json!({"ipam": {
            "type": "static",
            "addresses": [
                {"address": "10.10.0.1/24", "gateway": "10.10.0.254"},
                {"address": "3ffe:ffff::1/64"}
            ],
            "routes": [{"dst": "0.0.0.0/0"}, {"dst": "192.168.0.0/16", "gw": "10.10.5.1", "priority": 3}],
            "dns": {"nameservers": ["8.8.8.8"], "domain": "example.org", "search": ["a"], "options": ["b"]}
        }})
    }

    #[test]
    fn the_result_is_what_is_configured() {
        let conf = configured();
        let result = add(conf.clone(), "").unwrap();
        assert_eq!(
            result["ips"],
            json!([
                {"address": "10.10.0.1/24", "gateway": "10.10.0.254"},
                {"address": "3ffe:ffff::1/64"}
            ])
        );
        assert_eq!(result["routes"], conf["ipam"]["routes"]);
        assert_eq!(result["dns"], conf["ipam"]["dns"]);
    }

    #[test]
    fn cni_args_add_addresses_and_give_gateways() {
        let args = "IP=10.20.0.5/16, fd00::5/64;GATEWAY=10.20.0.1,fd00::1,10.10.0.7";
        let result = add(configured(), args).unwrap();
        assert_eq!(
            result["ips"],
            json!([
                {"address": "10.10.0.1/24", "gateway": "10.10.0.7"},
                {"address": "3ffe:ffff::1/64"},
                {"address": "10.20.0.5/16", "gateway": "10.20.0.1"},
                {"address": "fd00::5/64", "gateway": "fd00::1"}
            ])
        );
    }

    #[test]
    fn args_replace_the_addresses_and_the_runtime_replaces_both() {
        let mut conf = configured();
        conf["args"] = json!({"cni": {"ips": ["10.30.0.5/16"]}});
        let result = add(conf.clone(), "IP=10.20.0.5/16;GATEWAY=10.30.0.1").unwrap();
        assert_eq!(
            result["ips"],
            json!([{"address": "10.30.0.5/16", "gateway": "10.30.0.1"}])
        );
        conf["runtimeConfig"] = json!({"ips": ["10.40.0.5/16", "fd00::5/64"]});
        let result = add(conf, "IP=10.20.0.5/16").unwrap();
        assert_eq!(
            result["ips"],
            json!([{"address": "10.40.0.5/16"}, {"address": "fd00::5/64"}])
        );
    }

    #[test]
    fn ipv4_in_ipv6_notation_is_ipv4() {
        let conf = json!({"ipam": {"addresses": [{"address": "::ffff:10.1.0.5/120"}]}});
        assert_eq!(
            add(conf, "").unwrap()["ips"],
            json!([{"address": "10.1.0.5/24"}])
        );
    }

    #[test]
    fn what_is_no_address_with_a_prefix_is_named() {
        let one = |address: &str| json!({"ipam": {"addresses": [{"address": address}]}});
        let error = add(one("10.1.0.5"), "").unwrap_err().msg;
        assert!(
            error.contains("field \"ipam.addresses[0].address\": expected an address with its")
        );
        let error = add(one("x"), "").unwrap_err().msg;
        assert!(error.contains("(it is \"x\")"), "{error}");
        let error = add(configured(), "IP=10.1.0.5").unwrap_err().msg;
        assert!(error.contains("field \"CNI_ARGS IP\""), "{error}");
        let error = add(configured(), "GATEWAY=x").unwrap_err().msg;
        assert!(error.contains("field \"CNI_ARGS GATEWAY\""), "{error}");
        let error = add(json!({"ipam": {}}), "").unwrap_err().msg;
        assert!(error.contains("no address is configured"), "{error}");
    }

    #[test]
    fn check_wants_every_configured_address_in_the_result() {
        let (mut request, attachment) = call(configured(), "");
        request.prev_result = Some(Static.add(&request, &attachment).unwrap());
        Static.check(&request, &attachment).unwrap();
        request.conf["ipam"]["addresses"][0]["gateway"] = json!("10.10.0.253");
        let error = Static.check(&request, &attachment).unwrap_err();
        assert_eq!(error.code, Code::CheckFailed);
        assert!(
            error.msg.contains("10.10.0.1/24 with gateway 10.10.0.253"),
            "{error}"
        );
    }

    #[test]
    fn the_other_verbs_need_nothing() {
        let (request, attachment) = call(json!({"ipam": {}}), "");
        Static.del(&request, &attachment).unwrap();
        Static.gc(&request, &[]).unwrap();
        Static.status(&request).unwrap();
        let (broken, _) = call(json!({"ipam": {"addresses": [{"address": "x"}]}}), "");
        assert!(Static.status(&broken).is_err());
    }
}
