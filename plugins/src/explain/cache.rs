//! What a runtime remembers of attachments: the cache of libcni, which containerd, CRI-O and cnitool keep.
//!
//! `results/NETWORK-CONTAINERID-IFNAME` under the cache's directory is written after ADD of the whole list and
//! removed after DEL of the whole list (libcni/api.go). It is JSON: `kind` is `cniCacheV1`, then `networkName`,
//! `containerId`, `ifName`, `result` as the last plugin printed it, and in newer releases `netns`. Older ones tell
//! the namespace only as the `sandbox` of interfaces in the result.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use cni_conf::json;
use cni_conf::names::NetworkName;
use cni_conf::request::AttachmentId;
use cni_conf::result::CniResult;
use cni_conf::version::SpecVersion;
use serde::Deserialize;
use serde_json::Value;

/// An entry larger than this is none, in bytes.
const SIZE_MAX: u64 = 4 << 20;

const KIND: &str = "cniCacheV1";

#[derive(Deserialize)]
struct Wire {
    kind: String,
    #[serde(rename = "networkName")]
    network: String,
    #[serde(rename = "containerId")]
    container: String,
    #[serde(rename = "ifName")]
    ifname: String,
    #[serde(default)]
    netns: String,
    #[serde(default)]
    config: String,
    result: Option<Value>,
}

/// An attachment that a runtime has made and not undone.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) id: AttachmentId,
    /// Paths of its network namespace; none if the entry doesn't tell.
    pub(crate) netns: BTreeSet<PathBuf>,
    /// Names of its interfaces on the host.
    pub(crate) host_interfaces: Vec<String>,
    /// The result of ADD.
    pub(crate) result: Option<CniResult>,
    /// The network's configuration that ADD was called with, if the entry tells.
    pub(crate) config: Option<Vec<u8>>,
    /// The file.
    pub(crate) path: PathBuf,
}

/// The entries of a network. What can't be read as one is passed over: nothing is concluded from its absence.
pub(crate) fn read(dir: &Path, network: &NetworkName) -> Vec<Cached> {
    let entries = fs::read_dir(dir.join("results"))
        .into_iter()
        .flatten()
        .flatten();
    let prefix = format!("{network}-");
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .filter(|entry| {
            entry
                .metadata()
                .is_ok_and(|found| found.is_file() && found.len() <= SIZE_MAX)
        })
        .filter_map(|entry| {
            let path = entry.path();
            let cached = parse(&fs::read(&path).ok()?, network)?;
            Some(Cached { path, ..cached })
        })
        .collect()
}

fn parse(text: &[u8], network: &NetworkName) -> Option<Cached> {
    let value: Value = serde_json::from_slice(text).ok()?;
    let wire: Wire = json::from_value(&value).ok()?;
    if wire.kind != KIND || wire.network != network.as_str() {
        return None;
    }
    let id = AttachmentId {
        container: wire.container.as_str().try_into().ok()?,
        ifname: wire.ifname.as_str().try_into().ok()?,
    };
    let result = wire
        .result
        .and_then(|result| CniResult::from_json(&result, SpecVersion::LATEST).ok());
    let interfaces = result.iter().flat_map(|result| &result.interfaces);
    let (inside, outside): (Vec<_>, Vec<_>) =
        interfaces.partition(|interface| !interface.sandbox.is_empty());
    let sandboxes = inside.iter().map(|interface| interface.sandbox.as_str());
    let netns = sandboxes
        .chain([wire.netns.as_str()])
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect();
    let host_interfaces = outside.iter().map(|it| it.name.clone()).collect();
    Some(Cached {
        id,
        netns,
        host_interfaces,
        result,
        config: from_base64(&wire.config).filter(|config| !config.is_empty()),
        path: PathBuf::new(),
    })
}

/// The bytes that a text in base64 stands for (RFC 4648, section 4), as Go writes bytes in JSON.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| -> Option<u32> {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        Some(value.into())
    };
    let digits = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(digits.len() * 3 / 4);
    for group in digits.chunks(4) {
        let mut value = 0;
        for place in 0..4 {
            value = value << 6 | group.get(place).map_or(Some(0), |byte| digit(*byte))?;
        }
        let [_, decoded @ ..] = value.to_be_bytes();
        // Two digits make one byte, three make two.
        bytes.extend_from_slice(decoded.get(..group.len().checked_sub(1)?)?);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = r#"{"kind":"cniCacheV1","containerId":"c1","config":"e30=","ifName":"eth0","networkName":"net",
        "netns":"/run/netns/a","result":{"cniVersion":"1.0.0","interfaces":[{"name":"cni0"},{"name":"veth1"},
        {"name":"eth0","sandbox":"/run/netns/a"}]}}"#;

    fn read_one(text: &str) -> Option<Cached> {
        parse(text.as_bytes(), &"net".try_into().unwrap())
    }

    #[test]
    fn entries_of_old_and_new_releases_tell_the_namespace() {
        let old = NEW.replace(r#""netns":"/run/netns/a","#, "");
        for text in [NEW, &old] {
            let cached = read_one(text).unwrap();
            assert_eq!(cached.id.container.as_str(), "c1");
            assert_eq!(
                cached.netns.into_iter().collect::<Vec<_>>(),
                [Path::new("/run/netns/a")]
            );
            assert_eq!(cached.host_interfaces, ["cni0", "veth1"]);
        }
        let bare =
            read_one(r#"{"kind":"cniCacheV1","containerId":"c","ifName":"e","networkName":"net"}"#);
        assert!(bare.unwrap().netns.is_empty());
    }

    #[test]
    fn the_configuration_is_in_base64() {
        assert_eq!(read_one(NEW).unwrap().config.unwrap(), b"{}");
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9vYg==", b"foob"),
            ("+/8=", b"\xfb\xff"),
        ] {
            assert_eq!(from_base64(text).unwrap(), bytes, "{text}");
        }
        for bad in ["Zg=", "Z", "Zm9v!", "Z m8="] {
            assert!(
                from_base64(bad).is_none_or(|bytes| bytes.len() < 2),
                "{bad}"
            );
        }
    }

    #[test]
    fn what_is_no_entry_of_the_network_is_passed_over() {
        for bad in [
            "",
            "[]",
            "garbage",
            &NEW.replace("\"net\"", "\"net-2\""),
            &NEW.replace("cniCacheV1", "v2"),
            &NEW.replace("\"c1\"", "\"../c1\""),
        ] {
            assert!(read_one(bad).is_none(), "{bad}");
        }
    }
}
