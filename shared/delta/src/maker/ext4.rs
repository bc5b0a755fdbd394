//! Files of ext4 file systems: which bytes of the image each has, in which order. Only what that
//! takes is read; a file with anything unusual is left out.

use std::cell::Cell;
use std::collections::BTreeMap;

use super::member::{Member, Piece};

/// Alignment at which file systems are looked for: partitions begin at multiples of it.
const GRAIN: usize = 4096;
/// Offset of the superblock in the file system.
const SUPERBLOCK: usize = 1024;
/// The superblock's magic number.
const MAGIC: u64 = 0xEF53;
/// Inode of the root directory.
const ROOT: u32 = 2;
/// Feature bits: 64-bit block numbers.
const WIDE: u64 = 0x80;
/// Inode flag: its blocks are described by extents.
const EXTENTS: u64 = 0x8_0000;
/// Magic number of a node of extents.
const EXTENT_MAGIC: u64 = 0xF30A;
/// Maximum size of a file that is looked at, in bytes.
const MOST: u64 = 1 << 30;
/// Files with less than one stored byte in this many are left out.
const MOST_HOLES: u64 = 64;
/// Maximum number of nodes and extents of all files of a file system, so that reading a circular
/// one ends.
const MOST_EXTENTS: u64 = 16 << 20;
/// Maximum number of inodes of a file system.
const MOST_INODES: u64 = 4 << 20;

/// Returns the files of the file systems in an image, by path; `None` if there is no file system.
pub(crate) fn files(image: &[u8]) -> Option<Vec<Member>> {
    let mut members = Vec::new();
    let mut found = false;
    let mut at = 0;
    while at + 2 * SUPERBLOCK <= image.len() {
        match Ext4::open(image, at) {
            Some(system) => {
                found = true;
                members.extend(system.files());
                at += system.length().max(GRAIN);
                at = at.next_multiple_of(GRAIN);
            }
            None => at += GRAIN,
        }
    }
    found.then_some(members)
}

/// Reads a number of `width` bytes, little-endian.
fn number(bytes: &[u8], at: usize, width: usize) -> Option<u64> {
    let bytes = bytes.get(at..at.checked_add(width)?)?;
    Some(bytes.iter().rev().fold(0, |n, &b| n << 8 | u64::from(b)))
}

struct Ext4<'a> {
    image: &'a [u8],
    /// Offset in the image at which it begins.
    base: usize,
    block: usize,
    blocks: u64,
    inodes: u64,
    inodes_per_group: u64,
    inode_size: usize,
    descriptor_size: usize,
    descriptors: usize,
    /// Number of extents that may still be read.
    left: Cell<u64>,
}

/// Contents of an inode.
struct Inode {
    mode: u64,
    length: u64,
    pieces: Vec<Piece>,
}

impl<'a> Ext4<'a> {
    fn open(image: &'a [u8], base: usize) -> Option<Self> {
        let superblock = image.get(base + SUPERBLOCK..base + 2 * SUPERBLOCK)?;
        if number(superblock, 0x38, 2)? != MAGIC {
            return None;
        }
        let field = |at: usize, width: usize| number(superblock, at, width);
        let log = field(0x18, 4).filter(|&l| l <= 6)?;
        let block = 1024usize << log;
        let wide = field(0x60, 4)? & WIDE != 0;
        let first = field(0x14, 4)?;
        let blocks = field(4, 4)? | if wide { field(0x150, 4)? << 32 } else { 0 };
        let system = Self {
            image,
            base,
            block,
            blocks,
            inodes: field(0, 4).filter(|&n| n <= MOST_INODES)?,
            inodes_per_group: field(0x28, 4).filter(|&n| n > 0)?,
            inode_size: field(0x58, 2).filter(|&n| (128..=4096).contains(&n))? as usize,
            descriptor_size: if wide {
                field(0xFE, 2).filter(|&n| (64..=1024).contains(&n))? as usize
            } else {
                32
            },
            descriptors: base + (first as usize + 1) * block,
            left: Cell::new(MOST_EXTENTS),
        };
        // A truncated file system, or an old copy of a superblock, does not count.
        (system.length() <= image.len() - base && field(0x5A, 2)? == 0).then_some(system)
    }

    fn length(&self) -> usize {
        usize::try_from(self.blocks)
            .ok()
            .and_then(|n| n.checked_mul(self.block))
            .unwrap_or(usize::MAX)
    }

    fn inode(&self, index: u32) -> Option<Inode> {
        let zero_based = u64::from(index.checked_sub(1)?);
        let (group, inside) = (
            zero_based / self.inodes_per_group,
            zero_based % self.inodes_per_group,
        );
        let descriptor = self.descriptors + usize::try_from(group).ok()? * self.descriptor_size;
        let low = number(self.image, descriptor + 8, 4)?;
        let high = if self.descriptor_size >= 64 {
            number(self.image, descriptor + 0x28, 4)?
        } else {
            0
        };
        let table = self.place(low | high << 32)?;
        let at = table + usize::try_from(inside).ok()? * self.inode_size;
        let inode = self.image.get(at..at + 128)?;
        let field = |at: usize, width: usize| number(inode, at, width);
        let mut pieces = Vec::new();
        if field(0x20, 4)? & EXTENTS != 0 {
            self.extents(&inode[0x28..0x64], 5, &mut pieces)?;
        }
        let length = field(4, 4)? | field(0x6C, 4)? << 32;
        let end = usize::try_from(length.min(MOST)).ok()?;
        pieces.retain(|p| p.inside < end);
        for piece in &mut pieces {
            piece.length = piece.length.min(end - piece.inside);
        }
        Some(Inode {
            mode: field(0, 2)? & 0xF000,
            length,
            pieces,
        })
    }

    /// Offset of a block in the image.
    fn place(&self, block: u64) -> Option<usize> {
        (block < self.blocks).then(|| self.base + block as usize * self.block)
    }

    /// Collects the pieces that a node of extents describes; `depth` is how many levels may follow.
    fn extents(&self, node: &[u8], depth: usize, pieces: &mut Vec<Piece>) -> Option<()> {
        let field = |at: usize, width: usize| number(node, at, width);
        if field(0, 2)? != EXTENT_MAGIC {
            return None;
        }
        let (entries, level) = (field(2, 2)? as usize, field(6, 2)?);
        for entry in 1..=entries {
            self.left.set(self.left.get().checked_sub(1)?);
            let at = 12 * entry;
            if level > 0 {
                let block = field(at + 4, 4)? | field(at + 8, 2)? << 32;
                let place = self.place(block)?;
                let below = self.image.get(place..place + self.block)?;
                self.extents(below, depth.checked_sub(1)?, pieces)?;
                continue;
            }
            let (inside, count) = (field(at, 4)?, field(at + 4, 2)?);
            if count > 0x8000 {
                continue; // Allocated, but reads as zero.
            }
            let block = field(at + 8, 4)? | field(at + 6, 2)? << 32;
            let length = usize::try_from(count).ok()? * self.block;
            let place = self.place(block)?;
            self.image.get(place..place.checked_add(length)?)?;
            let inside = usize::try_from(inside).ok()?.checked_mul(self.block)?;
            match pieces.last_mut() {
                Some(last)
                    if last.inside + last.length == inside && last.at + last.length == place =>
                {
                    last.length += length;
                }
                _ => pieces.push(Piece {
                    inside,
                    at: place,
                    length,
                }),
            }
        }
        Some(())
    }

    /// Returns the regular files.
    fn files(&self) -> Vec<Member> {
        let names = self.names();
        let all = 1..=u32::try_from(self.inodes).unwrap_or(0);
        all.filter_map(|index| {
            let inode = self.inode(index)?;
            let there: usize = inode.pieces.iter().map(|p| p.length).sum();
            // A file that is nearly all holes is not a program.
            let fits = inode.mode == 0x8000
                && inode.length <= MOST
                && inode.length / MOST_HOLES <= there as u64
                && there > 0;
            fits.then(|| Member {
                name: path(&names, index),
                pieces: inode.pieces,
            })
        })
        .collect()
    }

    /// Maps each inode to the directory that it is in, and its name there.
    fn names(&self) -> BTreeMap<u32, (u32, String)> {
        let mut names = BTreeMap::new();
        for index in ROOT..=u32::try_from(self.inodes).unwrap_or(0) {
            let Some(inode) = self.inode(index).filter(|i| i.mode == 0x4000) else {
                continue;
            };
            let blocks = inode
                .pieces
                .iter()
                .filter_map(|p| self.image.get(p.at..p.at + p.length));
            for block in blocks.flat_map(|bytes| bytes.chunks(self.block)) {
                entries(block, |child, name| {
                    if name != "." && name != ".." {
                        names.entry(child).or_insert((index, name.to_owned()));
                    }
                });
            }
        }
        names
    }
}

/// Calls `tell` for each entry in a block of a directory.
fn entries(block: &[u8], mut tell: impl FnMut(u32, &str)) {
    let mut at = 0;
    while let (Some(inode), Some(length), Some(name_length)) = (
        number(block, at, 4),
        number(block, at + 4, 2),
        number(block, at + 6, 1),
    ) {
        let name = block.get(at + 8..at + 8 + name_length as usize);
        if let (1.., Some(Ok(name))) = (inode, name.map(std::str::from_utf8)) {
            tell(inode as u32, name);
        }
        if length < 8 {
            break;
        }
        at += length as usize;
    }
}

/// Maximum number of directories named above a file.
const DEEPEST: usize = 64;

fn path(names: &BTreeMap<u32, (u32, String)>, index: u32) -> String {
    let mut parts = Vec::new();
    let mut at = index;
    while let Some((above, name)) = names.get(&at).filter(|_| parts.len() < DEEPEST) {
        parts.push(name.as_str());
        at = *above;
    }
    if parts.is_empty() {
        return format!("inode {index}");
    }
    parts.reverse();
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    #[test]
    fn files_of_a_real_file_system_are_found_with_their_holes() {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("usr/bin")).expect("a tree");
        let small: Vec<u8> = (0..5000u32).map(|i| (i * 7) as u8).collect();
        let mut holes = vec![0u8; 300_000];
        holes[..6000].fill(1);
        holes[200_000..].fill(2);
        fs::write(tree.join("usr/bin/small"), &small).expect("a file");
        fs::write(tree.join("holes"), &holes).expect("a file");
        let image_path = folder.path().join("image");
        let made = Command::new("/usr/sbin/mkfs.ext4")
            .args(["-q", "-q", "-F", "-d"])
            .stdout(std::process::Stdio::null())
            .arg(&tree)
            .arg(&image_path)
            .arg("8M")
            .status();
        match made {
            Ok(status) => assert!(status.success(), "mkfs.ext4: {status}"),
            Err(error) if std::env::var_os("CI").is_none() => {
                eprintln!("skipped: mkfs.ext4 does not run here: {error}");
                return;
            }
            Err(error) => panic!("mkfs.ext4 does not run: {error}"),
        }
        // A partition on a disk.
        let mut image = vec![0u8; 1 << 20];
        image.extend(fs::read(&image_path).expect("the image"));
        let files: BTreeMap<String, Vec<u8>> = files(&image)
            .expect("a file system")
            .into_iter()
            .map(|m| (m.name.clone(), m.bytes(&image).into_owned()))
            .collect();
        assert!(files.get("usr/bin/small") == Some(&small), "small");
        // A hole at the end of a file is in no piece.
        let found = files.get("holes").expect("holes");
        assert!(holes.starts_with(found), "holes: {} bytes", found.len());
        assert!(found.len() > 290_000, "{}", found.len());
    }

    #[test]
    fn what_is_damaged_is_left_out() {
        let mut image = vec![0u8; 64 << 10];
        image[SUPERBLOCK + 0x38] = 0x53;
        image[SUPERBLOCK + 0x39] = 0xEF;
        assert_eq!(files(&image), None);
        image[SUPERBLOCK..SUPERBLOCK + 0x38].fill(0xFF);
        assert_eq!(files(&image), None);
    }
}
