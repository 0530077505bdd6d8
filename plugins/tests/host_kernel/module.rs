//! Kernel modules.

use plugins::host::{HostError, module};

use super::support::{Needs, Sandbox, Tests};

pub(crate) fn add(tests: &mut Tests) {
    tests.add(
        "module_that_does_not_exist_is_named_with_a_remedy",
        Needs::Root,
        missing,
    );
}

fn missing(_: &Sandbox) {
    let error = module::load("trestle-no-such-module").unwrap_err();
    assert!(matches!(error, HostError::Module { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with("load kernel module trestle-no-such-module: "),
        "{text}"
    );
    assert!(error.remedy().is_some());
}
