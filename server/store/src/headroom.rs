//! Space for the database: whether it can be written, and a ballast beside SQLite's file that is given
//! back when others have filled its disk, so that a halt can still be written.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Size of the ballast, at most a sixteenth of its disk.
const BALLAST: u64 = 16 << 20;
/// Bytes that are given back at a time. An order takes less than a tenth of it; the rest of the ballast
/// stays out of reach of whatever fills the disk.
const SLICE: u64 = 4 << 20;
/// Free bytes below which an order would not surely be written.
const LOW: u64 = 1 << 20;
/// Bytes that stay free when the ballast is made, at most an eighth of the disk.
const KEPT_FREE: u64 = 64 << 20;

const FULL: &str = "the disk of the database is full";
const READ_ONLY: &str = "the database, or its disk, can only be read";

/// Space on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that this process may still use.
    pub free: u64,
    /// Size in bytes.
    pub total: u64,
    /// Whether it can only be read.
    pub read_only: bool,
}

impl Space {
    /// Space where a path lies; `None` where this cannot be found out.
    #[cfg(unix)]
    pub fn at(path: &Path) -> Option<Self> {
        let disk = rustix::fs::statvfs(path).ok()?;
        Some(Self {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            total: disk.f_blocks.saturating_mul(disk.f_frsize),
            read_only: disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
        })
    }

    /// Space where a path lies; `None` where this cannot be found out.
    #[cfg(not(unix))]
    pub fn at(_: &Path) -> Option<Self> {
        None
    }

    /// Bytes that uploads and the ballast leave free.
    pub fn kept(&self) -> u64 {
        KEPT_FREE.min(self.total / 8)
    }

    /// Size of a whole ballast on this file system.
    pub fn ballast(&self) -> u64 {
        BALLAST.min(self.total / 16)
    }
}

/// Name of the ballast beside a database file.
pub fn ballast_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".ballast");
    PathBuf::from(name)
}

/// State of the database's headroom.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HeadroomStanding {
    /// Reason that the last write failed for; `None` while writes succeed.
    pub failing: Option<String>,
    /// Space on the disk of a SQLite database.
    pub space: Option<Space>,
    /// Bytes of the ballast.
    pub ballast: u64,
    /// Bytes that the ballast lacks.
    pub missing: u64,
}

/// Headroom of one database: its failures and its ballast.
#[derive(Debug)]
pub(super) struct Headroom {
    /// File of SQLite; `None` for a database that has no file here.
    file: Option<PathBuf>,
    failing: Mutex<Option<String>>,
    /// Whether a write failed for want of room and some was made since.
    made: AtomicBool,
    /// Held while the ballast changes.
    ballast: Mutex<()>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Headroom {
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self {
            file,
            failing: Mutex::default(),
            made: AtomicBool::new(false),
            ballast: Mutex::default(),
        }
    }

    /// Notes that a write succeeded.
    pub(super) fn note_written(&self) {
        if let Some(reason) = lock(&self.failing).take() {
            tracing::info!(reason, "the database can be written again");
        }
    }

    /// Notes the failure of a write. Gives room back where it failed for want of it.
    pub(super) fn note_failure(&self, error: &sqlx::Error) {
        let Some(reason) = self.cause(error) else {
            return;
        };
        // What cannot be written says "write failed", whatever the cause.
        let space = self.file.as_deref().and_then(Space::at);
        let reason = match space {
            Some(space) if space.read_only => READ_ONLY,
            Some(space) if space.free < LOW && is_full(error) => FULL,
            _ => reason,
        };
        let before = lock(&self.failing).replace(reason.to_owned());
        if before.as_deref() != Some(reason) {
            tracing::error!(reason, "the database cannot be written");
        }
        if is_full(error) && reason != READ_ONLY && self.give_back() {
            self.made.store(true, Ordering::Relaxed);
        }
    }

    /// Returns, once for each time, whether room was made since a write failed for want of it.
    pub(super) fn has_made(&self) -> bool {
        self.made.swap(false, Ordering::Relaxed)
    }

    /// Reason of the storage for a failure; `None` for a failure of another kind.
    fn cause(&self, error: &sqlx::Error) -> Option<&'static str> {
        let sqlx::Error::Database(error) = error else {
            return None;
        };
        let code = error.code()?;
        if self.file.is_none() {
            return match (code.as_ref(), code.get(..2)?) {
                ("53100", _) => Some("the disk of PostgreSQL is full"),
                ("25006", _) => {
                    Some("PostgreSQL takes no writes: it is a standby, or set to read-only")
                }
                (_, "53") => Some("PostgreSQL lacks memory or connections"),
                (_, "58") => Some("the disk of PostgreSQL fails"),
                _ => None,
            };
        }
        // The lowest byte of a code is its kind.
        match code.parse::<u32>().ok()? & 0xff {
            13 => Some(FULL),
            8 => Some(READ_ONLY),
            10 => Some("the disk of the database fails, or a quota is used up"),
            14 => Some("a file of the database cannot be opened"),
            11 | 26 => Some("the database is damaged"),
            _ => None,
        }
    }

    /// Gives a slice of the ballast back if the disk has no room for an order.
    pub(super) fn make(&self) {
        let Some(file) = &self.file else { return };
        if Space::at(file).is_some_and(|space| space.free < LOW && !space.read_only) {
            self.give_back();
        }
    }

    /// Gives a slice of the ballast back; returns whether there was any.
    fn give_back(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let _held = lock(&self.ballast);
        let path = ballast_of(file);
        let have = length(&path);
        if have == 0 {
            return false;
        }
        let left = have.saturating_sub(SLICE);
        let shortened = File::options().write(true).open(&path).and_then(|file| {
            file.set_len(left)?;
            // Some file systems free the bytes with the next sync only.
            file.sync_all()
        });
        if let Err(error) = shortened {
            tracing::error!(%error, "the ballast beside the database could not be given back");
            return false;
        }
        tracing::error!(
            given_back_mib = (have - left) >> 20,
            left_mib = left >> 20,
            "the disk of the database is full: ballast was given back, so that orders can be written; make room on it"
        );
        true
    }

    /// Makes the ballast, or what is missing of it, if the disk has room.
    pub(super) fn keep_ballast(&self) {
        let Some(file) = &self.file else { return };
        let Some(space) = Space::at(file).filter(|space| !space.read_only) else {
            return;
        };
        let _held = lock(&self.ballast);
        let path = ballast_of(file);
        let (have, whole) = (length(&path), space.ballast());
        if have >= whole || space.free < (whole - have).saturating_add(space.kept()) {
            return;
        }
        match fill(&path, have, whole) {
            Ok(()) => tracing::info!(
                mib = whole >> 20,
                "the ballast beside the database is whole"
            ),
            Err(error) => {
                tracing::warn!(%error, "the ballast beside the database could not be made");
                let file = File::options().write(true).open(&path);
                let _ = file.and_then(|file| file.set_len(have));
            }
        }
    }

    pub(super) fn standing(&self) -> HeadroomStanding {
        let failing = lock(&self.failing).clone();
        let space = self.file.as_deref().and_then(Space::at);
        let ballast = self
            .file
            .as_deref()
            .map_or(0, |file| length(&ballast_of(file)));
        let whole = space.map_or(0, |space| space.ballast());
        HeadroomStanding {
            failing,
            space,
            ballast,
            missing: whole.saturating_sub(ballast),
        }
    }
}

/// Returns whether a write failed for want of room.
pub(super) fn is_full(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(error) = error else {
        return false;
    };
    // SQLITE_FULL; and a write, sync, truncation or growth of shared memory that failed, as with a quota.
    // PostgreSQL has codes of five characters.
    let code = error.code();
    let code = code.as_deref().filter(|code| code.len() < 5);
    matches!(code, Some("13" | "778" | "1034" | "1546" | "4874"))
}

fn length(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Takes the bytes of a file from one length to another from the disk.
fn fill(path: &Path, from: u64, to: u64) -> io::Result<()> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let file = options.open(path)?;
    #[cfg(target_os = "linux")]
    {
        let flags = rustix::fs::FallocateFlags::empty();
        if rustix::fs::fallocate(&file, flags, from, to - from).is_ok() {
            return file.sync_all();
        }
    }
    write_out(&file, from, to)?;
    file.sync_all()
}

/// Writes bytes that no file system can pack, where none can be reserved.
fn write_out(mut file: &File, from: u64, to: u64) -> io::Result<()> {
    use std::io::{Seek as _, Write as _};
    file.seek(io::SeekFrom::Start(from))?;
    let mut state = from | 1;
    let mut left = to - from;
    while left > 0 {
        let block: Vec<u8> = std::iter::repeat_with(|| {
            // xorshift64: not random, only without a pattern.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()
        })
        .take(8192)
        .flatten()
        .collect();
        let length = left.min(block.len() as u64);
        file.write_all(&block[..usize::try_from(length).unwrap_or(block.len())])?;
        left -= length;
    }
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn a_ballast_takes_its_bytes_and_gives_them_back_slice_by_slice() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tidegate.db");
        std::fs::write(&file, "").unwrap();
        let room = Headroom::new(Some(file.clone()));
        room.keep_ballast();
        let whole = Space::at(&file).unwrap().ballast();
        let meta = std::fs::metadata(ballast_of(&file)).unwrap();
        assert_eq!((meta.len(), meta.mode() & 0o777), (whole, 0o600));
        assert!(meta.blocks() * 512 >= whole, "{} blocks", meta.blocks());
        assert_eq!(room.standing().missing, 0);
        assert!(room.give_back());
        assert_eq!(room.standing().missing, SLICE.min(whole));
        while room.give_back() {}
        assert_eq!(room.standing().ballast, 0);
        room.keep_ballast();
        assert_eq!(room.standing().ballast, whole);
    }

    #[test]
    fn a_ballast_that_is_written_out_takes_its_bytes_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ballast");
        let file = File::create(&path).unwrap();
        write_out(&file, 0, 300_000).unwrap();
        write_out(&file, 300_000, 500_001).unwrap();
        file.sync_all().unwrap();
        let meta = file.metadata().unwrap();
        assert_eq!(meta.len(), 500_001);
        assert!(meta.blocks() * 512 >= 500_001);
    }
}
