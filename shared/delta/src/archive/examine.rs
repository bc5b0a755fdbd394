//! Examination of an archive that somebody else may have made, by its headers alone.

use std::collections::BTreeMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use tar::EntryType as Type;
use tidegate_protocol::plain;

use super::links::{Links, check_links};
use super::losses::{NAMED, SPECIAL, told};
use super::unpack::inner_path;
use super::{ArchiveError, MAX_ENTRIES, dir_mode, file_mode, refused};

/// Longest extension of a header in bytes: a long name, or attributes of the next entry.
const EXTENSION: u64 = 64 << 10;
/// Longest path in bytes.
const PATH: usize = 4_095;
/// Bytes of all paths together: they are held while an archive is examined.
const PATHS: usize = 128 << 20;

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path, with `/`.
    pub path: String,
    /// Whether it is a symbolic link.
    pub is_link: bool,
}

/// Contents of an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// Entries in the archive's order.
    pub entries: Vec<Listed>,
    /// Losses and changes that unpacking would make, each with its path: some by name, the rest counted.
    pub losses: Vec<String>,
}

/// Reads the headers of an archive. Refuses what [`unpack_to`](super::unpack_to) refuses, and says what it
/// would drop: what [`pack`](super::pack()) makes has nothing of either.
pub fn examine(mut archive: impl Read + Seek) -> Result<Examined, ArchiveError> {
    let malformed = |e: io::Error| ArchiveError::Malformed(e.to_string());
    let length = archive.seek(SeekFrom::End(0)).map_err(malformed)?;
    archive.rewind().map_err(malformed)?;
    let mut reader = tar::Archive::new(archive);
    let mut found = Found::default();
    // Raw: each extension is bounded before it is read.
    for entry in reader.entries_with_seek().map_err(malformed)?.raw(true) {
        let mut entry = entry.map_err(malformed)?;
        let kind = entry.header().entry_type();
        if entry.size() > length.saturating_sub(entry.raw_file_position()) {
            return Err(ArchiveError::Malformed("it ends within an entry".into()));
        }
        if matches!(kind, Type::GNULongName | Type::GNULongLink | Type::XHeader) {
            let mut bytes = Vec::new();
            if entry.size() <= EXTENSION {
                entry.read_to_end(&mut bytes).map_err(malformed)?;
            }
            if bytes.is_empty() {
                let text = "a name or an extension of more than 64 KiB, or none";
                return Err(ArchiveError::Malformed(text.into()));
            }
            found.next.extend(kind, &bytes).map_err(malformed)?;
            continue;
        }
        let header = entry.header();
        let (path, link) = (header.path_bytes(), header.link_name_bytes());
        let facts = Facts {
            kind,
            mode: header.mode().map_err(malformed)?,
            owner: [
                header.uid().map_err(malformed)?,
                header.gid().map_err(malformed)?,
            ],
        };
        found.take(&path, link.as_deref(), &facts)?;
    }
    check_links(&found.links)?;
    if found.more > 0 {
        let more = format!("and {} more", found.more);
        found.examined.losses.push(more);
    }
    Ok(found.examined)
}

/// Facts of an entry's own header.
struct Facts {
    kind: Type,
    mode: u32,
    owner: [u64; 2],
}

/// Extensions that describe the next entry.
#[derive(Default)]
struct Next {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    losses: Vec<String>,
}

impl Next {
    fn extend(&mut self, kind: Type, bytes: &[u8]) -> io::Result<()> {
        let name = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        match kind {
            Type::GNULongName => only(&mut self.path, name)?,
            Type::GNULongLink => only(&mut self.link, name)?,
            _ => {
                for extension in tar::PaxExtensions::new(bytes) {
                    let extension = extension?;
                    self.one(extension.key_bytes(), extension.value_bytes())?;
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let key = String::from_utf8_lossy(key);
        let attribute = key
            .strip_prefix("SCHILY.xattr.")
            .or_else(|| key.strip_prefix("LIBARCHIVE.xattr."));
        match (&*key, attribute) {
            (_, Some(name)) => self.losses.push(told(&plain(name))),
            ("path", _) => only(&mut self.path, value)?,
            ("linkpath", _) => only(&mut self.link, value)?,
            ("size", _) => return Err(io::Error::other(TWO)),
            ("uid" | "gid", _) if value == b"0" => {}
            // Names of owners mean nothing without their numbers, and times are never carried.
            ("atime" | "ctime" | "mtime" | "comment" | "uname" | "gname", _) => {}
            ("uid" | "gid", _) => {
                let value = plain(&String::from_utf8_lossy(value));
                self.losses.push(format!("its owner, {key} {value}"));
            }
            _ => self.losses.push(format!("its {}", plain(&key))),
        }
        Ok(())
    }
}

/// Refusal of what two readers would take for two things.
const TWO: &str = "a name or a size that another one replaces";

fn only(place: &mut Option<Vec<u8>>, value: &[u8]) -> io::Result<()> {
    match place.replace(value.to_vec()) {
        None => Ok(()),
        Some(_) => Err(io::Error::other(TWO)),
    }
}

/// Kind of a path, its own entry's or as the folder of another one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Folder,
    Implied,
    File,
    Link,
}

#[derive(Default)]
struct Found {
    next: Next,
    places: BTreeMap<PathBuf, Place>,
    links: Links,
    bytes: usize,
    examined: Examined,
    more: usize,
}

impl Found {
    fn lose(&mut self, path: &str, what: &str) {
        if self.examined.losses.len() < NAMED {
            let path = plain(path);
            self.examined.losses.push(format!("{path}: {what}"));
        } else {
            self.more += 1;
        }
    }

    fn take(
        &mut self,
        path: &[u8],
        link: Option<&[u8]>,
        facts: &Facts,
    ) -> Result<(), ArchiveError> {
        let next = std::mem::take(&mut self.next);
        let text = |bytes: &[u8]| {
            let lossy = String::from_utf8_lossy(bytes).into_owned();
            if bytes.contains(&0) {
                return Err(refused(Path::new(&lossy), "its name has a zero byte"));
            }
            String::from_utf8(bytes.to_vec())
                .map_err(|_| refused(Path::new(&lossy), "its name is not UTF-8"))
        };
        let name = text(next.path.as_deref().unwrap_or(path))?;
        let path = inner_path(Path::new(&name))?;
        // As it stands in the archive, whatever separates names on this system.
        let parts = name.split('/').filter(|part| !matches!(*part, "" | "."));
        let name = parts.collect::<Vec<_>>().join("/");
        self.bytes += name.len();
        if name.len() > PATH {
            return Err(refused(&path, "its path has more than 4,095 bytes"));
        }
        if self.examined.entries.len() >= MAX_ENTRIES || self.bytes > PATHS {
            let rule = "there are more than 500,000 entries, or 128 MiB of names";
            return Err(refused(&path, rule));
        }
        let place = match facts.kind {
            Type::Directory => Place::Folder,
            Type::Regular => Place::File,
            Type::Symlink => Place::Link,
            other => return Err(refused(&path, no_entry(other))),
        };
        self.put(&path, place)?;
        if place == Place::Link {
            let to = next.link.as_deref().or(link);
            let to = to.ok_or_else(|| refused(&path, "the link has no target"))?;
            self.links.insert(path, PathBuf::from(text(to)?));
        } else {
            let given = facts.mode & 0o7777;
            for (bit, what) in SPECIAL {
                if given & bit != 0 {
                    self.lose(&name, what);
                }
            }
            let carried = if place == Place::Folder {
                dir_mode(given)
            } else {
                file_mode(given)
            };
            if given & 0o777 != carried {
                let what = format!("mode {given:04o}, which would become {carried:04o}");
                self.lose(&name, &what);
            }
        }
        let [user, group] = facts.owner;
        if facts.owner != [0, 0] {
            self.lose(&name, &format!("its owner, user {user} and group {group}"));
        }
        for what in next.losses {
            self.lose(&name, &what);
        }
        self.examined.entries.push(Listed {
            path: name,
            is_link: place == Place::Link,
        });
        Ok(())
    }

    /// Puts an entry in its place, and the folders above it.
    fn put(&mut self, path: &Path, place: Place) -> Result<(), ArchiveError> {
        for above in path.ancestors().skip(1) {
            match self.places.get(above) {
                // Those above it are there too.
                Some(Place::Folder | Place::Implied) => break,
                Some(Place::Link) => {
                    return Err(refused(path, "its path goes through a symbolic link"));
                }
                Some(Place::File) => return Err(refused(path, "its path goes through a file")),
                None => {
                    self.places.insert(above.to_owned(), Place::Implied);
                }
            }
        }
        match (self.places.insert(path.to_owned(), place), place) {
            (None, _) | (Some(Place::Implied), Place::Folder) => Ok(()),
            _ => Err(refused(path, "it appears twice")),
        }
    }
}

/// Rule that an entry of another type breaks.
fn no_entry(kind: Type) -> &'static str {
    match kind {
        Type::Link => "it is a hard link: only files, folders and symbolic links are unpacked",
        Type::GNUSparse => "it is a sparse file of GNU tar: make the archive without --sparse",
        Type::Char | Type::Block => {
            "it is a device: only files, folders and symbolic links are unpacked"
        }
        Type::Fifo => "it is a pipe: only files, folders and symbolic links are unpacked",
        _ => "only files, folders and symbolic links are unpacked",
    }
}
