//! Measures how fast this machine decodes.

use std::io;

use super::coder::Decoder;
use super::covers::CoverMap;
use super::dense::{Dense, Output, Size};
use super::layout::Layout;

/// Decodes some kilobytes of noise as a frame of `dense`, and returns the number of bits that the
/// models have decoded: timing the call gives the speed of this machine.
pub fn decode_sample() -> u64 {
    const BYTES: u32 = 4096;
    struct Nowhere;
    impl Output for Nowhere {
        fn known(&self, _: u32) -> u8 {
            0
        }
        fn put(&mut self, _: u8) -> io::Result<()> {
            Ok(())
        }
    }
    let mut state = 1u32;
    let noise: Vec<u8> = (0..2 * BYTES)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let (layout, map) = (Layout::default(), CoverMap::default());
    let size = Size {
        log_buckets: 14,
        log_history: 20,
    };
    let mut dense = Dense::new(&layout, &[], &map, 0, size);
    let old: &[u8] = &[];
    // Nothing in this sample can fail.
    let _ = dense.range(&mut Decoder::new(&noise), &old, 0, BYTES, &mut Nowhere);
    u64::from(BYTES) * 8
}
