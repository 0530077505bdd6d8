//! The keys `ipMasq`, `ipMasqBackend` and `nonMasqueradeCIDRs`, which `bridge` and `ptp` have in common, and what the
//! verbs do about them. How the rules look is [`super::masquerade`]'s business.

use cni_conf::diagnostics::warn;
use cni_conf::error::Error;
use cni_conf::json::{self, FieldError};
use cni_conf::request::Request;
use cni_conf::result::IpConfig;
use ipnet::IpNet;
use serde::Deserialize;

use super::check::failed;
use super::ipam;
use super::masquerade::{self, Backend, Kept, Masquerade, Member};
use super::readiness;
use super::settings;
use super::veth;
use crate::host::Rtnl;
use crate::host::iptables;
use crate::owner::Owner;

/// The JSON as it comes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Wire {
    ip_masq: bool,
    ip_masq_backend: String,
    #[serde(rename = "nonMasqueradeCIDRs")]
    non_masquerade_cidrs: Vec<String>,
    ipam: serde_json::Value,
}

/// What is looked at of IPAM's section, however wrong it is: that is IPAM's to say.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct WireIpam {
    ranges: serde_json::Value,
}

/// How many range sets host-local has.
fn range_sets(ipam: &serde_json::Value) -> usize {
    let ipam: WireIpam = json::from_value(ipam).unwrap_or_default();
    ipam.ranges.as_array().map_or(0, Vec::len)
}

/// # Errors
/// Where a container would need more chains than can be.
fn refuse_more_than_can_be(count: usize, of_what: &str) -> Result<(), Error> {
    let limit = masquerade::SUBNETS_MAX;
    if count <= limit {
        return Ok(());
    }
    Err(
        Error::config(format!("field \"ipMasq\": {count} {of_what}, at most {limit} can be masqueraded")).with_details(
            "leave out \"ipMasq\", divide the network, or give addresses of larger subnets; with a host prefix (/32, /128) all \
             count as one",
        ),
    )
}

/// How a network's containers are masqueraded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    backend: Backend,
    non_masquerade: Vec<IpNet>,
}

impl Settings {
    /// Reads and validates the keys; `None` where nothing is to be masqueraded.
    pub fn read(request: &Request) -> Result<Option<Self>, Error> {
        let wire: Wire = json::from_value(&request.conf)?;
        let backend = match wire.ip_masq_backend.as_str() {
            "" | "nftables" => Backend::Nftables,
            "iptables" => Backend::Iptables,
            other => {
                let problem =
                    "the backends are \"nftables\" (also without the key) and \"iptables\"";
                return Err(FieldError::new("ipMasqBackend", format!("{other:?}"), problem).into());
            }
        };
        let prefix = |(i, text): (usize, &String)| {
            settings::prefix(&format!("nonMasqueradeCIDRs[{i}]"), text)
        };
        let non_masquerade = wire.non_masquerade_cidrs.iter().enumerate().map(prefix);
        let non_masquerade = non_masquerade.collect::<Result<_, FieldError>>()?;
        if wire.ip_masq && backend == Backend::Nftables {
            // Each set gives the container one address. The rest of what IPAM may do comes to light in ADD.
            refuse_more_than_can_be(
                range_sets(&wire.ipam),
                "range sets in field \"ipam.ranges\"",
            )?;
        }
        Ok(wire.ip_masq.then_some(Self {
            backend,
            non_masquerade,
        }))
    }

    /// Masquerades the addresses of an attachment.
    pub fn ensure(&self, request: &Request, owner: &Owner, ips: &[IpConfig]) -> Result<(), Error> {
        let addresses = addresses(ips);
        if self.backend == Backend::Nftables {
            let subnets = masquerade::subnets(&addresses);
            refuse_more_than_can_be(subnets, "subnets of the container's addresses")?;
        }
        let living = || living(request).unwrap_or_default();
        let wanted = self.wanted(owner, &addresses);
        say(masquerade::ensure(&wanted, &living, &veth::stands_for)?);
        Ok(())
    }

    /// Masquerades the addresses of a container that lives again. One that goes meanwhile loses them again: its DEL looks
    /// for what came back once its pair is gone.
    pub fn repair(&self, request: &Request, owner: &Owner, ips: &[IpConfig]) -> Result<(), Error> {
        if ips.is_empty() || self.check(owner, ips).is_ok() {
            return Ok(());
        }
        self.ensure(request, owner, ips)?;
        match veth::find(&Rtnl::new()?, owner)? {
            Some(_) => Ok(()),
            None => remove(owner),
        }
    }

    /// Finds out whether the addresses are masqueraded still.
    pub fn check(&self, owner: &Owner, ips: &[IpConfig]) -> Result<(), Error> {
        let differences = masquerade::check(&self.wanted(owner, &addresses(ips)))?;
        match differences.first() {
            None => Ok(()),
            Some(_) => Err(failed(differences.join("; "))),
        }
    }

    /// STATUS: whether the program is there that the first ADD needs.
    pub fn status(&self) -> Result<(), Error> {
        let purpose = "masquerade";
        match self.backend {
            Backend::Nftables => readiness::require_nft(purpose),
            Backend::Iptables => readiness::require(iptables::command(false), purpose),
        }
    }

    fn wanted<'a>(&'a self, owner: &'a Owner, addresses: &'a [IpNet]) -> Masquerade<'a> {
        Masquerade {
            owner,
            addresses,
            non_masquerade: &self.non_masquerade,
            backend: self.backend,
        }
    }
}

/// For an ADD without masquerading: what a network that is gone, or has another name by now, left for the addresses would
/// masquerade them.
/// It is no reason to fail: a kernel without nftables has nothing of it.
pub fn release(owner: &Owner, ips: &[IpConfig]) {
    if ips.is_empty() {
        return;
    }
    match masquerade::release(&owner.network, &addresses(ips), &veth::stands_for) {
        Ok(released) => say(released),
        Err(error) => warn(format_args!(
            "look for what former networks masquerade: {error}"
        )),
    }
}

fn say(released: Vec<Kept>) {
    for kept in released {
        warn(format_args!(
            "removed the masquerading of {}, which is gone: {}",
            kept.owner, kept.what
        ));
    }
}

/// Removes what ADD made, with whichever backend.
pub fn remove(owner: &Owner) -> Result<(), Error> {
    Ok(masquerade::remove(owner)?)
}

fn addresses(ips: &[IpConfig]) -> Vec<IpNet> {
    ips.iter().map(|ip| ip.address).collect()
}

/// The containers of the network that hold addresses and whose pair stands: they get their masquerading back when the
/// rules were flushed. Known for addresses of our own host-local only.
pub fn living(request: &Request) -> Result<Vec<Member>, Error> {
    let host = Rtnl::new()?;
    let mut members = Vec::new();
    for (id, addresses) in ipam::leases(request)? {
        let owner = Owner::new(&request.network, &id);
        if veth::find(&host, &owner)?.is_some() {
            members.push(Member { owner, addresses });
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use cni_conf::version::SpecVersion;
    use serde_json::{Value, json};

    use super::*;

    fn read(conf: Value) -> Result<Option<Settings>, String> {
        let request = Request {
            version: SpecVersion::LATEST,
            network: "net".try_into().unwrap(),
            plugin: "bridge".try_into().unwrap(),
            conf,
            cni_path: Vec::new(),
            prev_result: None,
        };
        Settings::read(&request).map_err(|error| error.to_string())
    }

    #[test]
    fn masquerading_is_off_unless_asked_for() {
        assert_eq!(read(json!({})), Ok(None));
        assert_eq!(read(json!({"ipMasqBackend": "iptables"})), Ok(None));
    }

    #[test]
    fn nftables_is_the_backend_unless_another_is_named() {
        for (conf, backend) in [
            (json!({"ipMasq": true}), Backend::Nftables),
            (
                json!({"ipMasq": true, "ipMasqBackend": "nftables"}),
                Backend::Nftables,
            ),
            (
                json!({"ipMasq": true, "ipMasqBackend": "iptables"}),
                Backend::Iptables,
            ),
        ] {
            assert_eq!(read(conf).unwrap().unwrap().backend, backend);
        }
    }

    #[test]
    fn prefixes_that_keep_their_source_lose_their_host_bits() {
        let conf = json!({"ipMasq": true, "nonMasqueradeCIDRs": ["10.1.2.3/8", "fd00::/8"]});
        let prefixes = read(conf).unwrap().unwrap().non_masquerade;
        assert_eq!(
            prefixes,
            ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()]
        );
    }

    #[test]
    fn more_subnets_than_can_be_are_refused_with_the_limit() {
        let conf = |count: usize, more: Value| {
            let sets: Vec<_> = (0..count)
                .map(|i| json!([{"subnet": format!("10.{}.{}.0/24", i / 256, i % 256)}]))
                .collect();
            let mut conf = json!({"ipMasq": true, "ipam": {"type": "host-local", "ranges": sets}});
            conf.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            conf
        };
        assert!(read(conf(256, json!({}))).is_ok());
        assert!(read(conf(10_000, json!({"ipMasq": false}))).is_ok());
        assert!(read(conf(10_000, json!({"ipMasqBackend": "iptables"}))).is_ok());
        let error = read(conf(10_000, json!({}))).unwrap_err();
        let says = "field \"ipMasq\": 10000 range sets in field \"ipam.ranges\", at most 256 can be masqueraded";
        assert!(error.starts_with(says), "{error}");
        for odd in [json!("x"), json!(null), json!({"ranges": 5}), json!([])] {
            assert!(read(json!({"ipMasq": true, "ipam": odd})).is_ok(), "{odd}");
        }
    }

    #[test]
    fn bad_values_are_named() {
        for (conf, field, value) in [
            (json!({"ipMasq": "yes"}), "ipMasq", "yes"),
            (json!({"ipMasq": 1}), "ipMasq", "1"),
            (json!({"ipMasqBackend": "pf"}), "ipMasqBackend", "pf"),
            (
                json!({"nonMasqueradeCIDRs": "10.0.0.0/8"}),
                "nonMasqueradeCIDRs",
                "10.0.0.0/8",
            ),
            (
                json!({"nonMasqueradeCIDRs": ["10.0.0.0"]}),
                "nonMasqueradeCIDRs[0]",
                "10.0.0.0",
            ),
        ] {
            let error = read(conf.clone()).unwrap_err();
            assert!(
                error.contains(field) && error.contains(value),
                "{conf}: {error}"
            );
        }
    }
}
