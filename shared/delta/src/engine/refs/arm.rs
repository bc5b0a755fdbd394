//! References of AArch64, Thumb-2 and ARM instructions.

use super::super::layout::Space;
use super::{Form, Reference, sign, u16_at, u32_at};

/// Returns the low 12 bits that an instruction adds to its base register, with the form.
fn low12(word: u32) -> Option<(u32, Form)> {
    let immediate = (word >> 10) & 0xFFF;
    if word & 0x7FC0_0000 == 0x1100_0000 {
        return Some((immediate, Form::Low12));
    }
    if word & 0x3B00_0000 == 0x3900_0000 {
        let mut scale = word >> 30;
        if word & 0x0480_0000 == 0x0480_0000 {
            scale += 4;
        }
        if scale <= 4 {
            return Some((immediate << scale, Form::Low12Scaled { scale: scale as u8 }));
        }
    }
    None
}

/// Distance that the 21 bits of `ADR` and `ADRP` encode.
pub(super) fn page_distance(word: u32) -> i64 {
    sign(((word >> 3) & 0x1F_FFFC) | ((word >> 29) & 3), 21)
}

/// Returns whether an AArch64 instruction may be a reference, judged by its highest byte.
#[inline]
pub(super) fn refers(top: u8) -> bool {
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut top = 0;
        while top < 256 {
            table[top] = top & 0x7C == 0x14
                || top == 0x54
                || top & 0x7E == 0x34
                || top & 0x3B == 0x18
                || top & 0x1F == 0x10
                || top & 0x7F == 0x11
                || top & 0x3B == 0x39;
            top += 1;
        }
        table
    };
    TABLE[usize::from(top)]
}

/// See [`super::find`].
pub(super) fn arm64(bytes: &[u8], at: usize, offset: u32, space: &Space) -> Option<Reference> {
    let word = u32_at(bytes, at);
    let here = || space.address_of(offset);
    let found = |form, address: u64| space.offset_of(address).map(|to| Reference { form, to });
    if word & 0x7C00_0000 == 0x1400_0000 {
        return found(
            Form::Branch26,
            here()?.wrapping_add_signed(sign(word & 0x03FF_FFFF, 26) * 4),
        );
    }
    if word & 0xFF00_0010 == 0x5400_0000
        || word & 0x7E00_0000 == 0x3400_0000
        || word & 0x3B00_0000 == 0x1800_0000
    {
        return found(
            Form::Branch19,
            here()?.wrapping_add_signed(sign((word >> 5) & 0x7_FFFF, 19) * 4),
        );
    }
    if word & 0x9F00_0000 == 0x1000_0000 {
        return found(Form::Adr, here()?.wrapping_add_signed(page_distance(word)));
    }
    if word & 0x9F00_0000 == 0x9000_0000 {
        // The rest of the address is in one of the next instructions.
        let page = (here()? & !0xFFF).wrapping_add_signed(page_distance(word) << 12);
        let register = word & 31;
        for ahead in 1..=16 {
            let next = u32_at(bytes, at + 4 * ahead);
            if let Some((low, _)) = low12(next)
                && (next >> 5) & 31 == register
            {
                return found(Form::Page, page.wrapping_add(u64::from(low)));
            }
        }
        return found(Form::Page, page);
    }
    if let Some((low, form)) = low12(word) {
        let register = (word >> 5) & 31;
        for back in 1..=16 {
            let Some(place) = at.checked_sub(4 * back) else {
                break;
            };
            let before = u32_at(bytes, place);
            if before & 0x9F00_001F == 0x9000_0000 | register {
                let page = (here()?.wrapping_sub(4 * back as u64) & !0xFFF)
                    .wrapping_add_signed(page_distance(before) << 12);
                return found(form, page.wrapping_add(u64::from(low)));
            }
        }
    }
    None
}

/// Distance that the two halves of a Thumb-2 branch encode.
pub(super) fn thumb_distance(first: u32, second: u32) -> i64 {
    let s = (first >> 10) & 1;
    let i1 = 1 ^ ((second >> 13) & 1) ^ s;
    let i2 = 1 ^ ((second >> 11) & 1) ^ s;
    let value = s << 24 | i1 << 23 | i2 << 22 | (first & 0x3FF) << 12 | (second & 0x7FF) << 1;
    sign(value, 25)
}

/// See [`super::find`].
pub(super) fn thumb(bytes: &[u8], at: usize, offset: u32, space: &Space) -> Option<Reference> {
    let (first, second) = (u16_at(bytes, at), u16_at(bytes, at + 2));
    if first & 0xF800 != 0xF000 || second & 0x9000 != 0x9000 {
        return None;
    }
    let here = space.address_of(offset)?;
    let to = space.offset_of(
        here.wrapping_add(4)
            .wrapping_add_signed(thumb_distance(first, second)),
    )?;
    Some(Reference {
        form: Form::ThumbBranch,
        to,
    })
}

/// See [`super::find`].
pub(super) fn arm(bytes: &[u8], at: usize, offset: u32, space: &Space) -> Option<Reference> {
    let word = u32_at(bytes, at);
    if word & 0x0E00_0000 != 0x0A00_0000 || word >> 28 == 15 {
        return None;
    }
    let here = space.address_of(offset)?;
    let to = space.offset_of(
        here.wrapping_add(8)
            .wrapping_add_signed(sign(word & 0xFF_FFFF, 24) * 4),
    )?;
    Some(Reference {
        form: Form::ArmBranch,
        to,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::layout::Segment;
    use super::*;

    #[test]
    fn addresses_at_the_end_of_all_addresses_wrap() {
        // ADRP x0, here; LDR q0, [x0, #0xFFF0]: beyond the last address.
        let mut bytes = vec![0; 256];
        bytes[72..76].copy_from_slice(&0x9000_0000u32.to_le_bytes());
        bytes[76..80].copy_from_slice(&0x3DFF_FC00u32.to_le_bytes());
        let space = Space {
            start: 0,
            end: 8,
            segments: vec![Segment {
                offset: 0,
                length: 8,
                address: u64::MAX - 0xFFF,
            }],
        };
        assert_eq!(arm64(&bytes, 72, 0, &space), None);
        assert_eq!(arm64(&bytes, 76, 4, &space), None);
    }
}
