//! Images without a header that `object` knows: microcontroller firmware, Linux kernels.

use std::collections::BTreeSet;

use object::{Object as _, ObjectSection as _};

use super::shape::{Executable, Part, Shape};
use crate::engine::layout::{Kind, Segment};

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Recognises a Cortex-M image, which begins with the vector table. It does not contain its
/// address; the right one makes the most pointers lead to the beginning of a function.
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

/// Number of bytes that are looked at together to tell ARM from Thumb.
const MODE_BLOCK: usize = 4096;

/// Splits 32-bit ARM code into parts of ARM and of Thumb: most ARM instructions are unconditional,
/// which their highest four bits (14) say.
pub(crate) fn arm_or_thumb(code: &[u8]) -> Vec<(usize, usize, Kind)> {
    let mut parts: Vec<(usize, usize, Kind)> = Vec::new();
    for (index, block) in code.chunks(MODE_BLOCK).enumerate() {
        let always = block.chunks_exact(4).filter(|w| w[3] >> 4 == 14).count();
        let kind = if always * 8 > block.len() {
            Kind::Arm
        } else {
            Kind::Thumb
        };
        let end = index * MODE_BLOCK + block.len();
        match parts.last_mut() {
            Some(last) if last.2 == kind => last.1 = end,
            _ => parts.push((index * MODE_BLOCK, end, kind)),
        }
    }
    parts
}

/// Alignment of the address that Linux links itself to on ARM64: 128 MiB, or more.
const KERNEL_ALIGN: u64 = 128 << 20;
/// `R_AARCH64_RELATIVE`: a relocation whose addend is the whole address.
const RELATIVE: u64 = 1027;
/// Size of a relocation in bytes: offset, type and addend.
const RELOCATION: usize = 24;

/// Recognises an ARM64 Linux `Image`, whose header says `ARM\x64`. Its address is taken from its
/// relocations, if it has any; otherwise everything that matters is relative.
pub(crate) fn arm64_kernel(bytes: &[u8], start: u32, out: &mut Executable) -> bool {
    if bytes.get(56..60) != Some(b"ARM\x64") {
        return false;
    }
    let length = bytes.len();
    let relocations = relocations(bytes);
    let base = relocations
        .and_then(|(at, _)| long(bytes, at))
        .map_or(0xFFFF_8000_0800_0000, |address| {
            address & !(KERNEL_ALIGN - 1)
        });
    out.space.segments.push(Segment {
        offset: start,
        length: length as u32,
        address: base,
    });
    // The loader's header, that of a PE, says where code ends.
    let code = object::File::parse(bytes)
        .ok()
        .and_then(|file| {
            let text = file.sections().find(|s| s.name() == Ok(".text"))?;
            let (offset, size) = text.file_range()?;
            usize::try_from(offset.checked_add(size)?).ok()
        })
        .map_or(length, |end| end.min(length));
    let types: Vec<(usize, usize)> = (0..length)
        .step_by(4)
        .filter(|&at| bytes[at..].starts_with(BTF))
        .filter_map(|at| {
            let (from, to) = super::shape::btf_types(&bytes[at..])?;
            Some((at + from as usize, at + to as usize))
        })
        .collect();
    let records = Shape::Records(RELOCATION as u8, vec![(0, 8, 0), (16, 8, 0)]);
    let mut tables: Vec<(usize, usize, Shape)> = types
        .into_iter()
        .map(|(from, to)| (from, to, Shape::Simple(Kind::Numbers32)))
        .chain(relocations.map(|(from, to)| (from, to, records)))
        .collect();
    tables.sort_by_key(|t| t.0);
    // The range called code contains tables.
    tables.push((code.max(length), length, Shape::Simple(Kind::Plain)));
    let mut part = |from: usize, to: usize, shape: Shape| {
        out.parts.push(Part {
            name: "image".to_owned(),
            start: start + from as u32,
            end: start + to as u32,
            shape,
        });
    };
    let mut at = 0;
    for (from, to, shape) in tables {
        if at < from.min(code) {
            part(at, from.min(code), Shape::Simple(Kind::Arm64));
        }
        if at <= from && from < to {
            part(from, to, shape);
        }
        at = at.max(to);
    }
    true
}

/// Finds the longest run of relative relocations.
fn relocations(bytes: &[u8]) -> Option<(usize, usize)> {
    let is_one = |at: usize| long(bytes, at + 8) == Some(RELATIVE);
    let mut best: Option<(usize, usize)> = None;
    let mut at = 0;
    while at + RELOCATION <= bytes.len() {
        let begin = at;
        while is_one(at) {
            at += RELOCATION;
        }
        if at - begin > best.map_or(64 * RELOCATION, |(from, to)| to - from) {
            best = Some((begin, at));
        }
        at += 8;
    }
    best
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// First bytes of BTF: magic number, version, flags, length of the header.
const BTF: &[u8] = &[0x9F, 0xEB, 1, 0, 24, 0, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_has_its_address_tables_and_types_found() {
        let mut image = vec![0u8; 1 << 20];
        image[56..60].copy_from_slice(b"ARM\x64");
        for index in 0..100usize {
            let at = 0x40000 + index * RELOCATION;
            let place = 0xFFFF_8000_0810_0000u64 + 8 * index as u64;
            image[at..at + 8].copy_from_slice(&place.to_le_bytes());
            image[at + 8..at + 16].copy_from_slice(&RELATIVE.to_le_bytes());
        }
        image[0x80000..0x80008].copy_from_slice(BTF);
        image[0x8000C..0x80010].copy_from_slice(&600u32.to_le_bytes());
        let mut found = Executable::default();
        found.space.end = image.len() as u32;
        assert!(arm64_kernel(&image, 0, &mut found));
        // Programs inside it (its vDSO) do not hide it.
        image[0xF0000..0xF0008].copy_from_slice(b"\x7FELF\x02\x01\x01\x00");
        image[0xF0010] = 3;
        image[0xF0012] = 0xB7;
        image[0xF0014] = 1;
        let all = super::super::analyse::analyse(&image);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].space.segments.len(), 1);
        assert_eq!(found.space.segments[0].address, 0xFFFF_8000_0800_0000);
        let parts: Vec<(u32, u32)> = found.parts.iter().map(|p| (p.start, p.end)).collect();
        let tables = 0x40000 + 100 * RELOCATION as u32;
        assert_eq!(
            parts,
            [
                (0, 0x40000),
                (0x40000, tables),
                (tables, 0x80018),
                (0x80018, 0x80018 + 600),
                (0x80018 + 600, 1 << 20),
            ]
        );
    }

    #[test]
    fn arm_and_thumb_are_told_apart() {
        let mut code: Vec<u8> = (0..MODE_BLOCK as u32 / 2)
            .flat_map(|i| [i as u8, 1, 2, 0xE5])
            .collect();
        code.extend((0..MODE_BLOCK as u32 / 2).flat_map(|i| [i as u8, 0x46]));
        let end = code.len();
        let expected = [
            (0, 2 * MODE_BLOCK, Kind::Arm),
            (2 * MODE_BLOCK, end, Kind::Thumb),
        ];
        assert_eq!(arm_or_thumb(&code), expected);
    }
}
