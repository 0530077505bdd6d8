//! Names of domains as servers send them: for `resolv.conf`, so nothing but what a name consists of.

/// The longest name, in characters (RFC 1035, section 2.3.4).
const NAME_MAX: usize = 253;

/// The most jumps that a compressed name is followed by.
const JUMPS_MAX: usize = 16;

/// A name that was sent as text; none for what is no name.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let end = value.iter().rposition(|byte| *byte != 0)?;
    let text = std::str::from_utf8(&value[..=end]).ok()?;
    let text = text.trim_end_matches('.');
    is_name(text).then(|| text.to_owned())
}

fn is_name(text: &str) -> bool {
    let of_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_label =
        |label: &str| !label.is_empty() && label.len() < 64 && label.chars().all(of_name);
    text.len() <= NAME_MAX && text.split('.').all(is_label)
}

/// The names in a list of them as the DNS writes names, compressed within the list (RFC 3397). Those before the first that is
/// malformed.
pub(super) fn list(value: &[u8]) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < value.len() {
        let Some((name, next)) = name_at(value, at) else {
            break;
        };
        if is_name(&name) && !names.contains(&name) {
            names.push(name);
        }
        at = next;
    }
    names
}

/// The name that begins at a place, and where the next one does.
fn name_at(value: &[u8], start: usize) -> Option<(String, usize)> {
    let (mut name, mut at, mut next) = (String::new(), start, None);
    let mut jumps = 0;
    loop {
        match *value.get(at)? {
            0 => return Some((name, next.unwrap_or(at + 1))),
            high @ 0xc0.. => {
                next = next.or(Some(at + 2));
                at = usize::from(high & 0x3f) << 8 | usize::from(*value.get(at + 1)?);
                jumps += 1;
                if jumps > JUMPS_MAX {
                    return None;
                }
            }
            length @ 1..64 => {
                let end = at + 1 + usize::from(length);
                let label = std::str::from_utf8(value.get(at + 1..end)?).ok()?;
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(label);
                if name.len() > NAME_MAX {
                    return None;
                }
                at = end;
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_a_name_or_nothing() {
        assert_eq!(text(b"example.org.\0").as_deref(), Some("example.org"));
        assert_eq!(text(b"_x.a-b").as_deref(), Some("_x.a-b"));
        let long = format!("{}.org", "x".repeat(64));
        for bad in [
            &b""[..],
            b"\0",
            b".",
            b"a..b",
            b"a b",
            b"a\nnameserver",
            b"\xff",
            long.as_bytes(),
        ] {
            assert_eq!(text(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn loops_and_wrong_places_end_a_list() {
        assert_eq!(list(&[1, b'a', 0, 1, b'b', 0]), ["a", "b"]);
        assert_eq!(list(&[1, b'a', 0, 1, b'b', 0xc0, 0]), ["a", "b.a"]);
        // To itself, in a circle, beyond the end, cut off.
        for hostile in [
            &[0xc0, 0][..],
            &[1, b'a', 0xc0, 0],
            &[0xc0, 2, 0xc0, 0],
            &[0xff, 0xff],
            &[0xc0],
            &[5, b'a'],
            &[0x80, 0],
        ] {
            assert_eq!(list(hostile), Vec::<String>::new(), "{hostile:?}");
        }
        // A name that grows with each turn ends too.
        let mut grows = vec![63];
        grows.extend([b'x'; 63]);
        grows.extend([0xc0, 0]);
        assert_eq!(list(&grows), Vec::<String>::new());
    }
}
