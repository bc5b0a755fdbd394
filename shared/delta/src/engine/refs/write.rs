//! Writing references, and reading what was written.

use super::super::layout::Space;
use super::arm::{page_distance, thumb_distance};
use super::{Form, NUMBER, sign};

/// Writes a reference from `offset` to `to` (offsets of the new image) over the old bytes. Returns
/// `None` if it cannot be written in that form.
pub(crate) fn write(
    form: Form,
    old: [u8; 8],
    offset: u32,
    to: u32,
    space: &Space,
) -> Option<[u8; 8]> {
    if form == Form::Number {
        let mut bytes = old;
        bytes[..4].copy_from_slice(&(to ^ NUMBER).to_le_bytes());
        return Some(bytes);
    }
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
            thumb_word(word, distance)
        }
        Form::ArmBranch => {
            let distance = target.wrapping_sub(here()?.wrapping_add(8)) as u32 >> 2;
            word & 0xFF00_0000 | distance & 0xFF_FFFF
        }
        Form::Abs32 { new_base, .. } => target.wrapping_sub(new_base) as u32,
        Form::Abs64 { new_base, .. } => return Some(target.wrapping_sub(new_base).to_le_bytes()),
        Form::Self32 => target.wrapping_sub(here()?) as u32,
        Form::Number => return None,
    };
    let mut bytes = old;
    bytes[..4].copy_from_slice(&word.to_le_bytes());
    Some(bytes)
}

/// Returns the address of an offset; an offset just after a segment counts as its end.
fn address_beyond(space: &Space, to: u32) -> Option<u64> {
    space.address_of(to).or_else(|| {
        space
            .address_of(to.checked_sub(1)?)
            .map(|a| a.wrapping_add(1))
    })
}

/// Makes the distance in the word of a reference at `offset` absolute (or with `back` relative
/// again), so that references from several places to one place are the same. A bijection of the
/// words of a form; a form that is absolute already, or mostly leads near by, is left alone.
pub(crate) fn absolute(form: Form, word: u32, offset: u32, space: &Space, back: bool) -> u32 {
    let here = space.address_of(offset).unwrap_or(0);
    let move_by = |distance: u32, base: u64| {
        if back {
            distance.wrapping_sub(base as u32)
        } else {
            distance.wrapping_add(base as u32)
        }
    };
    match form {
        Form::Rel32 { tail } => move_by(word, here.wrapping_add(4 + u64::from(tail))),
        Form::Branch26 => word & 0xFC00_0000 | move_by(word, here >> 2) & 0x03FF_FFFF,
        Form::Page => {
            let pages = move_by((word >> 3) & 0x1F_FFFC | (word >> 29) & 3, here >> 12);
            word & 0x9F00_001F | (pages & 3) << 29 | (pages & 0x1F_FFFC) << 3
        }
        Form::ArmBranch => word & 0xFF00_0000 | move_by(word, here >> 2) & 0xFF_FFFF,
        Form::ThumbBranch => {
            let distance = thumb_distance(word & 0xFFFF, word >> 16) as u32;
            thumb_word(word, move_by(distance, here & !1))
        }
        _ => word,
    }
}

/// Replaces the distance of a Thumb-2 branch.
fn thumb_word(word: u32, distance: u32) -> u32 {
    let s = (distance >> 24) & 1;
    let j1 = 1 ^ ((distance >> 23) & 1) ^ s;
    let j2 = 1 ^ ((distance >> 22) & 1) ^ s;
    let first = word & 0xF800 | s << 10 | (distance >> 12) & 0x3FF;
    let second = (word >> 16) & 0xD000 | j1 << 13 | j2 << 11 | (distance >> 1) & 0x7FF;
    first | second << 16
}

/// Returns the offset that the new bytes at `offset` refer to, read in the form of the old ones.
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
        // A page alone, or the low bits alone, do not determine the destination.
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
        Form::Number => return (word < NUMBER).then_some(word | NUMBER),
    };
    space.offset_of(address)
}

#[cfg(test)]
mod tests {
    use super::super::super::layout::Segment;
    use super::*;

    fn space() -> Space {
        Space {
            start: 0,
            end: 1 << 20,
            segments: vec![Segment {
                offset: 0,
                length: 1 << 20,
                address: 0xFFFF_8000_0801_2340,
            }],
        }
    }

    #[test]
    fn what_was_made_absolute_is_made_relative_again() {
        let space = space();
        let forms = [
            Form::Rel32 { tail: 1 },
            Form::Branch26,
            Form::Page,
            Form::ArmBranch,
            Form::ThumbBranch,
            Form::Branch19,
        ];
        for index in 0..20_000u32 {
            let offset = index.wrapping_mul(0x9E37_79B1) >> 12;
            // The bits that mark a branch in Thumb-2 are not part of the distance.
            let word = index.wrapping_mul(0x85EB_CA6B) ^ offset;
            for form in forms {
                let word = match form {
                    Form::ThumbBranch => word & 0x2FFF_07FF | 0xD000_F000,
                    _ => word,
                };
                let absolute = absolute(form, word, offset, &space, false);
                assert_eq!(
                    super::absolute(form, absolute, offset, &space, true),
                    word,
                    "{form:?} {word:#x} at {offset}"
                );
            }
        }
    }

    #[test]
    fn two_calls_of_one_function_are_the_same_when_absolute() {
        let space = space();
        let call = |offset: u32| {
            let word = write(
                Form::Branch26,
                [0, 0, 0, 0x94, 0, 0, 0, 0],
                offset,
                4096,
                &space,
            );
            let word = word.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
            absolute(Form::Branch26, word.unwrap_or(0), offset, &space, false)
        };
        assert_eq!(call(100), call(80_000));
    }
}
