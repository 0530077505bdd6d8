//! rtnetlink's message builders, for what may be left out.

use rtnetlink::{LinkMessageBuilder, RouteMessageBuilder};

/// A builder that is told of a value only where there is one.
pub(super) trait With: Sized {
    /// Applies `set` to the value, if there is one.
    fn with<V>(self, value: Option<V>, set: impl FnOnce(Self, V) -> Self) -> Self {
        match value {
            Some(value) => set(self, value),
            None => self,
        }
    }

    /// Applies `set` if the condition holds.
    fn when(self, condition: bool, set: impl FnOnce(Self) -> Self) -> Self {
        self.with(condition.then_some(()), |builder, ()| set(builder))
    }
}

impl<T> With for LinkMessageBuilder<T> {}

impl<T> With for RouteMessageBuilder<T> {}
