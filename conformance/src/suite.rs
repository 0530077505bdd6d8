//! The list of tests of one executable, run by libtest-mimic: a test that can't run here is listed as ignored,
//! with the reason where its kind is shown, and never counts as passed.

use std::process::ExitCode;
use std::sync::Arc;

use libtest_mimic::{Arguments, Trial};

use crate::lab::{Lab, Need, Subject};

type Test = Box<dyn FnOnce(&Lab) + Send>;

/// One test: a name that states the behaviour, and what shows it.
pub struct Case {
    name: String,
    test: Test,
    needs: Vec<Need>,
    only: Option<Subject>,
    slow: bool,
}

impl Case {
    /// A test of behaviour that every implementation shares.
    pub fn new(name: impl Into<String>, test: impl FnOnce(&Lab) + Send + 'static) -> Self {
        Self {
            name: name.into(),
            test: Box::new(test),
            needs: Vec::new(),
            only: None,
            slow: false,
        }
    }

    /// The same, named after its module, without the crate, as well.
    pub fn in_module(module: &str, name: &str, test: impl FnOnce(&Lab) + Send + 'static) -> Self {
        let module = module.split_once("::").map_or("", |(_, module)| module);
        let name = if module.is_empty() {
            name.to_owned()
        } else {
            format!("{module}::{name}")
        };
        Self::new(name, test)
    }

    /// A test of behaviour where trestle means to differ from the Go plugins.
    pub fn ours(mut self) -> Self {
        self.only = Some(Subject::Trestle);
        self
    }

    /// The same test, which takes a minute or more: it runs where `TRESTLE_FULL` is set.
    pub fn slow(mut self) -> Self {
        self.slow = true;
        self
    }

    /// The same test, which can't do without this.
    pub fn needs(mut self, need: Need) -> Self {
        self.needs.push(need);
        self
    }

    fn reason_to_skip(&self, lab: &Lab) -> Option<String> {
        if let Some(problem) = lab.problem() {
            return Some(problem.to_owned());
        }
        if self.only.is_some_and(|only| only != lab.subject) {
            return Some("trestle's own behaviour".to_owned());
        }
        if self.slow && std::env::var_os("TRESTLE_FULL").is_none() {
            return Some("takes a minute or more: set TRESTLE_FULL=1".to_owned());
        }
        self.needs.iter().find_map(|&need| lab.lacks(need))
    }

    fn into_trial(self, lab: &Arc<Lab>) -> Trial {
        let reason = self.reason_to_skip(lab);
        let (lab, test) = (Arc::clone(lab), self.test);
        testbed::trial(&self.name, reason, move || test(&lab))
    }
}

/// A [`Case`] named like the function that is its test.
#[macro_export]
macro_rules! case {
    ($test:ident) => {
        $crate::Case::in_module(module_path!(), stringify!($test), $test)
    };
}

/// Run the tests as the command line asks.
pub fn run(cases: Vec<Case>) -> ExitCode {
    let arguments = Arguments::from_args();
    let lab = Arc::new(Lab::open());
    let trials = cases
        .into_iter()
        .map(|case| case.into_trial(&lab))
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    // Not Conclusion::exit, which would leave the installed plugins lying about.
    drop(lab);
    conclusion.exit_code()
}
