//! `trestle`: one binary that is every plugin, by the name it is called with.

#![cfg_attr(not(test), no_main)]

/// musl's own returns memory to the kernel as soon as it can, and asks for it again.
#[cfg(all(target_env = "musl", not(test)))]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// What the C library calls; docs/decisions/own-main.md says why.
#[cfg(not(test))]
#[expect(
    unsafe_code,
    reason = "the C library knows it by this name, which no other function has"
)]
#[unsafe(no_mangle)]
extern "C" fn main(argc: std::ffi::c_int, argv: *const *const std::ffi::c_char) -> std::ffi::c_int {
    use plugins::{host, process::Process, registry};

    // SAFETY: so the C library calls it.
    unsafe { host::start::run(argc, argv, |args| Process::from_os(args).run(registry::ALL)) }
}
