//! Texts without what is different in every run.

/// A text with random names and MAC addresses replaced. A MAC address that a test asked for starts with
/// `02:00:00:` and stays.
pub(super) fn neutral(text: &str) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_word = false;
    while let Some(first) = rest.chars().next() {
        let found = if in_word { None } else { token(rest) };
        if let Some((length, replacement)) = found {
            done.push_str(replacement.unwrap_or(&rest[..length]));
            rest = &rest[length..];
            in_word = true;
        } else {
            done.push(first);
            rest = &rest[first.len_utf8()..];
            in_word = first.is_ascii_alphanumeric() || first == ':';
        }
    }
    done
}

/// Length and replacement of what a text starts with, if that is random.
fn token(text: &str) -> Option<(usize, Option<&'static str>)> {
    if is_mac(text) {
        let asked_for = text.starts_with("02:00:00:");
        return Some((17, (!asked_for).then_some("<mac>")));
    }
    let digits = text.strip_prefix("veth")?;
    let digits = digits.get(..8)?;
    let random = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    random.then_some((12, Some("<veth>")))
}

fn is_mac(text: &str) -> bool {
    let Some(text) = text.as_bytes().get(..17) else {
        return false;
    };
    text.iter().enumerate().all(|(index, byte)| {
        if index % 3 == 2 {
            *byte == b':'
        } else {
            byte.is_ascii_hexdigit()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::neutral;

    #[test]
    fn random_names_and_macs_are_replaced() {
        let text = "link veth0123abcd@if2 9a:5b:00:11:22:33 brd ff:ff:ff:ff:ff:ff";
        assert_eq!(neutral(text), "link <veth>@if2 <mac> brd <mac>");
        assert_eq!(
            neutral("02:00:00:00:00:07 veth veth0"),
            "02:00:00:00:00:07 veth veth0"
        );
        assert_eq!(neutral("fd00:1::2/64"), "fd00:1::2/64");
    }
}
