//! Reading a file in the format of resolv.conf(5).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use cni_conf::result::Dns;
use nix::fcntl::OFlag;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use crate::error::Error;

/// How large the file may be, in bytes. The C library's limits are far below.
const SIZE_MAX: u64 = 1 << 20;

/// Reads the resolver settings of a file.
pub(super) fn read(path: &Path) -> Result<Dns, Error> {
    let text = read_regular(path).map_err(Error::io("read resolvConf", path))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
}

/// The content of a regular file. Others may have no end, or wait for somebody who writes; opening must not wait either.
fn read_regular(path: &Path) -> io::Result<Vec<u8>> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let mut options = File::options();
    let file = options.read(true).custom_flags(flags.bits()).open(path)?;
    // What procfs calls regular may wait, or be gone once it was read (kmsg).
    let in_procfs = fstatfs(&file).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC);
    if !file.metadata()?.is_file() || in_procfs {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > SIZE_MAX {
        return Err(io::Error::other("it has more than 1 MiB"));
    }
    Ok(text)
}

/// Lines of other keywords, without a value, and comments count for nothing.
fn parse(text: &str) -> Dns {
    let mut dns = Dns::default();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        let keyword = words.next();
        match keyword.as_deref() {
            Some("nameserver") => dns.nameservers.extend(words.next()),
            Some("domain") => dns.domain = words.next().unwrap_or(dns.domain),
            Some("search") => dns.search.extend(words),
            Some("options") => dns.options.extend(words),
            _ => {}
        }
    }
    dns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keywords_are_collected_and_everything_else_is_passed_over() {
        let dns = parse(
            "# nameserver 9.9.9.9\n; a comment\nnameserver 10.0.0.1 ignored\n nameserver\tfd00::1\n\
             nameserver\ndomain one\ndomain two\ndomain\nsearch a b\nsearch c\noptions ndots:2 edns0\nfamily inet\n",
        );
        assert_eq!(dns.nameservers, ["10.0.0.1", "fd00::1"]);
        assert_eq!(dns.domain, "two");
        assert_eq!(dns.search, ["a", "b", "c"]);
        assert_eq!(dns.options, ["ndots:2", "edns0"]);
    }

    #[test]
    fn what_is_no_regular_file_or_too_large_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let fifo = dir.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let (zero, log) = (Path::new("/dev/zero"), Path::new("/proc/self/mounts"));
        for path in [&fifo, zero, log, dir.path()] {
            let error = read(path).unwrap_err().to_string();
            assert!(error.ends_with("not a regular file"), "{error}");
        }
        let large = dir.path().join("large");
        File::create(&large).unwrap().set_len(SIZE_MAX + 1).unwrap();
        assert!(read(&large).unwrap_err().to_string().contains("1 MiB"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = read(Path::new("/nonexistent/resolv.conf"))
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "read resolvConf /nonexistent/resolv.conf: No such file or directory"
        );
    }
}
