//! A figure and what it should be.

use serde_json::{Value, json};

use crate::number::number;

/// A ratio or figure with a limit.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) text: String,
    pub(crate) measured: Option<f64>,
    pub(crate) limit: Limit,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn met(&self) -> Option<bool> {
        Some(match self.limit {
            Limit::AtMost(limit) => self.measured? <= limit,
            Limit::AtLeast(limit) => self.measured? >= limit,
        })
    }

    pub(crate) fn line(&self) -> String {
        let limit = match self.limit {
            Limit::AtMost(limit) => format!("at most {limit}"),
            Limit::AtLeast(limit) => format!("at least {limit}"),
        };
        let verdict = match self.met() {
            Some(true) => "yes",
            Some(false) => "NO",
            None => "?",
        };
        let measured = self.measured.map_or_else(|| "-".to_owned(), number);
        format!("{verdict:<4}{:<68} {measured:>7}   {limit}", self.text)
    }

    pub(crate) fn json(&self) -> Value {
        let (bound, limit) = match self.limit {
            Limit::AtMost(limit) => ("at most", limit),
            Limit::AtLeast(limit) => ("at least", limit),
        };
        json!({
            "target": self.text, "measured": self.measured, "bound": bound, "limit": limit, "met": self.met()
        })
    }
}
