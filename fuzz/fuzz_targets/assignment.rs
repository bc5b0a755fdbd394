//! Arbitrary bytes in the place of an assignment.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::assignment::run(data));
