//! Which rules decide about every packet, read from the expressions a rule is made of.

use super::Verdict;
use crate::host::netlink::attributes::Attributes;

// Attributes from include/uapi/linux/netfilter/nf_tables.h, verdicts from netfilter.h beside it.
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFT_REG_VERDICT: u32 = 0;
const NF_DROP: i32 = 0;
const NF_ACCEPT: i32 = 1;
const NFT_JUMP: i32 = -3;
const NFT_GOTO: i32 = -4;
const NFT_RETURN: i32 = -5;

/// The verdict of a rule without conditions: nothing but counters and logging stands in front of it.
pub(super) fn of(expressions: Attributes<'_>) -> Option<Verdict> {
    for (_, expression) in expressions.filter(|(kind, _)| *kind == NFTA_LIST_ELEM) {
        let expression = Attributes::new(expression);
        let data = expression.nested(NFTA_EXPR_DATA);
        match expression.text(NFTA_EXPR_NAME).as_deref() {
            Some("counter" | "log") => {}
            Some("reject") => return Some(Verdict::Drop),
            Some("immediate") if data.u32(NFTA_IMMEDIATE_DREG) == Some(NFT_REG_VERDICT) => {
                return immediate(data.nested(NFTA_IMMEDIATE_DATA).nested(NFTA_DATA_VERDICT));
            }
            _ => return None,
        }
    }
    None
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
