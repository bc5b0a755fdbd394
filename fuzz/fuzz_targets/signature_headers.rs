//! Arbitrary signed requests and join tokens.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::signature_headers::run(data));
