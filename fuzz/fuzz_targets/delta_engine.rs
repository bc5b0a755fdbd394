//! Arbitrary payloads of the engine, whole and behind their compression.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tidegate_fuzz::delta_engine::run(data));
