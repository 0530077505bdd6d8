//! Figures as text.

/// Three digits that matter.
pub(crate) fn number(value: f64) -> String {
    let decimals = match value.abs() {
        large if large >= 100.0 || large.fract() == 0.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}
