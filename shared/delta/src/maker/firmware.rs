//! Images without a header that `object` knows: microcontroller firmware, Linux kernels.

use std::collections::BTreeSet;

use super::analyse::{Executable, Part, Shape};
use crate::engine::layout::{Kind, Segment};

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A Cortex-M image: it begins with the vector table. Its address is not in it; the right one
/// makes the most pointers lead to the begin of a function.
pub(crate) fn cortex_m(bytes: &[u8], start: u32, out: &mut Executable) -> bool {
    if bytes.len() < 1024 || bytes.len() > 64 << 20 {
        return false;
    }
    let (Some(stack), Some(reset)) = (word(bytes, 0), word(bytes, 4)) else {
        return false;
    };
    let handlers: Vec<u32> = (1..16).filter_map(|i| word(bytes, 4 * i)).collect();
    let plausible = handlers
        .iter()
        .filter(|&&h| h == 0 || (h & 1 == 1 && h.abs_diff(reset) < bytes.len() as u32))
        .count();
    if !(0x1000_0000..0x4000_0000).contains(&stack)
        || stack % 4 != 0
        || reset & 1 == 0
        || plausible < 12
    {
        return false;
    }
    let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    // PUSH with LR, in two bytes or four.
    let begins: BTreeSet<u32> = (0..bytes.len() / 2)
        .map(|i| 2 * i)
        .filter(|&at| match half(at) {
            Some(0xE92D) => half(at + 2).is_some_and(|h| h & 0x4000 != 0),
            Some(h) => h >> 8 == 0xB5,
            None => false,
        })
        .map(|at| at as u32)
        .collect();
    let pointers: Vec<u32> = (0..bytes.len() / 4)
        .filter_map(|i| word(bytes, 4 * i))
        .filter(|w| w & 1 == 1 && w.abs_diff(reset) < bytes.len() as u32)
        .take(4000)
        .collect();
    let mut best = (0usize, 0u32);
    let lowest = reset.saturating_sub(bytes.len() as u32).max(0x100);
    let mut base = reset & !0xFF;
    while base >= lowest {
        let score = pointers
            .iter()
            .filter(|&&p| p > base && begins.contains(&(p - 1 - base)))
            .count();
        if score > best.0 {
            best = (score, base);
        }
        base -= 0x100;
    }
    if best.0 < 8 {
        return false;
    }
    out.space.segments.push(Segment {
        offset: start,
        length: bytes.len() as u32,
        address: u64::from(best.1),
    });
    out.parts.push(Part {
        name: "flash".to_owned(),
        start,
        end: start + bytes.len() as u32,
        shape: Shape::Simple(Kind::Thumb),
    });
    true
}

/// An ARM64 Linux `Image`: its header says `ARM\x64`. All that matters is relative.
pub(crate) fn arm64_kernel(bytes: &[u8], start: u32, out: &mut Executable) -> bool {
    if bytes.get(56..60) != Some(b"ARM\x64") {
        return false;
    }
    out.space.segments.push(Segment {
        offset: start,
        length: bytes.len() as u32,
        address: 0xFFFF_8000_0800_0000,
    });
    out.parts.push(Part {
        name: "image".to_owned(),
        start,
        end: start + bytes.len() as u32,
        shape: Shape::Simple(Kind::Arm64),
    });
    true
}
