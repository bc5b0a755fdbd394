//! The journal: one record, checksummed, in two files that are replaced in turn.
//!
//! The file with the higher sequence number whose checksum holds is the record. Each write is
//! durable before it is acted upon. When both files are there and neither can be read, the agent
//! stops: starting anew in silence would forget the floors.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_protocol::{Format, Reason, UnsupportedFormat};

use crate::fs::{Fs, Mode, Open, io_reason};
use crate::fsm::Record;

/// Reason why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("{path}", path = path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// Error from the operating system.
        #[source]
        source: io::Error,
    },
    /// An enrolled device has lost it.
    #[error(
        "both copies of the journal in {0} are missing, though the device is enrolled; nothing was \
         changed. Restore one of them, or enroll this device again with an empty state directory"
    )]
    Gone(PathBuf),
    /// Neither copy can be read.
    #[error(
        "both copies of the journal in {0} are damaged; nothing is changed. Restore one of them, or \
         enroll this device anew in an empty state directory"
    )]
    Damaged(PathBuf),
    /// It was written by an agent of another format.
    #[error(
        "the journal in {0} was written by another version of the agent; nothing is changed. Start \
         that version again, or enroll this device anew in an empty state directory"
    )]
    Format(PathBuf, #[source] UnsupportedFormat),
    /// The record has more bytes than a reader takes.
    #[error("the record has {0} bytes, more than a journal may have")]
    TooLarge(usize),
    /// The record cannot be serialized.
    #[error("the record cannot be written")]
    Encode(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Numbered {
    format: Format,
    write: u64,
    record: Record,
}

#[derive(Deserialize)]
struct Head {
    #[serde(default = "Format::unnamed")]
    format: Format,
}

/// The journal of one device.
pub struct Journal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Minimum size of a record in bytes.
    room: usize,
    write: u64,
    record: Record,
    damaged: bool,
}

/// Request numbers skipped when one copy is lost.
const SKIPPED: u64 = 16;
/// Upper bound on a journal file, in bytes. An ordinary record has a few KB; one with a full outbox
/// of the longest reasons, all of it escaped, has under 1 MiB.
const MAX_BYTES: u64 = 4 << 20;

impl Journal {
    /// Opens the journal of an enrolled device. A lost one is an error: a new one would forget the
    /// floors. `room` is as in [`Journal::open`].
    pub fn open_enrolled(fs: Arc<dyn Fs>, dir: &Path, room: usize) -> Result<Self, JournalError> {
        let journal = Self::open(fs, dir, room)?;
        if journal.write == 0 {
            return Err(JournalError::Gone(dir.to_owned()));
        }
        Ok(journal)
    }

    /// Opens the journal of a state directory, or begins one if there is none. A record shorter
    /// than `room` bytes is padded to it, so that a later one fits over it on a full disk.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path, room: usize) -> Result<Self, JournalError> {
        let mut newest: Option<Numbered> = None;
        let (mut damaged, mut copies, mut failed) = (0, 0, None);
        for name in NAMES {
            let path = dir.join(name);
            match read(&*fs, &path) {
                Ok(Some(found)) => {
                    copies += 1;
                    if newest.as_ref().is_none_or(|n| found.write > n.write) {
                        newest = Some(found);
                    }
                }
                Ok(None) => {}
                Err(ReadError::Damaged) => damaged += 1,
                Err(ReadError::Format(error)) => {
                    return Err(JournalError::Format(dir.to_owned(), error));
                }
                // Storage that has lost one copy may have the other.
                Err(ReadError::Io(source)) => failed = Some(JournalError::Io { path, source }),
            }
        }
        match newest {
            Some(Numbered {
                write, mut record, ..
            }) => {
                if copies == 1 && write > 1 {
                    // The lost copy may have used up numbers, and none may be used twice.
                    record.requests = record.requests.saturating_add(SKIPPED);
                }
                Ok(Self {
                    fs,
                    dir: dir.to_owned(),
                    room,
                    write,
                    record,
                    damaged: damaged > 0 || failed.is_some(),
                })
            }
            None => match failed {
                Some(error) => Err(error),
                None if damaged > 0 => Err(JournalError::Damaged(dir.to_owned())),
                None => Ok(Self {
                    fs,
                    dir: dir.to_owned(),
                    room,
                    write: 0,
                    record: Record::new(),
                    damaged: false,
                }),
            },
        }
    }

    /// Number of writes so far.
    pub fn writes(&self) -> u64 {
        self.write
    }

    /// Returns whether one copy could not be read when it was opened, and the other one is used.
    pub fn has_damaged_copy(&self) -> bool {
        self.damaged
    }

    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Returns a copy of the record, to be changed and written.
    pub fn draft(&self) -> Record {
        self.record.clone()
    }

    /// Makes a new record durable. An unchanged one is not written.
    pub fn write(&mut self, record: Record) -> Result<(), JournalError> {
        if record == self.record && self.write > 0 {
            return Ok(());
        }
        let numbered = Numbered {
            format: Format::CURRENT,
            write: self.write + 1,
            record,
        };
        let mut json = serde_json::to_vec(&numbered).map_err(JournalError::Encode)?;
        json.resize(json.len().max(self.room), b' ');
        let mut bytes = tidegate_delta::sha256(&json).to_string().into_bytes();
        bytes.push(b'\n');
        bytes.extend(json);
        // One that is cut when it is read would count as damaged.
        if bytes.len() as u64 > MAX_BYTES {
            return Err(JournalError::TooLarge(bytes.len()));
        }
        let path = self.dir.join(NAMES[usize::from(numbered.write % 2 == 1)]);
        self.fs
            .replace(&path, &bytes, Mode::Private)
            .or_else(|error| self.write_without_room(&path, &bytes, error))
            .map_err(|source| JournalError::Io { path, source })?;
        self.write = numbered.write;
        self.record = numbered.record;
        Ok(())
    }

    /// Writes on a full disk, where a rollback must still be recorded: over the older copy, which
    /// takes no new space while the newest one stays whole, or else into the space of the reserve.
    fn write_without_room(&self, path: &Path, bytes: &[u8], full: io::Error) -> io::Result<()> {
        if io_reason(&full) != Reason::DiskFull {
            return Err(full);
        }
        let over = || {
            let file = self.fs.open(path, Open::Existing)?;
            if file.length()? < bytes.len() as u64 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            file.write_all_at(bytes, 0)?;
            file.set_length(bytes.len() as u64)?;
            file.sync()
        };
        over().or_else(|_| {
            // Without a reserve, report the full disk and not the missing file.
            let freed = self.fs.remove_file(&self.dir.join(RESERVE));
            freed.map_err(|_| full)?;
            self.fs.replace(path, bytes, Mode::Private)
        })
    }
}

/// File whose space the journal takes on a full disk; the driver makes it while there is space.
pub const RESERVE: &str = "reserve";

const NAMES: [&str; 2] = ["journal.a", "journal.b"];

enum ReadError {
    Io(io::Error),
    Damaged,
    Format(UnsupportedFormat),
}

fn read(fs: &dyn Fs, path: &Path) -> Result<Option<Numbered>, ReadError> {
    let Some(bytes) = fs.read(path, MAX_BYTES).map_err(ReadError::Io)? else {
        return Ok(None);
    };
    let split = bytes
        .iter()
        .position(|b| *b == b'\n')
        .ok_or(ReadError::Damaged)?;
    let (sum, json) = (&bytes[..split], &bytes[split + 1..]);
    if sum != tidegate_delta::sha256(json).to_string().as_bytes() {
        return Err(ReadError::Damaged);
    }
    // Before the record is read: one of another format has other fields.
    let head: Head = serde_json::from_slice(json).map_err(|_| ReadError::Damaged)?;
    head.format
        .check("the journal", "this agent")
        .map_err(ReadError::Format)?;
    serde_json::from_slice(json)
        .map(Some)
        .map_err(|_| ReadError::Damaged)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::folders::Folders;

    const ROOM: usize = 1 << 10;

    fn open(dir: &Path) -> Result<Journal, JournalError> {
        Journal::open(Arc::new(Folders), dir, ROOM)
    }

    fn record(counter: u64) -> Record {
        Record {
            counter,
            ..Record::new()
        }
    }

    #[test]
    fn the_newest_whole_copy_wins() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path()).unwrap();
        for counter in 1..=5 {
            journal.write(record(counter)).unwrap();
        }
        assert_eq!(open(dir.path()).unwrap().record().counter, 5);
        // The newest copy is lost half way through a write: the one before it is used.
        let newest = dir.path().join("journal.b");
        let bytes = fs::read(&newest).unwrap();
        fs::write(&newest, &bytes[..bytes.len() / 2]).unwrap();
        assert_eq!(open(dir.path()).unwrap().record().counter, 4);
    }

    #[test]
    fn a_record_that_no_reader_would_take_is_refused_and_the_one_before_it_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(Arc::new(Folders), dir.path(), ROOM).unwrap();
        journal.write(record(1)).unwrap();
        // As large as a reader takes, and one byte larger.
        let most = usize::try_from(MAX_BYTES).unwrap() - 65;
        journal.room = most;
        journal.write(record(2)).unwrap();
        assert_eq!(open(dir.path()).unwrap().record().counter, 2);
        journal.room = most + 1;
        let refused = journal.write(record(3)).unwrap_err();
        assert!(matches!(refused, JournalError::TooLarge(_)), "{refused}");
        assert_eq!(open(dir.path()).unwrap().record().counter, 2);
    }

    #[test]
    fn one_copy_is_enough_and_no_number_of_a_request_is_used_twice() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path()).unwrap();
        for requests in 1..=5 {
            let record = Record {
                requests,
                ..Record::new()
            };
            journal.write(record).unwrap();
        }
        // The newest cannot be read at all, as from a bad sector.
        fs::remove_file(dir.path().join("journal.b")).unwrap();
        fs::create_dir(dir.path().join("journal.b")).unwrap();
        let found = open(dir.path()).unwrap();
        assert!(found.record().requests > 5, "{}", found.record().requests);
    }

    #[test]
    fn what_does_not_fit_on_the_disk_is_written_over_the_older_copy() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path()).unwrap();
        for counter in 1..=3 {
            journal.write(record(counter)).unwrap();
        }
        let full = || io::Error::from(io::ErrorKind::StorageFull);
        let path = dir.path().join("journal.a");
        let newest = fs::read(dir.path().join("journal.b")).unwrap();
        journal.write_without_room(&path, &newest, full()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), newest);
        // A larger record takes the reserve's space.
        let more = vec![b'x'; newest.len() + 1];
        assert!(journal.write_without_room(&path, &more, full()).is_err());
        fs::write(dir.path().join(RESERVE), [0; 100]).unwrap();
        journal.write_without_room(&path, &more, full()).unwrap();
        assert!(!dir.path().join(RESERVE).exists());
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(journal.write_without_room(&path, &more, denied).is_err());
    }

    #[test]
    fn a_journal_of_another_format_is_not_taken_for_a_damaged_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path()).unwrap();
        journal.write(record(1)).unwrap();
        let path = dir.path().join("journal.b");
        let json = br#"{"write":1,"record":{"fields":"of before"}}"#;
        let sum = tidegate_delta::sha256(json);
        fs::write(&path, [sum.to_string().as_bytes(), b"\n", json].concat()).unwrap();
        let error = open(dir.path()).err().unwrap();
        assert!(matches!(error, JournalError::Format(..)), "{error}");
        let text = tidegate_protocol::error_chain(&error);
        assert!(
            text.contains("the journal uses format 1 and this agent uses format 2"),
            "{text}"
        );
    }

    #[test]
    fn a_journal_of_which_nothing_is_left_stops_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Journal::open_enrolled(Arc::new(Folders), dir.path(), ROOM),
            Err(JournalError::Gone(_))
        ));
        open(dir.path()).unwrap().write(record(1)).unwrap();
        fs::write(dir.path().join("journal.b"), "rubbish").unwrap();
        assert!(matches!(open(dir.path()), Err(JournalError::Damaged(_))));
    }
}
