//! What a runtime remembers of attachments: the cache of libcni, which containerd, CRI-O and cnitool keep.
//!
//! `results/NETWORK-CONTAINERID-IFNAME` under the cache's directory is written after ADD of the whole list and
//! removed after DEL of the whole list (libcni/api.go). It is JSON: `kind` is `cniCacheV1`, then `networkName`,
//! `containerId`, `ifName`, `config` (the list in base64), `cniArgs`, `capabilityArgs`, `result` as the last plugin
//! printed it, and in newer releases `netns`. Older ones tell the namespace only as the `sandbox` of interfaces in the
//! result.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

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
    #[serde(default, rename = "cniArgs")]
    args: Vec<(String, String)>,
    #[serde(default, rename = "capabilityArgs")]
    capabilities: Value,
    result: Option<Value>,
}

/// An attachment that a runtime has made and not undone.
#[derive(Debug)]
pub(crate) struct Cached {
    pub(crate) network: NetworkName,
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
    /// The pairs of CNI_ARGS.
    pub(crate) args: Vec<(String, String)>,
    /// What the runtime asked for by capability: `portMappings` and others.
    pub(crate) capabilities: Value,
    /// When ADD ended.
    pub(crate) since: Option<SystemTime>,
}

impl Cached {
    /// The value of a pair of CNI_ARGS.
    pub(crate) fn arg(&self, key: &str) -> Option<&str> {
        let pair = self.args.iter().find(|(name, _)| name == key);
        pair.map(|(_, value)| value.as_str())
    }
}

/// Everything that a runtime remembers.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    /// The entries, in the order of their files' names.
    pub(crate) entries: Vec<Cached>,
    /// Files that are no entries, and why.
    pub(crate) unreadable: Vec<(PathBuf, String)>,
}

/// The entries of a network. What can't be read as one is passed over: nothing is concluded from its absence.
pub(crate) fn read(dir: &Path, network: &NetworkName) -> Vec<Cached> {
    let prefix = format!("{network}-");
    let mut entries = read_all(dir, &|name| name.starts_with(&prefix))
        .unwrap_or_default()
        .entries;
    entries.retain(|entry| entry.network == *network);
    entries
}

/// The entries whose files' names `wanted` says so of.
///
/// # Errors
/// Where a directory that is there can't be read.
pub(crate) fn read_all(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Cache, String> {
    let results = dir.join("results");
    let entries = match fs::read_dir(&results) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Cache::default()),
        Err(error) => return Err(format!("read {}: {error}", results.display())),
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| wanted(&name_of(path)));
    paths.sort();
    let mut cache = Cache::default();
    for path in paths {
        match read_file(&path) {
            Ok(Some(cached)) => cache.entries.push(cached),
            Ok(None) => {}
            Err(problem) => cache.unreadable.push((path, problem)),
        }
    }
    Ok(cache)
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// One entry; none where there is no such file any more.
fn read_file(path: &Path) -> Result<Option<Cached>, String> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    if !found.is_file() {
        return Err("it is no file".into());
    }
    if found.len() > SIZE_MAX {
        return Err(format!("it is larger than {SIZE_MAX} bytes"));
    }
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let mut cached = parse(&text)?;
    let name = format!(
        "{}-{}-{}",
        cached.network, cached.id.container, cached.id.ifname
    );
    if name != name_of(path) {
        return Err(format!("it says that it is {name}"));
    }
    cached.path = path.to_owned();
    cached.since = found.modified().ok();
    Ok(Some(cached))
}

fn parse(text: &[u8]) -> Result<Cached, String> {
    let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    let wire: Wire = json::from_value(&value).map_err(|error| error.to_string())?;
    if wire.kind != KIND {
        return Err(format!("it is of kind {:?}, not {KIND}", wire.kind));
    }
    let name = |error: cni_conf::names::NameError| error.to_string();
    let id = AttachmentId {
        container: wire.container.as_str().try_into().map_err(name)?,
        ifname: wire.ifname.as_str().try_into().map_err(name)?,
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
    Ok(Cached {
        network: wire.network.as_str().try_into().map_err(name)?,
        id,
        netns,
        host_interfaces,
        result,
        config: from_base64(&wire.config).filter(|config| !config.is_empty()),
        path: PathBuf::new(),
        args: wire.args,
        capabilities: wire.capabilities,
        since: None,
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
        "netns":"/run/netns/a","cniArgs":[["K8S_POD_NAME","web"]],"capabilityArgs":{"portMappings":[]},
        "result":{"cniVersion":"1.0.0","interfaces":[{"name":"cni0"},{"name":"veth1"},
        {"name":"eth0","sandbox":"/run/netns/a"}]}}"#;

    #[test]
    fn entries_of_old_and_new_releases_tell_the_namespace() {
        let old = NEW.replace(r#""netns":"/run/netns/a","#, "");
        for text in [NEW, &old] {
            let cached = parse(text.as_bytes()).unwrap();
            assert_eq!(cached.id.container.as_str(), "c1");
            assert_eq!(cached.arg("K8S_POD_NAME"), Some("web"));
            assert_eq!(cached.host_interfaces, ["cni0", "veth1"]);
            assert_eq!(
                cached.netns.into_iter().collect::<Vec<_>>(),
                [Path::new("/run/netns/a")]
            );
        }
        let bare = br#"{"kind":"cniCacheV1","containerId":"c","ifName":"e","networkName":"net"}"#;
        assert!(parse(bare).unwrap().netns.is_empty());
    }

    #[test]
    fn the_configuration_is_in_base64() {
        assert_eq!(parse(NEW.as_bytes()).unwrap().config.unwrap(), b"{}");
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
    fn what_is_no_entry_is_told_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let results = dir.path().join("results");
        fs::create_dir(&results).unwrap();
        for (name, text) in [
            ("net-c1-eth0", NEW),
            ("net-a-eth0", ""),
            ("net-b-eth0", "[]"),
            ("net-c-eth0", NEW),
            ("net-d-eth0", &NEW.replace("cniCacheV1", "v2")),
            ("net-e-eth0", &NEW.replace("\"c1\"", "\"../c1\"")),
            ("other-f-eth0", &NEW.replace("\"net\"", "\"../net\"")),
        ] {
            fs::write(results.join(name), text).unwrap();
        }
        fs::create_dir(results.join("net-g-eth0")).unwrap();
        let cache = read_all(dir.path(), &|_| true).unwrap();
        assert_eq!(cache.entries.len(), 1);
        assert_eq!(cache.unreadable.len(), 7, "{:?}", cache.unreadable);
        let lie = &cache.unreadable[2];
        assert!(lie.1.contains("net-c1-eth0"), "{lie:?}");
        let net = "net".try_into().unwrap();
        assert_eq!(read(dir.path(), &net).len(), 1);
        assert!(read(&dir.path().join("missing"), &net).is_empty());
    }
}
