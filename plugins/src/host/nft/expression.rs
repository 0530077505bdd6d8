//! What a rule says, read from the expressions that it is made of.

use super::Verdict;
use crate::host::netlink::attributes::{Attributes, text};

// Attributes from include/uapi/linux/netfilter/nf_tables.h and nf_tables_compat.h, verdicts from netfilter.h beside them.
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_MATCH_NAME: u16 = 1;
const NFTA_MATCH_INFO: u16 = 3;
const NFTA_TARGET_NAME: u16 = 1;
const NFT_REG_VERDICT: u32 = 0;
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_JUMP: i32 = -3;
const NFT_GOTO: i32 = -4;
const NFT_RETURN: i32 = -5;

/// The name of each expression and what it is told.
fn each<'a>(expressions: Attributes<'a>) -> impl Iterator<Item = (String, Attributes<'a>)> {
    let elements = expressions.filter(|(kind, _)| *kind == NFTA_LIST_ELEM);
    elements.map(|(_, expression)| {
        let expression = Attributes::new(expression);
        let name = expression.text(NFTA_EXPR_NAME).unwrap_or_default();
        (name, expression.nested(NFTA_EXPR_DATA))
    })
}

/// The verdict of a rule without conditions: nothing but counters, logging and comments stands in front of it.
pub(super) fn verdict(expressions: Attributes<'_>) -> Option<Verdict> {
    for (name, data) in each(expressions) {
        match name.as_str() {
            "counter" | "log" => {}
            "match" if is_comment(data) => {}
            "reject" => return Some(Verdict::Drop),
            // As iptables writes it.
            "target" if data.text(NFTA_TARGET_NAME).as_deref() == Some("REJECT") => {
                return Some(Verdict::Drop);
            }
            "immediate" if data.u32(NFTA_IMMEDIATE_DREG) == Some(NFT_REG_VERDICT) => {
                return immediate(data.nested(NFTA_IMMEDIATE_DATA).nested(NFTA_DATA_VERDICT));
            }
            _ => return None,
        }
    }
    None
}

/// The chains that a rule leads to, under whatever conditions; those in verdict maps left out.
pub(super) fn targets(expressions: Attributes<'_>) -> impl Iterator<Item = String> {
    let immediates = each(expressions).filter(|(name, _)| name == "immediate");
    immediates.filter_map(|(_, data)| {
        let verdict = data.nested(NFTA_IMMEDIATE_DATA).nested(NFTA_DATA_VERDICT);
        verdict.text(NFTA_VERDICT_CHAIN)
    })
}

fn immediate(verdict: Attributes<'_>) -> Option<Verdict> {
    let chain = || verdict.text(NFTA_VERDICT_CHAIN);
    match verdict.u32(NFTA_VERDICT_CODE)?.cast_signed() {
        NF_DROP => Some(Verdict::Drop),
        NF_ACCEPT => Some(Verdict::Accept),
        NFT_RETURN => Some(Verdict::Return),
        NFT_JUMP => chain().map(Verdict::Jump),
        NFT_GOTO => chain().map(Verdict::Goto),
        _ => None,
    }
}

/// The comment that iptables writes, which is a match that always fits.
pub(super) fn comment(expressions: Attributes<'_>) -> Option<String> {
    let mut matches = each(expressions).filter(|(name, data)| name == "match" && is_comment(*data));
    let (_, data) = matches.next()?;
    data.find(NFTA_MATCH_INFO).map(text)
}

fn is_comment(data: Attributes<'_>) -> bool {
    data.text(NFTA_MATCH_NAME).as_deref() == Some("comment")
}
