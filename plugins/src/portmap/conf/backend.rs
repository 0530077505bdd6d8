//! The choice of a backend, and what only the one of iptables knows.

use cni_conf::error::{Code, Error};
use cni_conf::json::FieldError;

use super::{Wire, conditions};

/// The bit of the packet mark that says "to be masqueraded" in the iptables backend; the Go plugin's default.
const DEFAULT_MARK_BIT: u8 = 13;

/// Longest name of a chain that iptables takes (`XT_EXTENSION_MAXNAMELEN` without the terminating zero).
const CHAIN_MAX: usize = 28;

/// Who carries the rules out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Backend {
    /// Maps in the table `inet trestle`.
    Nftables,
    /// Chains in the `nat` tables of `iptables` and `ip6tables`.
    Iptables(IptablesSettings),
}

/// What only the iptables backend knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct IptablesSettings {
    /// How packets that are to be masqueraded are marked.
    pub(in super::super) mark: Mark,
    /// Matches that a packet must pass besides, as arguments of `iptables`.
    pub(in super::super) conditions_v4: Vec<String>,
    /// The same for `ip6tables`.
    pub(in super::super) conditions_v6: Vec<String>,
}

/// How packets are marked for masquerading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Mark {
    /// With this bit (0 to 31) of the packet mark, by a chain of our own.
    Bit(u8),
    /// By somebody else's chain, whose owner masquerades.
    ExternalChain(String),
}

/// The backend. Options that only iptables has choose it where nothing is said: they were written for the
/// reference, which would use it.
pub(super) fn read(wire: &Wire) -> Result<Backend, Error> {
    let iptables_only = iptables_only(wire);
    let foreign = [
        ("conditionsV4", &wire.conditions_v4),
        ("conditionsV6", &wire.conditions_v6),
    ]
    .into_iter()
    .find(|(_, words)| !is_iptables_style(words));
    if let Some((field, words)) = foreign {
        return Err(Error::new(
            Code::UnsupportedField,
            format!(
                "field \"{field}\": conditions in the language of nft are not supported (it is {words:?})"
            ),
        )
        .with_details(
            "port mappings are elements of maps that all networks share, so a condition of one network has no place: set \
             \"backend\" to \"iptables\" and write the condition as arguments of iptables, such as [\"!\", \"-d\", \"192.0.2.0/24\"]",
        ));
    }
    match (wire.backend.as_str(), iptables_only.as_slice()) {
        ("" | "nftables", []) => {
            mark(wire)?;
            Ok(Backend::Nftables)
        }
        ("nftables", options) => Err(Error::new(
            Code::UnsupportedField,
            format!(
                "\"backend\" is \"nftables\", but {} {} to the iptables backend alone",
                options.join(" and "),
                if options.len() == 1 {
                    "belongs"
                } else {
                    "belong"
                },
            ),
        )
        .with_details("remove that option, or set \"backend\" to \"iptables\"")),
        ("" | "iptables", _) => Ok(Backend::Iptables(IptablesSettings {
            mark: mark(wire)?,
            conditions_v4: conditions::read("conditionsV4", &wire.conditions_v4)?,
            conditions_v6: conditions::read("conditionsV6", &wire.conditions_v6)?,
        })),
        (other, _) => Err(FieldError::new(
            "backend",
            format_args!("{other:?}"),
            "the backends are \"nftables\" and \"iptables\"",
        )
        .into()),
    }
}

/// Options that are set and that nftables has nothing for. `markMasqBit` is not one: nftables needs no mark.
fn iptables_only(wire: &Wire) -> Vec<&'static str> {
    [
        (
            "\"externalSetMarkChain\"",
            wire.external_set_mark_chain.is_some(),
        ),
        ("\"conditionsV4\"", !wire.conditions_v4.is_empty()),
        ("\"conditionsV6\"", !wire.conditions_v6.is_empty()),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
    .collect()
}

/// No condition in the language of nft begins with a dash or an exclamation mark, every one of iptables does.
fn is_iptables_style(conditions: &[String]) -> bool {
    conditions
        .first()
        .is_none_or(|first| first.starts_with(['-', '!']))
}

fn mark(wire: &Wire) -> Result<Mark, Error> {
    let chain = wire.external_set_mark_chain.as_deref();
    match (chain, wire.mark_masq_bit) {
        (Some(_), Some(_)) => Err(Error::config(
            "\"externalSetMarkChain\" and \"markMasqBit\" can't both be set",
        )
        .with_details("remove \"markMasqBit\": the owner of the chain decides about the mark")),
        (Some(chain), None) => {
            let plain = |byte: u8| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')
            };
            let fits = (1..=CHAIN_MAX).contains(&chain.len());
            if fits && chain.bytes().all(plain) && !chain.starts_with('-') {
                return Ok(Mark::ExternalChain(chain.to_owned()));
            }
            Err(FieldError::new(
                "externalSetMarkChain",
                format_args!("{chain:?}"),
                "a chain's name has 1 to 28 letters, digits, '-', '_', '.' and ':' and does not begin with '-'",
            )
            .into())
        }
        (None, None) => Ok(Mark::Bit(DEFAULT_MARK_BIT)),
        (None, Some(bit)) => match u8::try_from(bit) {
            Ok(bit) if bit < 32 => Ok(Mark::Bit(bit)),
            _ => Err(FieldError::new("markMasqBit", bit, "a bit of the mark is 0 to 31").into()),
        },
    }
}
