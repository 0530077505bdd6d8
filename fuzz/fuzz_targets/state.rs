#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| trestle_fuzz::bodies::state(data));
