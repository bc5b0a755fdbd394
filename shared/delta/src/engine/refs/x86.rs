//! References of x86-64 instructions.

use super::super::layout::Space;
use super::{Form, Reference, u32_at};

/// Number of bytes of an immediate after the displacement, for the opcodes that have one.
fn immediate(opcode: u8, two: bool, modrm: u8, wide_prefix: bool) -> u8 {
    let reg = (modrm >> 3) & 7;
    if two {
        return match opcode {
            0xA4 | 0xAC | 0xBA | 0xC2 | 0xC4 | 0xC5 | 0xC6 | 0x70..=0x73 => 1,
            _ => 0,
        };
    }
    match opcode {
        0x80 | 0x83 | 0x6B | 0xC0 | 0xC1 | 0xC6 => 1,
        0xF6 if reg < 2 => 1,
        0x81 | 0x69 | 0xC7 => 4 - 2 * u8::from(wide_prefix),
        0xF7 if reg < 2 => 4 - 2 * u8::from(wide_prefix),
        _ => 0,
    }
}

/// Returns whether a one-byte opcode takes a ModRM byte, as far as compilers use them.
fn has_modrm(opcode: u8) -> bool {
    matches!(opcode,
        0x00..=0x03 | 0x08..=0x0B | 0x10..=0x13 | 0x18..=0x1B | 0x20..=0x23 | 0x28..=0x2B
        | 0x30..=0x33 | 0x38..=0x3B | 0x63 | 0x69 | 0x6B | 0x80 | 0x81 | 0x83..=0x8B | 0x8D
        | 0xC0 | 0xC1 | 0xC6 | 0xC7 | 0xD0..=0xD3 | 0xD8..=0xDF | 0xF6 | 0xF7 | 0xFE | 0xFF)
}

/// See [`super::find`].
pub(super) fn x86(
    bytes: &[u8],
    at: usize,
    offset: u32,
    end: u32,
    space: &Space,
) -> Option<Reference> {
    if end - offset < 4 || at < 4 {
        return None;
    }
    let (b1, b2, b3, b4) = (bytes[at - 1], bytes[at - 2], bytes[at - 3], bytes[at - 4]);
    let tail = if b1 & 0xFE == 0xE8 || (b2 == 0x0F && b1 & 0xF0 == 0x80) {
        0
    } else if b1 & 0xC7 == 0x05 {
        if b3 == 0x0F || (b4 == 0x0F && (b3 == 0x38 || b3 == 0x3A)) {
            immediate(b2, true, b1, false) | u8::from(b3 == 0x3A)
        } else if has_modrm(b2) {
            immediate(b2, false, b1, b3 == 0x66 || b4 == 0x66)
        } else if b4 == 0xC5 || at >= 6 && (bytes[at - 5] == 0xC4 || bytes[at - 6] == 0x62) {
            // VEX, EVEX: the opcode follows the prefix.
            0
        } else {
            return None;
        }
    } else {
        return None;
    };
    let here = space.address_of(offset)?;
    let value = i64::from(u32_at(bytes, at) as i32);
    let to = space.offset_of(
        here.wrapping_add(4 + u64::from(tail))
            .wrapping_add_signed(value),
    )?;
    Some(Reference {
        form: Form::Rel32 { tail },
        to,
    })
}
