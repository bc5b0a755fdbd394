//! Archives and file systems that contain executables, and executables embedded in anything else.

use super::ext4;
use super::member::Member;

/// Returns the files of an archive or a file system; `None` if the image is neither.
pub(crate) fn members(image: &[u8]) -> Option<Vec<Member>> {
    let members = tar(image)
        .or_else(|| cpio(image))
        .or_else(|| ext4::files(image))?;
    Some(sorted(members))
}

/// Finds executables embedded in an image of an unknown kind; `None` if there are none.
pub(crate) fn embedded(image: &[u8]) -> Option<Vec<Member>> {
    carved(image).map(sorted)
}

/// Sorts members by their first piece, and drops those without bytes.
fn sorted(mut members: Vec<Member>) -> Vec<Member> {
    members.retain(|m| m.pieces.first().is_some_and(|p| p.length > 0));
    members.sort_by_key(|m| m.pieces[0].at);
    members
}

/// The regular files of a tar archive.
fn tar(image: &[u8]) -> Option<Vec<Member>> {
    if image.get(257..262)? != b"ustar" {
        return None;
    }
    let mut members = Vec::new();
    let mut archive = tar::Archive::new(image);
    for entry in archive.entries().ok()? {
        let Ok(entry) = entry else { break };
        let start = usize::try_from(entry.raw_file_position()).ok()?;
        let length = usize::try_from(entry.size()).ok()?;
        if start.checked_add(length)? > image.len() {
            break;
        }
        if entry.header().entry_type().is_file() {
            let name = entry.path().ok().map(|p| p.to_string_lossy().into_owned());
            members.push(Member::whole(name.unwrap_or_default(), start, length));
        }
    }
    Some(members)
}

/// Length in bytes of the header of a cpio member in the format "newc": a magic number, then 13
/// numbers of eight hexadecimal digits.
const CPIO_HEAD: usize = 110;

/// The files of a cpio archive in the format "newc", with or without checksums.
fn cpio(image: &[u8]) -> Option<Vec<Member>> {
    let magic = |at: usize| matches!(image.get(at..at + 6), Some(b"070701" | b"070702"));
    if !magic(0) {
        return None;
    }
    let mut members = Vec::new();
    let mut at = 0;
    while magic(at) {
        let Some(head) = image.get(at..at + CPIO_HEAD) else {
            break;
        };
        let number = |field: usize| -> Option<usize> {
            let digits = std::str::from_utf8(&head[6 + 8 * field..14 + 8 * field]).ok()?;
            usize::from_str_radix(digits, 16).ok()
        };
        let (Some(mode), Some(length), Some(name_length)) = (number(1), number(6), number(11))
        else {
            break;
        };
        let name_at = at + CPIO_HEAD;
        let start = (name_at + name_length).next_multiple_of(4);
        if start + length > image.len() || name_length == 0 {
            break;
        }
        if mode & 0o170_000 == 0o100_000 {
            let name = &image[name_at..name_at + name_length - 1];
            let name = String::from_utf8_lossy(name).into_owned();
            members.push(Member::whole(name, start, length));
        }
        at = (start + length).next_multiple_of(4);
    }
    Some(members)
}

/// Maximum number of executables looked for in an image of another kind.
const MOST_CARVED: usize = 4096;

/// Finds ELF files anywhere in an image, in one piece each.
fn carved(image: &[u8]) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    let mut at = 0;
    while at + ELF.len() < image.len() && members.len() < MOST_CARVED {
        let length = if image[at..].starts_with(ELF) {
            elf_length(&image[at..])
        } else {
            None
        };
        match length {
            Some(length) => {
                members.push(Member::whole(format!("#{}", members.len()), at, length));
                at = (at + length).next_multiple_of(4);
            }
            None => at += 4,
        }
    }
    (!members.is_empty()).then_some(members)
}

const ELF: &[u8] = b"\x7FELF";

/// Finds the end of an ELF file: after the last of its sections, its segments, and their tables.
fn elf_length(bytes: &[u8]) -> Option<usize> {
    use object::{Object as _, ObjectSection as _, ObjectSegment as _};
    let file = object::File::parse(bytes).ok()?;
    let sections = file.sections().filter_map(|s| s.file_range());
    let segments = file.segments().map(|s| s.file_range());
    let long = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let half = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let (table, size, count) = if file.is_64() {
        (long(0x28)?, half(0x3A)?, half(0x3C)?)
    } else {
        (u64::from(word(0x20)?), half(0x2E)?, half(0x30)?)
    };
    let table = table.checked_add(u64::from(size) * u64::from(count))?;
    let ends = sections
        .chain(segments)
        .filter_map(|(from, length)| from.checked_add(length));
    let end = usize::try_from(ends.chain([table]).max()?).ok()?;
    (ELF.len()..=bytes.len()).contains(&end).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::super::member::Piece;
    use super::*;

    /// An ELF file of 64 bits with a segment and no sections.
    fn elf(fill: u8, length: usize) -> Vec<u8> {
        let mut bytes = vec![fill; length];
        bytes[..0x78].fill(0);
        bytes[..8].copy_from_slice(b"\x7FELF\x02\x01\x01\x00");
        bytes[0x10] = 3; // shared object
        bytes[0x12] = 0x3E; // x86-64
        bytes[0x14] = 1;
        bytes[0x20] = 0x40; // program headers
        bytes[0x34] = 0x40;
        bytes[0x36] = 0x38;
        bytes[0x38] = 1;
        bytes[0x3A] = 0x40;
        bytes[0x40] = 1; // to be loaded
        bytes[0x60..0x68].copy_from_slice(&(length as u64).to_le_bytes());
        bytes[0x68..0x70].copy_from_slice(&(length as u64).to_le_bytes());
        bytes
    }

    fn found(image: &[u8]) -> Vec<(String, Vec<u8>)> {
        let members = members(image)
            .or_else(|| embedded(image))
            .unwrap_or_default();
        members
            .iter()
            .map(|m| (m.name.clone(), m.bytes(image).into_owned()))
            .collect()
    }

    #[test]
    fn files_of_a_cpio_archive_are_found() {
        let mut image = Vec::new();
        for (name, mode, data) in [
            ("bin", 0o040_755, Vec::new()),
            ("bin/one", 0o100_755, elf(7, 501)),
            ("two", 0o100_644, b"text".to_vec()),
            ("TRAILER!!!", 0, Vec::new()),
        ] {
            let mut fields = [0usize; 13];
            (fields[1], fields[6], fields[11]) = (mode, data.len(), name.len() + 1);
            image.extend_from_slice(b"070701");
            for field in fields {
                image.extend_from_slice(format!("{field:08X}").as_bytes());
            }
            image.extend_from_slice(name.as_bytes());
            image.push(0);
            image.resize(image.len().next_multiple_of(4), 0);
            image.extend_from_slice(&data);
            image.resize(image.len().next_multiple_of(4), 0);
        }
        let expected = [
            ("bin/one".to_owned(), elf(7, 501)),
            ("two".to_owned(), b"text".to_vec()),
        ];
        assert_eq!(found(&image), expected);
        // An archive that is cut anywhere is read as far as it goes.
        for end in (0..image.len()).step_by(7) {
            assert!(found(&image[..end]).len() <= 2);
        }
    }

    #[test]
    fn executables_in_an_unknown_image_are_found() {
        let mut image = vec![0x55; 4096];
        image.extend_from_slice(&elf(1, 1000));
        image.extend_from_slice(&[0xAA; 24]);
        image.extend_from_slice(&elf(2, 2000));
        let files: Vec<Vec<u8>> = found(&image).into_iter().map(|f| f.1).collect();
        assert_eq!(files, [elf(1, 1000), elf(2, 2000)]);
    }

    #[test]
    fn a_member_of_several_pieces_is_put_together() {
        let image: Vec<u8> = (0..100).collect();
        let piece = |inside, at, length| Piece { inside, at, length };
        let member = Member {
            name: String::new(),
            pieces: vec![piece(0, 50, 2), piece(4, 10, 3)],
        };
        assert_eq!(member.bytes(&image).as_ref(), [50, 51, 0, 0, 10, 11, 12]);
    }
}
