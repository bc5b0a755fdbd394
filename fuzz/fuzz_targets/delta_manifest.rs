//! Arbitrary manifests, and arbitrary payloads under honest manifests.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::delta_manifest::run(data));
