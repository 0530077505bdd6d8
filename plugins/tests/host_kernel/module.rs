//! Kernel modules.

use plugins::host::{HostError, module};

use super::support::{Needs, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add("module_that_does_not_exist_is_named", Needs::Root, missing);
}

fn missing(_: &Sandbox) {
    let error = module::load("trestle-no-such-module").unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("load kernel module trestle-no-such-module: "),
        "{text}"
    );
    let expected = matches!(
        error,
        HostError::ProgramMissing { .. } | HostError::ProgramFailed { .. }
    );
    assert!(expected, "{error}");
}
