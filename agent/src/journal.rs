//! The journal: one record, checksummed, in two files that are replaced in turn.
//!
//! The file with the higher sequence number whose checksum holds is the record. Each write is
//! durable before it is acted upon. When both files are there and neither can be read, the agent
//! stops: starting anew in silence would forget the floors.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fs::{Fs, Mode};
use crate::fsm::Record;

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("{path}", path = path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An enrolled device has lost it.
    #[error(
        "both copies of the journal in {0} are gone, though the device is enrolled; nothing is \
         changed. Restore one of them, or enrol this device anew in an empty state directory"
    )]
    Gone(PathBuf),
    /// Neither copy can be read.
    #[error(
        "both copies of the journal in {0} are damaged; nothing is changed. Restore one of them, or \
         enrol this device anew in an empty state directory"
    )]
    Damaged(PathBuf),
    /// The record cannot be written as text.
    #[error("the record cannot be written")]
    Encode(#[source] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Numbered {
    write: u64,
    record: Record,
}

/// The journal of one device.
pub struct Journal {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    write: u64,
    record: Record,
}

/// A record of ordinary size has a few KB; nothing larger than this is read.
const MAX_BYTES: u64 = 1 << 20;

impl Journal {
    /// Reads the journal of a device that is enrolled: one that is gone is not begun anew, because
    /// that would forget the floors.
    pub fn open_enrolled(fs: Arc<dyn Fs>, dir: &Path) -> Result<Self, JournalError> {
        let journal = Self::open(fs, dir)?;
        if journal.write == 0 {
            return Err(JournalError::Gone(dir.to_owned()));
        }
        Ok(journal)
    }

    /// Reads the journal of a state directory; begins one where there is none.
    pub fn open(fs: Arc<dyn Fs>, dir: &Path) -> Result<Self, JournalError> {
        let mut newest: Option<Numbered> = None;
        let mut damaged = 0;
        for name in NAMES {
            let path = dir.join(name);
            match read(&*fs, &path) {
                Ok(Some(found)) => {
                    if newest.as_ref().is_none_or(|n| found.write > n.write) {
                        newest = Some(found);
                    }
                }
                Ok(None) => {}
                Err(ReadError::Damaged) => damaged += 1,
                Err(ReadError::Io(source)) => return Err(JournalError::Io { path, source }),
            }
        }
        match newest {
            Some(Numbered { write, record }) => {
                if damaged > 0 {
                    crate::log::line("one copy of the journal is damaged; the other one is used");
                }
                Ok(Self {
                    fs,
                    dir: dir.to_owned(),
                    write,
                    record,
                })
            }
            None if damaged > 0 => Err(JournalError::Damaged(dir.to_owned())),
            None => Ok(Self {
                fs,
                dir: dir.to_owned(),
                write: 0,
                record: Record::new(),
            }),
        }
    }

    /// How often it was written.
    pub fn writes(&self) -> u64 {
        self.write
    }

    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Makes a new record durable. Nothing is written when it is the same.
    pub fn write(&mut self, record: Record) -> Result<(), JournalError> {
        if record == self.record && self.write > 0 {
            return Ok(());
        }
        let numbered = Numbered {
            write: self.write + 1,
            record,
        };
        let json = serde_json::to_vec(&numbered).map_err(JournalError::Encode)?;
        let mut bytes = tidegate_delta::sha256(&json).to_string().into_bytes();
        bytes.push(b'\n');
        bytes.extend(json);
        let path = self.dir.join(NAMES[usize::from(numbered.write % 2 == 1)]);
        self.fs
            .replace(&path, &bytes, Mode::Private)
            .map_err(|source| JournalError::Io { path, source })?;
        self.write = numbered.write;
        self.record = numbered.record;
        Ok(())
    }
}

const NAMES: [&str; 2] = ["journal.a", "journal.b"];

enum ReadError {
    Io(io::Error),
    Damaged,
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
    serde_json::from_slice(json)
        .map(Some)
        .map_err(|_| ReadError::Damaged)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::fs::Real;

    fn open(dir: &Path) -> Result<Journal, JournalError> {
        Journal::open(Arc::new(Real), dir)
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
    fn a_journal_of_which_nothing_is_left_stops_the_agent() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Journal::open_enrolled(Arc::new(Real), dir.path()),
            Err(JournalError::Gone(_))
        ));
        open(dir.path()).unwrap().write(record(1)).unwrap();
        fs::write(dir.path().join("journal.b"), "rubbish").unwrap();
        assert!(matches!(open(dir.path()), Err(JournalError::Damaged(_))));
    }
}
