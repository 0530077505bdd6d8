//! The linker's part of a small release binary: relative relocations in their packed form (`DT_RELR`), which are 1 kB where
//! the plain ones are 110 kB, and no tables for unwinding, which are 400 kB.
//!
//! Both only where they were tried: on x86_64 with glibc, by rust-lld and GNU ld. Elsewhere the binary is larger.

use std::env;
use std::process::Command;

/// The first glibc whose start of a static position-independent program applies packed relocations (its NEWS for 2.36).
const FIRST: (u32, u32) = (2, 36);

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=no-unwind-tables.ld");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let release = is("PROFILE", "release");
    let native = env::var("HOST").ok() == env::var("TARGET").ok();
    let known = is("CARGO_CFG_TARGET_ENV", "gnu") && is("CARGO_CFG_TARGET_ARCH", "x86_64");
    if !(release && native && known) {
        return;
    }
    if applies_packed() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    if let Ok(dir) = env::var("CARGO_MANIFEST_DIR") {
        println!("cargo::rustc-link-arg-bins=-Wl,--no-eh-frame-hdr");
        println!("cargo::rustc-link-arg-bins=-T{dir}/no-unwind-tables.ld");
    }
}

/// Whether the C library that is linked in knows them; a program whose own does not would crash as it starts.
fn applies_packed() -> bool {
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let Ok(output) = output else { return false };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    version(&text).is_some_and(|version| version >= FIRST)
}

/// The numbers of `glibc 2.36`.
fn version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.trim().strip_prefix("glibc ")?.split_once('.')?;
    let minor = minor.split('.').next()?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
