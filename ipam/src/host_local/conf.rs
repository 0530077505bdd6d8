//! The configuration of `host-local`, from the JSON to what the verbs work with.

use std::net::IpAddr;
use std::path::PathBuf;

use cni_conf::addr;
use cni_conf::error::{Code, Error};
use cni_conf::json::{self, FieldError};
use cni_conf::request::{Attachment, Request};
use cni_conf::result::Route;
use serde::Deserialize;

use crate::conf::{self, Wire};
use crate::ranges::{Range, RangeError, RangeSet};
use crate::store::DEFAULT_DATA_DIR;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Section {
    // The old form: one range, its keys beside `type`.
    subnet: String,
    range_start: String,
    range_end: String,
    gateway: String,
    ranges: Vec<Vec<RangeWire>>,
    routes: Vec<Route>,
    resolv_conf: String,
    status_when_full: String,
}

impl Section {
    fn old_form(&self) -> Option<RangeWire> {
        (!self.subnet.is_empty()).then(|| RangeWire {
            subnet: self.subnet.clone(),
            range_start: self.range_start.clone(),
            range_end: self.range_end.clone(),
            gateway: self.gateway.clone(),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RangeWire {
    subnet: String,
    range_start: String,
    range_end: String,
    gateway: String,
}

/// `runtimeConfig.ipRanges` (CNI conventions, "ipRanges").
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeWire {
    #[serde(rename = "runtimeConfig")]
    runtime: IpRanges,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct IpRanges {
    #[serde(rename = "ipRanges")]
    ranges: Vec<Vec<RangeWire>>,
}

/// Where the state is. All that DEL and GC need, so that they work however broken the rest is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Directory of all networks.
    pub(super) data_dir: PathBuf,
    /// Whether addresses of containers that are gone are taken back.
    pub(super) reclaim: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PlaceWire {
    ipam: PlaceSection,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PlaceSection {
    data_dir: String,
    reclaim: Option<bool>,
}

impl Place {
    /// Reads what says where the state is.
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        let PlaceSection { data_dir, reclaim } = json::from_value::<PlaceWire>(&request.conf)?.ipam;
        let data_dir = if data_dir.is_empty() {
            DEFAULT_DATA_DIR.into()
        } else {
            data_dir.into()
        };
        Ok(Self {
            data_dir,
            reclaim: reclaim.unwrap_or(true),
        })
    }
}

/// The configuration of one call.
#[derive(Debug)]
pub(super) struct Settings {
    /// Where the state is.
    pub(super) place: Place,
    /// An attachment gets one address out of each.
    pub(super) sets: Vec<RangeSet>,
    /// Routes for the result.
    pub(super) routes: Vec<Route>,
    /// The file with the resolver settings for the result.
    pub(super) resolv_conf: Option<PathBuf>,
    /// What STATUS says while no address is free.
    pub(super) when_full: WhenFull,
    /// Addresses of `args.cni.ips` and `runtimeConfig.ips`.
    requested: Vec<IpAddr>,
}

/// What STATUS says of a pool without a free address. A runtime that is told "not ready" tells the kubelet, which then starts
/// no container of the node's pods again, those among them that have their addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// All is well, with a warning.
    Ready,
    /// Code 50.
    NotReady,
}

impl WhenFull {
    fn read(text: &str) -> Result<Self, FieldError> {
        match text {
            "" | "ready" => Ok(Self::Ready),
            "notReady" => Ok(Self::NotReady),
            other => Err(FieldError::new(
                "ipam.statusWhenFull",
                format!("{other:?}"),
                "the values are \"ready\" and \"notReady\"",
            )),
        }
    }
}

impl Settings {
    /// Reads and checks the configuration.
    pub(super) fn read(request: &Request) -> Result<Self, Error> {
        let wire: Wire<Section> = Wire::read(request)?;
        let runtime: RuntimeWire = json::from_value(&request.conf)?;
        let section = wire.section()?;
        let requested = wire
            .args_ips()
            .chain(wire.runtime_ips())
            .map(|(path, text)| parse_requested(&path, text))
            .collect::<Result<_, _>>()?;
        let sets = read_sets(&runtime.runtime.ranges, section)?;
        conf::check_count(
            request.version,
            sets.iter().map(|set: &RangeSet| set.ranges()[0].first()),
        )?;
        Ok(Self {
            place: Place::read(request)?,
            sets,
            routes: section.routes.clone(),
            resolv_conf: (!section.resolv_conf.is_empty())
                .then(|| PathBuf::from(&section.resolv_conf)),
            when_full: WhenFull::read(&section.status_when_full)?,
            requested,
        })
    }

    /// The address that is asked for out of each set, if any.
    ///
    /// Every address that is asked for must be in some set, and no two in one.
    pub(super) fn assign(&self, attachment: &Attachment) -> Result<Vec<Option<IpAddr>>, Error> {
        let mut requested = match attachment.args.get("IP") {
            Some(text) => vec![parse_requested("CNI_ARGS IP", text.trim())?],
            None => Vec::new(),
        };
        for address in &self.requested {
            if !requested.contains(address) {
                requested.push(*address);
            }
        }
        let mut assigned = Vec::new();
        for set in &self.sets {
            let found = requested
                .iter()
                .position(|address| set.range_of(*address).is_some());
            let address = found.map(|index| requested.remove(index));
            if let Some(address) = address.filter(|address| set.is_gateway(*address)) {
                return Err(refused(format!("{address} is the gateway of range {set}")));
            }
            assigned.push(address);
        }
        match requested.first() {
            None => Ok(assigned),
            Some(left) => Err(refused(self.explain(*left))),
        }
    }

    fn explain(&self, left: IpAddr) -> String {
        match self.sets.iter().find(|set| set.range_of(left).is_some()) {
            Some(set) => {
                format!("two addresses of range set {set} are asked for, {left} is the second")
            }
            None => {
                let sets: Vec<String> = self.sets.iter().map(RangeSet::to_string).collect();
                format!("{left} is in none of the ranges {}", sets.join(", "))
            }
        }
    }
}

fn refused(problem: String) -> Error {
    Error::new(Code::NoAddress, format!("allocate the requested address: {problem}")).with_details(
        "addresses are asked for by IP in CNI_ARGS, args.cni.ips and runtimeConfig.ips; ask for one free address per \
         range set at most",
    )
}

/// Reads a requested address. A prefix length, which some runtimes add, is ignored: the range knows it.
fn parse_requested(path: &str, text: &str) -> Result<IpAddr, FieldError> {
    if text.contains('/') {
        addr::parse_net(path, text, conf::ADDRESS).map(|net| net.addr().to_canonical())
    } else {
        conf::parse_address(path, text)
    }
}

/// The sets in the order of the addresses in the result: those of the runtime, the old form, `ranges`.
fn read_sets(runtime: &[Vec<RangeWire>], section: &Section) -> Result<Vec<RangeSet>, Error> {
    let mut sets = Vec::new();
    for (index, ranges) in runtime.iter().enumerate() {
        sets.push(read_set(
            &format!("runtimeConfig.ipRanges[{index}]"),
            ranges,
        )?);
    }
    if let Some(range) = section.old_form() {
        let range = read_range("ipam", &range)?;
        sets.push(RangeSet::new(vec![range]).map_err(at("ipam"))?);
    }
    for (index, ranges) in section.ranges.iter().enumerate() {
        sets.push(read_set(&format!("ipam.ranges[{index}]"), ranges)?);
    }
    if sets.is_empty() {
        return Err(
            Error::config("no range to allocate addresses from is configured")
                .with_details("set \"ranges\": [[{\"subnet\": \"10.1.0.0/16\"}]] in \"ipam\""),
        );
    }
    for (index, set) in sets.iter().enumerate() {
        for other in &sets[..index] {
            set.check_disjoint(other)
                .map_err(at(&format!("range set {index}")))?;
        }
    }
    Ok(sets)
}

fn read_set(path: &str, ranges: &[RangeWire]) -> Result<RangeSet, Error> {
    let ranges = ranges
        .iter()
        .enumerate()
        .map(|(index, range)| read_range(&format!("{path}[{index}]"), range))
        .collect::<Result<_, _>>()?;
    RangeSet::new(ranges).map_err(at(path))
}

fn read_range(path: &str, wire: &RangeWire) -> Result<Range, Error> {
    let subnet = addr::parse_net(
        &format!("{path}.subnet"),
        wire.subnet.trim(),
        "expected a subnet like 10.1.0.0/16 or fd00::/64",
    )?;
    let optional = |field: &str, text: &str| match text.trim() {
        "" => Ok(None),
        text => conf::parse_address(&format!("{path}.{field}"), text).map(Some),
    };
    let range = Range::new(
        subnet,
        optional("rangeStart", &wire.range_start)?,
        optional("rangeEnd", &wire.range_end)?,
        optional("gateway", &wire.gateway)?,
    );
    range.map_err(at(path))
}

fn at(path: &str) -> impl Fn(RangeError) -> Error {
    move |error| crate::Error::from(error.within(path)).into()
}
