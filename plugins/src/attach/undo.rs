//! Undoing what a failed ADD did.

use cni_conf::error::Error;

/// One step back.
type Step<'a> = Box<dyn FnOnce() -> Result<(), Error> + 'a>;

/// Steps back, registered before the steps they undo, so that a half-done step is undone too.
#[derive(Default)]
pub struct Undo<'a> {
    steps: Vec<Step<'a>>,
}

impl<'a> Undo<'a> {
    /// Registers a step back. It must succeed when its step never happened.
    pub fn push(&mut self, step: impl FnOnce() -> Result<(), Error> + 'a) {
        self.steps.push(Box::new(step));
    }

    /// Runs `work`; if it fails, takes all steps back, last first, and tells in the error's details what of that
    /// failed.
    pub fn guard<T>(work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let mut undo = Self::default();
        work(&mut undo).map_err(|error| undo.roll_back(error))
    }

    fn roll_back(self, error: Error) -> Error {
        self.steps
            .into_iter()
            .rev()
            .fold(error, |error, step| match step() {
                Ok(()) => error,
                Err(left) => error.with_details(format!("left behind: {left}")),
            })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn a_failure_takes_the_steps_back_in_reverse_order() {
        let log = RefCell::new(Vec::new());
        let error = Undo::guard(|undo| {
            undo.push(|| {
                log.borrow_mut().push(1);
                Ok(())
            });
            undo.push(|| {
                log.borrow_mut().push(2);
                Err(Error::config("veth stays"))
            });
            Err::<(), _>(Error::config("boom"))
        })
        .unwrap_err();
        assert_eq!(*log.borrow(), [2, 1]);
        assert_eq!(
            (error.msg.as_str(), error.details.as_str()),
            ("boom", "left behind: veth stays")
        );
    }

    #[test]
    fn success_takes_nothing_back() {
        let kept = Undo::guard(|undo| {
            undo.push(|| panic!("not to be run"));
            Ok(7)
        });
        assert_eq!(kept, Ok(7));
    }
}
