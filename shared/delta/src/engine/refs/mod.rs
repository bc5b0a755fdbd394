//! References: finding them in old bytes, reading what they refer to, and writing them anew.
//!
//! Finding depends on nearby bytes and on addresses alone, so that a copy may begin anywhere. A
//! false find costs little: the model learns how often predictions hold.

mod arm;
mod write;
mod x86;

pub(crate) use write::{absolute, read, write};

use super::layout::{Field, Kind, Record, Region, Space};
use arm::{arm, arm64, thumb};
use x86::x86;

/// Encoding of a reference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// 32-bit distance from the end of an x86-64 instruction, which is `tail` bytes after the
    /// field.
    Rel32 { tail: u8 },
    /// AArch64 `B`, `BL`: 26 bits of words.
    Branch26,
    /// AArch64 `B.cond`, `CBZ`, `LDR` (literal): 19 bits of words.
    Branch19,
    /// AArch64 `ADR`: 21 bits.
    Adr,
    /// AArch64 `ADRP`: pages.
    Page,
    /// AArch64 `ADD`: the low 12 bits of an address.
    Low12,
    /// AArch64 `LDR`, `STR`: the low 12 bits, in units of 2^scale bytes.
    Low12Scaled { scale: u8 },
    /// Thumb-2 `BL`, `B.W`.
    ThumbBranch,
    /// ARM `B`, `BL`: 24 bits of words.
    ArmBranch,
    /// A 32-bit pointer, to which a base is added.
    Abs32 { old_base: u64, new_base: u64 },
    /// A 64-bit pointer, to which a base is added.
    Abs64 { old_base: u64, new_base: u64 },
    /// A 32-bit distance from the field itself.
    Self32,
    /// A 32-bit number that names something; [`NUMBER`] is added to it to tell it from offsets.
    Number,
}

/// Bit that tells names from offsets, which are smaller.
pub(crate) const NUMBER: u32 = 1 << 31;
/// Numbers that are treated as names: smaller ones are counts, larger ones flags.
const NUMBERS: std::ops::Range<u32> = 256..1 << 24;

/// A reference in old bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) form: Form,
    /// Offset in the old image that it refers to, possibly virtual.
    pub(crate) to: u32,
}

impl Form {
    /// Width in bytes.
    pub(crate) fn width(self) -> usize {
        match self {
            Form::Abs64 { .. } => 8,
            _ => 4,
        }
    }

    /// Small number for contexts.
    pub(crate) fn index(self) -> u32 {
        match self {
            Form::Rel32 { .. } => 0,
            Form::Branch26 => 1,
            Form::Branch19 => 2,
            Form::Adr => 3,
            Form::Page => 4,
            Form::Low12 => 5,
            Form::Low12Scaled { .. } => 6,
            Form::ThumbBranch => 7,
            Form::ArmBranch => 8,
            Form::Abs32 { .. } => 9,
            Form::Abs64 { .. } => 10,
            Form::Self32 => 11,
            Form::Number => 12,
        }
    }
}

/// Number of bytes before and after a position that the search for references looks at.
pub(crate) const BEFORE: usize = 72;
/// See [`BEFORE`].
pub(crate) const AFTER: usize = 72;

fn u16_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 2)
        .map_or(0, |b| u32::from(u16::from_le_bytes([b[0], b[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn sign(value: u32, bits: u32) -> i64 {
    i64::from((value << (32 - bits)) as i32 >> (32 - bits))
}

/// Returns whether a reference could begin at `bytes[at]`: a cheap check that spares most of the search.
#[inline]
pub(crate) fn may_begin(bytes: &[u8], at: usize, inside: u32, kind: Kind) -> bool {
    match kind {
        Kind::Plain | Kind::Text => false,
        Kind::X86 => {
            let (b1, b2) = (bytes[at - 1], bytes[at - 2]);
            b1 & 0xFE == 0xE8 || b1 & 0xC7 == 0x05 || b1 & 0xF0 == 0x80 && b2 == 0x0F
        }
        Kind::Thumb => inside.is_multiple_of(2),
        Kind::Words64 => inside.is_multiple_of(8),
        Kind::Arm64 => inside.is_multiple_of(4) && arm::refers(bytes[at + 3]),
        Kind::Arm | Kind::Words32 | Kind::Relative32 | Kind::Numbers32 => inside.is_multiple_of(4),
        Kind::Records(_) => true,
    }
}

/// Counts the bytes from `bytes[at]` on that begin no reference, up to `most`.
#[inline]
pub(crate) fn quiet(bytes: &[u8], at: usize, inside: u32, kind: Kind, most: u32) -> u32 {
    let may = |i: &u32| may_begin(bytes, at + *i as usize, inside.wrapping_add(*i), kind);
    match kind {
        Kind::Plain | Kind::Text => most,
        _ => (0..most).find(may).unwrap_or(most),
    }
}

/// Finds the reference that begins at `bytes[at]`, which is at `offset` of the old image, in
/// `region`. `bytes` should have [`BEFORE`] bytes before it and [`AFTER`] after it; missing ones
/// are zero.
pub(crate) fn find(
    bytes: &[u8],
    at: usize,
    offset: u32,
    region: &Region,
    records: &[Record],
    space: &Space,
) -> Option<Reference> {
    let inside = offset - region.start;
    let end = region.end;
    match region.kind {
        Kind::Plain | Kind::Text => None,
        Kind::X86 => x86(bytes, at, offset, end, space),
        Kind::Arm64 => (inside.is_multiple_of(4) && end - offset >= 4)
            .then(|| arm64(bytes, at, offset, space))
            .flatten(),
        Kind::Thumb => {
            if !inside.is_multiple_of(2) || end - offset < 4 {
                return None;
            }
            thumb(bytes, at, offset, space).or_else(|| {
                inside
                    .is_multiple_of(4)
                    .then(|| pointer32(bytes, at, 0, 0, space))
                    .flatten()
            })
        }
        Kind::Arm => {
            if !inside.is_multiple_of(4) || end - offset < 4 {
                return None;
            }
            arm(bytes, at, offset, space).or_else(|| pointer32(bytes, at, 0, 0, space))
        }
        Kind::Words32 => (inside.is_multiple_of(4) && end - offset >= 4)
            .then(|| pointer32(bytes, at, 0, 0, space))
            .flatten(),
        Kind::Words64 => (inside.is_multiple_of(8) && end - offset >= 8)
            .then(|| pointer64(bytes, at, 0, 0, space))
            .flatten(),
        Kind::Relative32 => {
            if !inside.is_multiple_of(4) || end - offset < 4 {
                return None;
            }
            let here = space.address_of(offset)?;
            let value = u32_at(bytes, at);
            if value == 0 {
                return None;
            }
            let to = space.offset_of(here.wrapping_add_signed(i64::from(value as i32)))?;
            // Lengths look like distances to nearby places.
            if (region.start..region.end).contains(&to) {
                return None;
            }
            Some(Reference {
                form: Form::Self32,
                to,
            })
        }
        Kind::Numbers32 => {
            let value = u32_at(bytes, at);
            (inside.is_multiple_of(4) && end - offset >= 4 && NUMBERS.contains(&value)).then_some(
                Reference {
                    form: Form::Number,
                    to: NUMBER | value,
                },
            )
        }
        Kind::Records(index) => {
            let record = records.get(usize::from(index))?;
            let place = (inside % u32::from(record.stride)) as u8;
            let field = record.fields.iter().find(|f| f.at == place)?;
            if end - offset < u32::from(field.width) {
                return None;
            }
            field_at(bytes, at, *field, space)
        }
    }
}

fn field_at(bytes: &[u8], at: usize, field: Field, space: &Space) -> Option<Reference> {
    if field.width == 8 {
        pointer64(bytes, at, field.old_base, field.new_base, space)
    } else {
        pointer32(bytes, at, field.old_base, field.new_base, space)
    }
}

fn pointer32(
    bytes: &[u8],
    at: usize,
    old_base: u64,
    new_base: u64,
    space: &Space,
) -> Option<Reference> {
    let value = u32_at(bytes, at);
    if value == 0 {
        return None;
    }
    let to = space.offset_of(u64::from(value).wrapping_add(old_base))?;
    Some(Reference {
        form: Form::Abs32 { old_base, new_base },
        to,
    })
}

fn pointer64(
    bytes: &[u8],
    at: usize,
    old_base: u64,
    new_base: u64,
    space: &Space,
) -> Option<Reference> {
    let value = u64_at(bytes, at);
    if value == 0 {
        return None;
    }
    let to = space.offset_of(value.wrapping_add(old_base))?;
    Some(Reference {
        form: Form::Abs64 { old_base, new_base },
        to,
    })
}
