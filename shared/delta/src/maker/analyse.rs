//! Finds executables and their parts, on the maker's side only. Bytes that are not recognised, or
//! contradict themselves, are plain: a worse delta, never a wrong one.

use object::{
    Architecture, BinaryFormat, Object as _, ObjectSection as _, ObjectSegment as _, SectionKind,
};

use super::containers;
use super::member::{Member, Piece};
use super::shape::{Executable, Part, Shape, btf_types};
use crate::engine::layout::{Kind, Segment, Space};

/// Finds the executables of an image.
pub(crate) fn analyse(image: &[u8]) -> Vec<Executable> {
    let members = match inside(image) {
        Ok(members) => members,
        Err(whole) => return vec![whole],
    };
    let mut found: Vec<Executable> = Vec::new();
    for member in members {
        let bytes = member.bytes(image);
        let executable = match member.pieces[..] {
            [piece] if piece.inside == 0 => one(&bytes, piece.at as u32, &member.name),
            _ => scattered(one(&bytes, 0, &member.name), &member.pieces),
        };
        // Spaces must not overlap: of files whose pieces alternate, the first counts.
        let end = found.last().map_or(0, |last| last.space.end);
        if executable.space.start >= end {
            found.push(executable);
        }
    }
    found
}

/// Returns the files in an image, or the image itself if it is one thing.
fn inside(image: &[u8]) -> Result<Vec<Member>, Executable> {
    if let Some(members) = containers::members(image) {
        return Ok(members);
    }
    let whole = one(image, 0, "");
    // A kernel contains programs too, but is more than those.
    if !whole.space.segments.is_empty() {
        return Err(whole);
    }
    containers::embedded(image).ok_or(whole)
}

/// Translates an executable whose bytes lie in several pieces into offsets of the image.
fn scattered(executable: Executable, pieces: &[Piece]) -> Executable {
    // A range of the member, as ranges of the image.
    let ranges = |from: u32, to: u32| {
        pieces.iter().filter_map(move |p| {
            let (begin, end) = (p.inside as u32, (p.inside + p.length) as u32);
            let (from, to) = (from.max(begin), to.min(end));
            (from < to).then(|| (from, to, from - begin + p.at as u32))
        })
    };
    let mut out = Executable {
        space: Space {
            start: pieces.iter().map(|p| p.at).min().unwrap_or(0) as u32,
            end: pieces.iter().map(|p| p.at + p.length).max().unwrap_or(0) as u32,
            segments: Vec::new(),
        },
        parts: Vec::new(),
        ..executable
    };
    for segment in &executable.space.segments {
        for (from, to, at) in ranges(segment.offset, segment.offset + segment.length) {
            out.space.segments.push(Segment {
                offset: at,
                length: to - from,
                address: segment
                    .address
                    .wrapping_add(u64::from(from - segment.offset)),
            });
        }
    }
    for part in &executable.parts {
        let stride = match &part.shape {
            Shape::Records(stride, _) => u32::from(*stride),
            Shape::Simple(_) => 8,
        };
        for (from, to, at) in ranges(part.start, part.end) {
            // Records and words are counted from the start of the part.
            let skip = (from - part.start).next_multiple_of(stride) - (from - part.start);
            if from + skip < to {
                out.parts.push(Part {
                    name: part.name.clone(),
                    start: at + skip,
                    end: at + (to - from),
                    shape: part.shape.clone(),
                });
            }
        }
    }
    tidy(&mut out);
    out
}

fn one(bytes: &[u8], start: u32, name: &str) -> Executable {
    let mut executable = Executable {
        name: name.to_owned(),
        space: Space {
            start,
            end: start + bytes.len() as u32,
            segments: Vec::new(),
        },
        ..Executable::default()
    };
    let known = super::firmware::arm64_kernel(bytes, start, &mut executable)
        || object_file(bytes, start, &mut executable)
        || super::firmware::cortex_m(bytes, start, &mut executable);
    if known {
        tidy(&mut executable);
    } else {
        let kind = if is_text(bytes) {
            Kind::Text
        } else {
            Kind::Plain
        };
        executable.parts.push(Part {
            name: String::new(),
            start,
            end: start + bytes.len() as u32,
            shape: Shape::Simple(kind),
        });
    }
    executable
}

fn is_text(bytes: &[u8]) -> bool {
    let sample = &bytes[..bytes.len().min(4096)];
    !sample.is_empty()
        && sample
            .iter()
            .filter(|&&b| b >= 0x80 || b >= 0x20 && b != 0x7F || matches!(b, b'\n' | b'\r' | b'\t'))
            .count()
            * 100
            >= sample.len() * 98
}

/// Sorts, and drops overlaps.
fn tidy(executable: &mut Executable) {
    executable.space.segments.sort_by_key(|s| s.offset);
    let mut end = 0;
    executable.space.segments.retain(|s| {
        let fits = s.length > 0
            && s.offset >= end
            && s.offset
                .checked_add(s.length)
                .is_some_and(|e| e <= executable.space.end);
        if fits {
            end = s.offset + s.length;
        }
        fits
    });
    executable.parts.sort_by_key(|p| p.start);
    let mut end = 0;
    executable.parts.retain(|p| {
        let fits = p.start < p.end && p.start >= end && p.end <= executable.space.end;
        if fits {
            end = p.end;
        }
        fits
    });
}

fn object_file(bytes: &[u8], start: u32, out: &mut Executable) -> bool {
    let Ok(file) = object::File::parse(bytes) else {
        return false;
    };
    for segment in file.segments() {
        let (offset, size) = segment.file_range();
        if size > 0 {
            out.space.segments.push(Segment {
                offset: start.wrapping_add(offset as u32),
                length: size as u32,
                address: segment.address(),
            });
        }
        if segment.size() > size {
            out.beyond.push((
                segment.address() + size,
                (segment.size() - size).min(1 << 30) as u32,
            ));
        }
    }
    let relocatable = file.kind() == object::ObjectKind::Relocatable;
    if relocatable {
        // Sections have no addresses yet: their offsets in the file serve as well.
        out.space.segments.push(Segment {
            offset: start,
            length: bytes.len() as u32,
            address: 0,
        });
    }
    let wide = file.is_64();
    let code = match file.architecture() {
        Architecture::X86_64 => Kind::X86,
        Architecture::Aarch64 => Kind::Arm64,
        Architecture::Arm => Kind::Arm,
        _ => Kind::Plain,
    };
    let words = if wide { Kind::Words64 } else { Kind::Words32 };
    let image_base = if file.format() == BinaryFormat::Pe {
        file.relative_address_base()
    } else {
        0
    };
    for section in file.sections() {
        let Some((offset, size)) = section.file_range() else {
            continue;
        };
        let name = section.name().unwrap_or("").to_owned();
        let executable = section.kind() == SectionKind::Text;
        let (mut from, end) = (
            start.wrapping_add(offset as u32),
            start.wrapping_add((offset + size) as u32),
        );
        let address = section.address();
        let shape = match name.as_str() {
            _ if executable && code == Kind::Arm => {
                let section = &bytes[offset as usize..(offset + size) as usize];
                for (begin, end, kind) in super::firmware::arm_or_thumb(section) {
                    out.parts.push(Part {
                        name: name.clone(),
                        start: from + begin as u32,
                        end: from + end as u32,
                        shape: Shape::Simple(kind),
                    });
                }
                continue;
            }
            _ if executable => Shape::Simple(code),
            ".eh_frame_hdr" => {
                from = from.wrapping_add(12);
                Shape::Records(8, vec![(0, 4, address), (4, 4, address)])
            }
            ".BTF" => {
                let section = &bytes[offset as usize..(offset + size) as usize];
                let Some((types, types_end)) = btf_types(section) else {
                    continue;
                };
                from = from.wrapping_add(types);
                out.parts.push(Part {
                    name,
                    start: from,
                    end: from + (types_end - types),
                    shape: Shape::Simple(Kind::Numbers32),
                });
                continue;
            }
            ".symtab" if relocatable => Shape::Simple(Kind::Numbers32),
            _ if relocatable && name.starts_with(".rela.") => Shape::Simple(Kind::Numbers32),
            ".eh_frame" => Shape::Simple(Kind::Relative32),
            ".rela.dyn" | ".rela.plt" if wide => Shape::Records(24, vec![(0, 8, 0), (16, 8, 0)]),
            ".dynsym" | ".symtab" if wide => Shape::Records(24, vec![(8, 8, 0)]),
            ".pdata" if file.format() == BinaryFormat::Pe => Shape::Records(
                12,
                vec![(0, 4, image_base), (4, 4, image_base), (8, 4, image_base)],
            ),
            ".gopclntab" => {
                match go_table(&bytes[offset as usize..(offset + size) as usize], &file) {
                    Some((table_at, table_end, text, functions)) => {
                        from = start.wrapping_add((offset + table_at) as u32);
                        out.parts.push(Part {
                            name: "go functions".to_owned(),
                            start: from,
                            end: start.wrapping_add((offset + table_end) as u32),
                            shape: Shape::Records(
                                8,
                                vec![(0, 4, text), (4, 4, address + functions)],
                            ),
                        });
                        continue;
                    }
                    None => continue,
                }
            }
            ".data.rel.ro" | ".data" | ".init_array" | ".fini_array" | ".got" | ".got.plt"
            | ".noptrdata" | ".go.buildinfo" | ".rdata" | "__const" | "__data" | "__got"
            | ".itablink" | ".typelink" => Shape::Simple(words),
            ".rodata" if code == Kind::Arm => Shape::Simple(words),
            _ => continue,
        };
        out.parts.push(Part {
            name,
            start: from,
            end,
            shape,
        });
    }
    true
}

/// Finds the function table of Go's line table (since Go 1.20): where it begins and ends in the
/// section, the address of the text, and where functions begin in the section.
fn go_table(section: &[u8], file: &object::File<'_>) -> Option<(u64, u64, u64, u64)> {
    let word = |at: usize| -> Option<u64> {
        Some(u64::from_le_bytes(
            section.get(at..at + 8)?.try_into().ok()?,
        ))
    };
    let magic = section.get(..4)?;
    if magic != [0xF1, 0xFF, 0xFF, 0xFF] && magic != [0xF0, 0xFF, 0xFF, 0xFF] {
        return None;
    }
    let count = word(8)?;
    let mut text = word(24)?;
    if text == 0 {
        text = file.section_by_name(".text")?.address();
    }
    let functions = word(64)?;
    let end = functions
        .checked_add(count.checked_mul(8)?)?
        .checked_add(4)?;
    (end <= section.len() as u64).then_some((functions, end, text, functions))
}
