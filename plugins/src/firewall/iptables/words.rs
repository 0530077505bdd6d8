//! Rules as iptables writes them: the words behind `-A CHAIN`.

pub(super) use crate::netfilter::iptables::after;

/// A rule.
pub(super) type Words = Vec<String>;

pub(super) fn jump(comment: &str, chain: &str) -> Words {
    rule(&[], comment, &format!("-j {chain}"))
}

pub(super) fn rule(first: &[&str], comment: &str, rest: &str) -> Words {
    let mut words: Words = first.iter().map(|word| (*word).to_owned()).collect();
    words.extend(["-m", "comment", "--comment", comment].map(str::to_owned));
    words.extend(rest.split(' ').map(str::to_owned));
    words
}

/// The words of a rule, in an order of ours.
pub(super) fn sorted(rule: &[String]) -> Words {
    let mut words = rule.to_vec();
    words.sort();
    words
}

/// Whether a rule has no condition, but for its comment.
pub(super) fn is_about_everything(rule: &Words) -> bool {
    let mut words = rule.iter().map(String::as_str);
    loop {
        match words.next() {
            None | Some("-j" | "-g") => return true,
            Some("-m") if words.next() == Some("comment") => {}
            Some("--comment") => drop(words.next()),
            Some(_) => return false,
        }
    }
}

pub(super) fn comment(rule: &Words) -> Option<&str> {
    after(rule, "--comment")
}

pub(super) fn target(rule: &Words) -> Option<&str> {
    after(rule, "-j").or_else(|| after(rule, "-g"))
}

/// Whether a comment is that of an owner: `network/containerID/ifname`, which has no blanks.
pub(super) fn is_owner(comment: &str) -> bool {
    comment.contains('/') && !comment.contains(' ')
}

/// A line for `iptables-restore`.
pub(super) fn line(verb: &str, chain: &str, rule: &[String]) -> String {
    let quoted = rule.iter().map(|word| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./#:@+~!,".contains(c);
        match !word.is_empty() && word.chars().all(plain) {
            true => word.clone(),
            false => format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    });
    let mut words = vec![verb.to_owned(), chain.to_owned()];
    words.extend(quoted);
    words.join(" ")
}
