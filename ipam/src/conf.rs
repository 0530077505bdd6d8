//! What the plugins of this crate have in common in reading their configuration.
//!
//! An IPAM plugin gets the whole network configuration on stdin. Its own part is the section `ipam`; addresses that
//! somebody asks for stand in `args.cni.ips`, `runtimeConfig.ips` and CNI_ARGS (CNI conventions, "ips").

use std::net::IpAddr;

use cni_conf::addr;
use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::request::Request;
use cni_conf::version::SpecVersion;
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// A network configuration with the section that a plugin of this crate reads.
#[derive(Debug, Deserialize)]
pub(crate) struct Wire<T> {
    pub(crate) ipam: Option<T>,
    #[serde(default)]
    args: Args,
    #[serde(default, rename = "runtimeConfig")]
    runtime: RuntimeConfig,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Args {
    cni: CniArgs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CniArgs {
    ips: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeConfig {
    ips: Vec<String>,
}

impl<T: DeserializeOwned> Wire<T> {
    /// Reads the configuration of a call.
    pub(crate) fn read(request: &Request) -> Result<Self, Error> {
        Ok(json::from_value(&request.conf)?)
    }

    /// The section `ipam`, which must be there.
    pub(crate) fn section(&self) -> Result<&T, Error> {
        self.ipam.as_ref().ok_or_else(|| {
            Error::config("the network configuration has no section \"ipam\"")
                .with_details("an IPAM plugin is configured by \"ipam\": {\"type\": …}")
        })
    }

    /// Addresses asked for in `args.cni.ips`, each with its path.
    pub(crate) fn args_ips(&self) -> impl Iterator<Item = (String, &str)> {
        paths("args.cni.ips", &self.args.cni.ips)
    }

    /// Addresses asked for in `runtimeConfig.ips`, each with its path.
    pub(crate) fn runtime_ips(&self) -> impl Iterator<Item = (String, &str)> {
        paths("runtimeConfig.ips", &self.runtime.ips)
    }
}

fn paths<'a>(parent: &str, values: &'a [String]) -> impl Iterator<Item = (String, &'a str)> {
    let path = move |index| format!("{parent}[{index}]");
    values
        .iter()
        .enumerate()
        .map(move |(index, value)| (path(index), value.trim()))
}

/// What a field for an address holds, for errors.
pub(crate) const ADDRESS: &str = "expected an IP address";

/// Reads an address, without a prefix length.
pub(crate) fn parse_address(path: &str, text: &str) -> Result<IpAddr, FieldError> {
    addr::parse_ip(path, text, ADDRESS).map(|address| address.to_canonical())
}

/// Versions before 0.3.0 have room for one address of each family.
pub(crate) fn check_count(
    version: SpecVersion,
    addresses: impl Iterator<Item = IpAddr>,
) -> Result<(), Error> {
    let v4: Vec<bool> = addresses.map(|address| address.is_ipv4()).collect();
    let count = |family: bool| v4.iter().filter(|v4| **v4 == family).count();
    if version < SpecVersion::V0_3_0 && (count(true) > 1 || count(false) > 1) {
        return Err(Error::config(format!(
            "CNI version {version} has room for one IPv4 and one IPv6 address, the configuration asks for {} and {}",
            count(true),
            count(false)
        ))
        .with_details("set \"cniVersion\" to 0.3.0 or newer"));
    }
    Ok(())
}
