//! Writing references, and reading what was written.

use super::super::layout::Space;
use super::arm::{page_distance, thumb_distance};
use super::{Form, sign};

/// Writes a reference from `offset` to `to` (offsets of the new image) over the old bytes.
/// `None` where it cannot be written in that form.
pub(crate) fn write(
    form: Form,
    old: [u8; 8],
    offset: u32,
    to: u32,
    space: &Space,
) -> Option<[u8; 8]> {
    let target = address_beyond(space, to)?;
    let word = u32::from_le_bytes([old[0], old[1], old[2], old[3]]);
    let here = || space.address_of(offset);
    let word = match form {
        Form::Rel32 { tail } => {
            target.wrapping_sub(here()?.wrapping_add(4 + u64::from(tail))) as u32
        }
        Form::Branch26 => {
            let distance = target.wrapping_sub(here()?) as u32 >> 2;
            word & 0xFC00_0000 | distance & 0x03FF_FFFF
        }
        Form::Branch19 => {
            let distance = target.wrapping_sub(here()?) as u32 >> 2;
            word & 0xFF00_001F | (distance & 0x7_FFFF) << 5
        }
        Form::Adr => {
            let distance = target.wrapping_sub(here()?) as u32;
            word & 0x9F00_001F | (distance & 3) << 29 | (distance & 0x1F_FFFC) << 3
        }
        Form::Page => {
            let distance = ((target >> 12).wrapping_sub(here()? >> 12)) as u32;
            word & 0x9F00_001F | (distance & 3) << 29 | (distance & 0x1F_FFFC) << 3
        }
        Form::Low12 => word & !(0xFFF << 10) | (target as u32 & 0xFFF) << 10,
        Form::Low12Scaled { scale } => {
            word & !(0xFFF << 10) | ((target as u32 & 0xFFF) >> scale) << 10
        }
        Form::ThumbBranch => {
            let distance = target.wrapping_sub(here()?.wrapping_add(4)) as u32;
            let s = (distance >> 24) & 1;
            let j1 = 1 ^ ((distance >> 23) & 1) ^ s;
            let j2 = 1 ^ ((distance >> 22) & 1) ^ s;
            let first = word & 0xF800 | s << 10 | (distance >> 12) & 0x3FF;
            let second = (word >> 16) & 0xD000 | j1 << 13 | j2 << 11 | (distance >> 1) & 0x7FF;
            first | second << 16
        }
        Form::ArmBranch => {
            let distance = target.wrapping_sub(here()?.wrapping_add(8)) as u32 >> 2;
            word & 0xFF00_0000 | distance & 0xFF_FFFF
        }
        Form::Abs32 { new_base, .. } => target.wrapping_sub(new_base) as u32,
        Form::Abs64 { new_base, .. } => return Some(target.wrapping_sub(new_base).to_le_bytes()),
        Form::Self32 => target.wrapping_sub(here()?) as u32,
    };
    let mut bytes = old;
    bytes[..4].copy_from_slice(&word.to_le_bytes());
    Some(bytes)
}

/// The address of an offset; one right behind a segment counts as its end.
fn address_beyond(space: &Space, to: u32) -> Option<u64> {
    space.address_of(to).or_else(|| {
        space
            .address_of(to.checked_sub(1)?)
            .map(|a| a.wrapping_add(1))
    })
}

/// What the new bytes at `offset` refer to, read in the form that the old ones had.
pub(crate) fn read(form: Form, bytes: [u8; 8], offset: u32, space: &Space) -> Option<u32> {
    let word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let here = || space.address_of(offset);
    let address = match form {
        Form::Rel32 { tail } => here()?
            .wrapping_add(4 + u64::from(tail))
            .wrapping_add_signed(i64::from(word as i32)),
        Form::Branch26 => here()?.wrapping_add_signed(sign(word & 0x03FF_FFFF, 26) * 4),
        Form::Branch19 => here()?.wrapping_add_signed(sign((word >> 5) & 0x7_FFFF, 19) * 4),
        Form::Adr => here()?.wrapping_add_signed(page_distance(word)),
        // A page alone, or the rest alone, does not say what is meant.
        Form::Page | Form::Low12 | Form::Low12Scaled { .. } => return None,
        Form::ThumbBranch => here()?
            .wrapping_add(4)
            .wrapping_add_signed(thumb_distance(word & 0xFFFF, word >> 16)),
        Form::ArmBranch => here()?
            .wrapping_add(8)
            .wrapping_add_signed(sign(word & 0xFF_FFFF, 24) * 4),
        Form::Abs32 { new_base, .. } => u64::from(word).wrapping_add(new_base),
        Form::Abs64 { new_base, .. } => u64::from_le_bytes(bytes).wrapping_add(new_base),
        Form::Self32 => here()?.wrapping_add_signed(i64::from(word as i32)),
    };
    space.offset_of(address)
}
