//! Devices of buses: which network interfaces they have, and what drives them.
//!
//! A sysfs shows the interfaces of the network namespace that it was mounted in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel lists PCI devices.
const PCI: &str = "/sys/bus/pci/devices";

/// Where it lists auxiliary devices, such as subfunctions of a network card.
const AUXILIARY: &str = "/sys/bus/auxiliary/devices";

/// What hands a device to a program that drives it by itself (DPDK).
const USERSPACE_DRIVERS: [&str; 3] = ["vfio-pci", "uio_pci_generic", "igb_uio"];

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    dir: PathBuf,
}

impl Device {
    /// The device with this name on the auxiliary or the PCI bus, such as `0000:00:1f.6`; none where neither has it. A name
    /// is never a path.
    pub fn on_a_bus(name: &str) -> Option<Self> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return None;
        }
        [AUXILIARY, PCI]
            .map(|bus| Self {
                dir: Path::new(bus).join(name),
            })
            .into_iter()
            .find(|device| device.dir.exists())
    }

    /// The device in this directory of sysfs.
    pub fn in_directory(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
        }
    }

    /// Whether a program drives it by itself, so that it has no interface.
    pub fn is_driven_by_a_program(&self) -> bool {
        let driver = fs::read_link(self.dir.join("driver"));
        let name = driver.ok().and_then(|path| {
            let name = path.file_name()?.to_str()?;
            Some(name.to_owned())
        });
        name.is_some_and(|name| USERSPACE_DRIVERS.contains(&name.as_str()))
    }

    /// The names of its interfaces, sorted. Those of a virtio device are one directory further down.
    ///
    /// # Errors
    /// What the file system says.
    pub fn interfaces(&self) -> io::Result<Vec<String>> {
        let mut names = names(&self.dir.join("net"))?;
        if names.is_empty() {
            for virtio in self::names(&self.dir)? {
                if virtio.starts_with("virtio") {
                    names.extend(self::names(&self.dir.join(virtio).join("net"))?);
                }
            }
        }
        names.sort();
        Ok(names)
    }
}

fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_no_paths() {
        for name in ["", ".", "..", "../../class/net/lo", "a/b", ".hidden"] {
            assert_eq!(Device::on_a_bus(name), None, "{name}");
        }
    }

    #[test]
    fn interfaces_of_virtio_are_one_directory_further() {
        let temp = tempfile::tempdir().unwrap();
        let interfaces = |dir: &str| Device::in_directory(&temp.path().join(dir)).interfaces();
        fs::create_dir_all(temp.path().join("card/net/eth1")).unwrap();
        fs::create_dir_all(temp.path().join("card/net/eth0")).unwrap();
        fs::create_dir_all(temp.path().join("virtual/virtio3/net/eth2")).unwrap();
        assert_eq!(interfaces("card").unwrap(), ["eth0", "eth1"]);
        assert_eq!(interfaces("virtual").unwrap(), ["eth2"]);
        assert!(interfaces("missing").unwrap().is_empty());
    }
}
