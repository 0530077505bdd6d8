//! Following a packet through chains of rules, without knowing everything about it.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// How deep chains may call each other; the kernel allows 16 (`NFT_JUMP_STACK_SIZE`).
const DEPTH: u32 = 16;

/// What is known of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packet<'a> {
    /// Where it comes in; unknown where there is no default route.
    pub(super) iif: Option<&'a str>,
    /// Where it goes out.
    pub(super) oif: Option<&'a str>,
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    /// What connection tracking thinks of it, in small letters.
    pub(super) state: &'a str,
}

/// Whether a rule is about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    No,
    Unknown,
    Yes,
}

impl Fit {
    pub(super) fn negated_if(self, negated: bool) -> Self {
        match self {
            Self::No if negated => Self::Yes,
            Self::Yes if negated => Self::No,
            other => other,
        }
    }
}

impl From<bool> for Fit {
    fn from(fits: bool) -> Self {
        if fits { Self::Yes } else { Self::No }
    }
}

/// What a rule does with a packet that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Accept,
    Drop,
    Return,
    Jump(String),
    Goto(String),
    /// Something that decides nothing, such as counting.
    Next,
}

/// A condition of a rule, asked about a packet.
pub(super) type Condition = Box<dyn Fn(&Packet<'_>) -> Fit>;

/// A rule: all conditions together, and what then.
pub(super) struct Rule {
    pub(super) conditions: Vec<Condition>,
    pub(super) target: Target,
}

/// The chains of a table.
#[derive(Default)]
pub(super) struct Ruleset {
    pub(super) chains: BTreeMap<String, Vec<Rule>>,
    /// The chains that drop what no rule decides about.
    pub(super) dropping: Vec<String>,
}

/// How a chain ended for a packet.
#[derive(PartialEq, Eq)]
enum End {
    Accept,
    Drop,
    /// It goes on behind the rule that led here.
    Back,
}

impl Ruleset {
    /// Whether the policy of a chain is to drop.
    pub(super) fn drops(&self, chain: &str) -> bool {
        self.dropping.iter().any(|name| name == chain)
    }

    /// Whether base chain `chain` surely drops the packet.
    pub(super) fn surely_drops(&self, chain: &str, packet: &Packet<'_>) -> bool {
        let mut may_pass = false;
        let end = self.follow(chain, packet, DEPTH, &mut may_pass);
        let stopped = match end {
            End::Accept => false,
            End::Drop => true,
            End::Back => self.drops(chain),
        };
        stopped && !may_pass
    }

    /// Follows the packet through a chain. Sets `may_pass` when a rule that may be about it might lead to
    /// its acceptance.
    fn follow(&self, chain: &str, packet: &Packet<'_>, depth: u32, may_pass: &mut bool) -> End {
        let Some(rules) = self.chains.get(chain).filter(|_| depth > 0) else {
            // A chain that is not known might do anything.
            *may_pass = true;
            return End::Back;
        };
        for rule in rules {
            let fit = rule
                .conditions
                .iter()
                .map(|fits| fits(packet))
                .min()
                .unwrap_or(Fit::Yes);
            if fit == Fit::No {
                continue;
            }
            let end = match &rule.target {
                Target::Accept => End::Accept,
                Target::Drop => End::Drop,
                Target::Return => End::Back,
                Target::Jump(to) | Target::Goto(to) => self.follow(to, packet, depth - 1, may_pass),
                Target::Next => continue,
            };
            let leaves = matches!(rule.target, Target::Return | Target::Goto(_));
            match (end, fit) {
                (End::Accept, Fit::Unknown) => *may_pass = true,
                // A return that is only possible is not taken: what follows may still accept.
                (End::Back, Fit::Yes) if leaves => return End::Back,
                (End::Back, _) | (_, Fit::Unknown) => {}
                (end, _) => return end,
            }
        }
        End::Back
    }
}

/// Whether an interface's name is the one of a rule, in which `+` or `*` at the end stands for any rest.
/// An interface that is not known is none that a rule names.
pub(super) fn interface_fits(name: Option<&str>, pattern: &str) -> Fit {
    let fits = |name: &str| match pattern.strip_suffix(['+', '*']) {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    };
    name.is_some_and(fits).into()
}
