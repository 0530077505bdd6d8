//! `trestle`: one binary that is every plugin, by the name it is called with.

#![cfg_attr(not(test), no_main)]

/// What the C library calls; docs/decisions/own-main.md says why.
#[cfg(not(test))]
#[expect(
    unsafe_code,
    reason = "the C library knows it by this name, which no other function has"
)]
#[unsafe(no_mangle)]
extern "C" fn main() -> i32 {
    use plugins::{host, process::Process, registry};

    host::start::run(|| Process::from_os().run(registry::ALL))
}
