//! Chunks of a payload on the medium: a file per chunk, and a note.
//!
//! The note says which chunks are verified and how much of the others is durable; it is written
//! after the data is synced, so it is never ahead of the data. Within one boot the length of a
//! chunk's file shows its progress: a killed process loses nothing. After a power cut only the note
//! is trusted.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tidegate_delta::{Hasher, Manifest};
use tidegate_protocol::{Explained, Sha256};

use crate::fs::{Fs, FsFile, Mode, Open};

/// Durable progress of a payload.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The payload, by its hash.
    payload: String,
    /// Boot id at the time it was written.
    start: String,
    /// Bitmap of the verified chunks, in hexadecimal.
    verified: String,
    /// Chunks in progress: index and durable bytes.
    begun: Vec<(usize, u64)>,
    /// Sources of the chunks in progress.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    sources: Vec<(usize, String)>,
    /// Bytes received over the network for it.
    #[serde(default)]
    fetched: u64,
}

/// Name of the note.
const NOTE: &str = "have";
/// Upper bound on the size of a note, in bytes: it has a bit per chunk.
const MAX_NOTE: u64 = 1 << 20;

/// The chunks of one payload.
pub(crate) struct Store {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    payload: Sha256,
    /// Boot id of the machine; empty if unknown.
    start: String,
    chunks: Vec<State>,
    /// Bytes written since the last note.
    unsynced: u64,
    fetched: u64,
    /// Value of `fetched` in the last note.
    noted: u64,
}

enum State {
    Absent,
    /// Partly in its file.
    Begun(Filling),
    /// Complete and synced, not yet noted.
    Whole,
    /// Verified and durable.
    Noted,
}

/// A chunk in progress.
struct Filling {
    file: Option<Box<dyn FsFile>>,
    hasher: Hasher,
    /// The one source of all its bytes; empty if nothing says it.
    source: String,
}

impl Store {
    /// Opens the store and resumes from what is on the medium.
    pub(crate) fn open(
        fs: Arc<dyn Fs>,
        dir: &Path,
        manifest: &Manifest,
        start: &str,
    ) -> io::Result<Self> {
        let mut store = Self {
            fs,
            dir: dir.to_owned(),
            payload: manifest.payload.sha256,
            start: start.to_owned(),
            chunks: manifest.chunks.iter().map(|_| State::Absent).collect(),
            unsynced: 0,
            fetched: 0,
            noted: 0,
        };
        let note = store.read_note()?;
        store.fetched = note.fetched;
        store.noted = note.fetched;
        let bits = hex::decode(&note.verified).unwrap_or_default();
        let same_start = !start.is_empty() && note.start == start;
        for (index, chunk) in manifest.chunks.iter().enumerate() {
            let path = store.chunk_path(index);
            let Some(length) = store.length(&path)? else {
                continue;
            };
            let length = length.min(u64::from(chunk.length));
            if bits
                .get(index / 8)
                .is_some_and(|byte| byte >> (index % 8) & 1 == 1)
                && length == u64::from(chunk.length)
            {
                store.chunks[index] = State::Noted;
                continue;
            }
            let noted = note.begun.iter().find(|(of, _)| *of == index);
            let believed = if same_start {
                length
            } else {
                noted.map_or(0, |(_, bytes)| length.min(*bytes))
            };
            // The last byte is always fetched, so that a complete chunk without a note is verified
            // with it.
            let believed = believed.min(u64::from(chunk.length).saturating_sub(1));
            let mut filling = store.take_up(&path, believed)?;
            let source = note.sources.iter().find(|(of, _)| *of == index);
            if let Some((_, source)) = source {
                filling.source.clone_from(source);
            }
            store.chunks[index] = State::Begun(filling);
        }
        Ok(store)
    }

    fn length(&self, path: &Path) -> io::Result<Option<u64>> {
        match self.fs.open(path, Open::Kept) {
            Ok(file) => file.length().map(Some),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::InvalidData
                ) =>
            {
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// Reopens a chunk in progress, cuts it to its trusted length and hashes that.
    fn take_up(&self, path: &Path, believed: u64) -> io::Result<Filling> {
        let file = self.fs.open(path, Open::Sole)?;
        file.set_length(believed)?;
        let mut hasher = Hasher::new();
        let mut buffer = vec![0; 64 << 10];
        while hasher.length() < believed {
            let left = usize::try_from(believed - hasher.length()).unwrap_or(usize::MAX);
            let part = &mut buffer[..left.min(64 << 10)];
            file.read_exact_at(part, hasher.length())?;
            hasher.update(part);
        }
        Ok(Filling {
            file: Some(file),
            hasher,
            source: String::new(),
        })
    }

    fn read_note(&self) -> io::Result<Note> {
        let bytes = self.fs.read(&self.note_path(), MAX_NOTE)?;
        let note: Note = bytes
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        if note.payload == self.payload.to_string() {
            return Ok(note);
        }
        // The note belongs to another payload, and so do these chunks.
        for (name, _) in self.fs.list(&self.dir)? {
            if name.to_string_lossy().starts_with("chunk.") {
                self.fs.remove_tree(&self.dir.join(name))?;
            }
        }
        let ours = Note {
            payload: self.payload.to_string(),
            start: self.start.clone(),
            ..Note::default()
        };
        self.write_note(&ours)?;
        Ok(ours)
    }

    fn write_note(&self, note: &Note) -> io::Result<()> {
        let bytes = serde_json::to_vec(note).map_err(io::Error::other)?;
        self.fs.replace(&self.note_path(), &bytes, Mode::Private)
    }

    fn note_path(&self) -> PathBuf {
        self.dir.join(NOTE)
    }

    fn chunk_path(&self, index: usize) -> PathBuf {
        self.dir.join(format!("chunk.{index}"))
    }

    /// Returns whether a chunk is complete.
    pub(crate) fn has(&self, index: usize) -> bool {
        matches!(self.chunks[index], State::Whole | State::Noted)
    }

    /// Bytes on the medium, in complete chunks and those in progress.
    pub(crate) fn bytes(&self, manifest: &Manifest) -> u64 {
        self.chunks
            .iter()
            .zip(&manifest.chunks)
            .map(|(state, chunk)| match state {
                State::Absent => 0,
                State::Begun(open) => open.hasher.length(),
                State::Whole | State::Noted => u64::from(chunk.length),
            })
            .sum()
    }

    /// Bytes on the medium of a chunk in progress; 0 for any other.
    pub(crate) fn begun(&self, index: usize) -> u64 {
        match &self.chunks[index] {
            State::Begun(open) => open.hasher.length(),
            _ => 0,
        }
    }

    /// Source of a chunk in progress; `None` if it has no bytes yet, or nothing says whose they are.
    pub(crate) fn source(&self, index: usize) -> Option<&str> {
        match &self.chunks[index] {
            State::Begun(open) if open.hasher.length() > 0 && !open.source.is_empty() => {
                Some(&open.source)
            }
            _ => None,
        }
    }

    /// Prepares a chunk for bytes of one source, and discards those of any other: a hash over bytes
    /// of two sources does not show which of them lies. Bytes of nobody's are kept only if this
    /// source is the `sole` one.
    pub(crate) fn begin(&mut self, index: usize, source: &str, sole: bool) -> io::Result<()> {
        if matches!(self.chunks[index], State::Absent) {
            self.chunks[index] = State::Begun(Filling {
                file: None,
                hasher: Hasher::new(),
                source: source.to_owned(),
            });
        }
        let State::Begun(open) = &mut self.chunks[index] else {
            return Ok(());
        };
        let kept = open.source == source || (sole && open.source.is_empty());
        let stale = !kept && open.hasher.length() > 0;
        source.clone_into(&mut open.source);
        if stale {
            open.hasher = Hasher::new();
            if let Some(file) = &open.file {
                file.set_length(0)?;
            }
            // The note still names the other source; bytes of this one must not be taken for its.
            self.note()?;
        }
        Ok(())
    }

    /// Counts bytes received over the network, needed or not.
    pub(crate) fn count(&mut self, bytes: u64) {
        self.fetched += bytes;
    }

    /// Bytes received over the network for this payload, across restarts of the agent.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched
    }

    /// Bytes that are not durable yet.
    pub(crate) fn unsynced(&self) -> u64 {
        self.unsynced
    }

    /// Appends bytes to a chunk; excess ones are ignored. A chunk that becomes complete is
    /// verified: `Ok(false)` if it is not what the manifest promises, and then it starts over
    /// empty.
    pub(crate) fn append(
        &mut self,
        manifest: &Manifest,
        index: usize,
        bytes: &[u8],
    ) -> io::Result<bool> {
        let chunk = manifest.chunks[index];
        if self.has(index) {
            return Ok(true);
        }
        if matches!(self.chunks[index], State::Absent) {
            self.chunks[index] = State::Begun(Filling {
                file: None,
                hasher: Hasher::new(),
                source: String::new(),
            });
        }
        let path = self.chunk_path(index);
        let State::Begun(open) = &mut self.chunks[index] else {
            return Ok(true);
        };
        if open.file.is_none() {
            open.file = Some(self.fs.open(&path, Open::Update(Mode::Private))?);
        }
        let Some(file) = &open.file else {
            return Ok(true);
        };
        let left = u64::from(chunk.length) - open.hasher.length();
        let take = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all_at(&bytes[..take], open.hasher.length())?;
        open.hasher.update(&bytes[..take]);
        self.unsynced += take as u64;
        if open.hasher.length() < u64::from(chunk.length) {
            return Ok(true);
        }
        let good = std::mem::take(&mut open.hasher).finish().sha256 == chunk.sha256;
        if good {
            // `sync` skips closed files, so this one is synced here.
            file.sync()?;
            self.chunks[index] = State::Whole;
        } else {
            file.set_length(0)?;
        }
        Ok(good)
    }

    /// Makes the chunks durable, then the note that lists them.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        let whole = |chunk: &State| matches!(chunk, State::Whole);
        if self.unsynced == 0 && self.noted == self.fetched && !self.chunks.iter().any(whole) {
            return Ok(());
        }
        self.note()
    }

    fn note(&mut self) -> io::Result<()> {
        let mut bits = vec![0u8; self.chunks.len().div_ceil(8)];
        let (mut begun, mut sources) = (Vec::new(), Vec::new());
        for (index, state) in self.chunks.iter().enumerate() {
            match state {
                State::Absent => {}
                State::Begun(open) => {
                    if let Some(file) = &open.file {
                        file.sync()?;
                        begun.push((index, open.hasher.length()));
                        if !open.source.is_empty() {
                            sources.push((index, open.source.clone()));
                        }
                    }
                }
                State::Whole | State::Noted => bits[index / 8] |= 1 << (index % 8),
            }
        }
        // Replacing the note also makes the names of the chunk files durable.
        self.write_note(&Note {
            payload: self.payload.to_string(),
            start: self.start.clone(),
            verified: hex::encode(bits),
            begun,
            sources,
            fetched: self.fetched,
        })?;
        for state in &mut self.chunks {
            if matches!(state, State::Whole) {
                *state = State::Noted;
            }
        }
        self.unsynced = 0;
        self.noted = self.fetched;
        Ok(())
    }
}

/// Sets the count of bytes received to zero in the note of a payload, if there is one.
pub(super) fn count_anew(fs: &dyn Fs, dir: &Path) -> io::Result<()> {
    let path = dir.join(NOTE);
    let note = fs.read(&path, MAX_NOTE)?;
    let note = note.and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
    let Some(note) = note.filter(|note| note.fetched > 0) else {
        return Ok(());
    };
    let bytes = serde_json::to_vec(&Note { fetched: 0, ..note }).map_err(io::Error::other)?;
    fs.replace(&path, &bytes, Mode::Private)
}

/// Reason to report for a storage error.
pub(crate) fn storage(error: &io::Error) -> Explained {
    Explained::new(crate::fs::io_reason(error), error.to_string())
}
