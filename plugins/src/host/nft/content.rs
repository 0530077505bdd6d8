//! What a rule consists of, as bytes that can be compared.

use crate::host::netlink::attributes::Attributes;

// Attributes from include/uapi/linux/netfilter/nf_tables.h.
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_LOOKUP_SET: u16 = 1;

/// The expressions of a rule, without what changes by itself: counters, and the numbers that the kernel gives to sets
/// without a name (`__set0`).
pub(super) fn of(expressions: Attributes<'_>) -> Vec<u8> {
    let mut content = Vec::new();
    for (_, expression) in expressions.filter(|(kind, _)| *kind == NFTA_LIST_ELEM) {
        let expression = Attributes::new(expression);
        let name = expression.text(NFTA_EXPR_NAME).unwrap_or_default();
        push(&mut content, name.as_bytes());
        match name.as_str() {
            "counter" => {}
            "lookup" => lookup(&mut content, expression.nested(NFTA_EXPR_DATA)),
            _ => push(
                &mut content,
                expression.find(NFTA_EXPR_DATA).unwrap_or_default(),
            ),
        }
    }
    content
}

fn lookup(content: &mut Vec<u8>, attributes: Attributes<'_>) {
    for (kind, value) in attributes {
        let nameless = kind == NFTA_LOOKUP_SET && value.starts_with(b"__");
        content.extend(kind.to_be_bytes());
        push(content, if nameless { b"__" } else { value });
    }
}

/// With its length, so that two fields can't be taken for others.
fn push(content: &mut Vec<u8>, field: &[u8]) {
    content.extend((field.len() as u64).to_be_bytes());
    content.extend_from_slice(field);
}
