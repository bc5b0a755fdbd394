//! Arbitrary bytes in the place of each signed file.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::metadata::run(data));
