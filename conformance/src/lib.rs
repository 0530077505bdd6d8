//! Black-box conformance tests: they execute binaries and look at the kernel with its own tools.
