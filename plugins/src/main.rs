//! `trestle`: one binary, many plugin names.

fn main() {}
