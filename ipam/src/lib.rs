//! Address management for CNI: the `host-local` and `static` plugins.
