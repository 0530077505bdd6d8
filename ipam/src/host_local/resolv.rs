//! Reading a file in the format of resolv.conf(5).

use std::fs::File;
use std::io::Read;
use std::path::Path;

use cni_conf::result::Dns;

use crate::error::Error;

/// How much of the file is read, in bytes.
const READ_MAX: u64 = 1 << 20;

/// Reads the resolver settings of a file.
pub(super) fn read(path: &Path) -> Result<Dns, Error> {
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(READ_MAX).read_to_end(&mut text))
        .map_err(Error::io("read resolvConf", path))?;
    Ok(parse(&String::from_utf8_lossy(&text)))
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
