//! host-local alone, with few and with very many addresses allocated.

use std::fs;
use std::net::Ipv4Addr;

use conformance::{Host, host_local, ipam_network};

use crate::attach::{Clock, milliseconds};
use crate::process::Call;
use crate::stats::Series;
use crate::subject::Subject;

/// How many addresses are allocated already.
pub(crate) const LEVELS: [u32; 4] = [0, 1_000, 10_000, 60_000];

const SUBNET: &str = "10.64.0.0/16";
const FIRST: u32 = 0x0a40_0002;

/// What `allocated` addresses look like, on disk as both implementations write them.
pub(crate) fn prepare(allocated: u32) -> Host {
    let host = Host::new();
    host.enter(|| {
        let dir = "/var/lib/cni/networks/net";
        fs::create_dir_all(dir).expect("make the store");
        for number in 0..allocated {
            let address = Ipv4Addr::from(FIRST + number);
            let owner = format!("container-{number}\r\neth0");
            fs::write(format!("{dir}/{address}"), owner).expect("allocate an address");
            if number + 1 == allocated {
                let last = format!("{dir}/last_reserved_ip.0");
                fs::write(last, address.to_string()).expect("note the last address");
            }
        }
    });
    host
}

/// A series that allocates and releases one more address.
pub(crate) fn series<'a>(case: String, subject: &'a Subject, host: &'a Host) -> Series<'a> {
    let configuration = ipam_network(host_local(&[SUBNET])).to_string();
    let mut round = 0;
    Series::new(case, subject.who.name(), move || {
        round += 1;
        let call = |verb: &str| Call {
            command: vec![subject.bin.join("host-local")],
            env: vec![
                ("CNI_COMMAND", verb.to_owned()),
                ("CNI_CONTAINERID", format!("bench-{round}")),
                ("CNI_NETNS", "/run/netns/none".to_owned()),
                ("CNI_IFNAME", "eth0".to_owned()),
                ("CNI_PATH", subject.bin.to_string_lossy().into_owned()),
            ],
            stdin: configuration.clone().into_bytes(),
        };
        host.enter(|| {
            let mut figures = Vec::new();
            for verb in ["ADD", "DEL"] {
                let mut clock = Clock::default();
                clock.run(&call(verb))?.succeeded()?;
                figures.push((verb.to_owned(), milliseconds(clock.reset())));
            }
            Ok(figures)
        })
    })
}
