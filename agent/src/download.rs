//! Downloads that survive everything: chunk by chunk, resumed inside a chunk, verified before
//! they count.
//!
//! `download/manifest.json` and `download/payload`; `download/have` says how many chunks are
//! verified and on the medium. It is written after the data is synced: a hint that is never
//! ahead of the truth.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_delta::{Hasher, Limits, Manifest, ReadAt as _};
use tidegate_protocol::{Explained, Reason, Sha256, paths};
use tidegate_trust::assignment::Payload;

use crate::archive_slots::io_reason;
use crate::client::{Client, TransportError};
use crate::durable;
use crate::failpoint;
use crate::platform;

/// What is being fetched for one device.
#[derive(Debug, Clone)]
pub struct Download {
    dir: PathBuf,
}

/// Tries without a single new verified chunk or byte before a download is given up for now.
const TRIES: u32 = 8;
/// Verified chunks are made durable together when so many bytes have gathered.
const SYNC_EVERY: u64 = 4 << 20;

/// Why a download ended.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("storage")]
    Io(#[from] io::Error),
    #[error("a chunk is not what the manifest promises")]
    Corrupt,
    #[error("more bytes than the manifest promises")]
    TooLong,
}

impl Download {
    /// The download below a state directory.
    pub fn new(state: &Path) -> Self {
        Self {
            dir: state.join("download"),
        }
    }

    /// Throws away what was fetched.
    pub fn drop_all(&self) -> io::Result<()> {
        durable::remove_tree(&self.dir)
    }

    /// The fetched payload with its manifest, once it is complete.
    pub fn open(&self, payload: &Payload) -> Result<(Manifest, File), Explained> {
        let manifest = self.kept_manifest(payload).ok_or_else(|| {
            Explained::new(
                Reason::ChunkCorrupt,
                "the kept manifest is not the assigned one",
            )
        })?;
        let file = File::open(self.dir.join("payload")).map_err(|e| storage(&e))?;
        Ok((manifest, file))
    }

    fn kept_manifest(&self, payload: &Payload) -> Option<Manifest> {
        let bytes = fs::read(self.dir.join("manifest.json")).ok()?;
        Manifest::from_bytes(&bytes, payload.manifest, &Limits::default()).ok()
    }

    /// Fetches a payload to its end, across any number of cuts. `needed` is what the installation
    /// will take beyond the payload. Gives the bytes that came over the network now.
    pub async fn run(
        &self,
        client: &mut Client,
        payload: &Payload,
        needed: u64,
    ) -> Result<u64, Explained> {
        fs::create_dir_all(&self.dir).map_err(|e| storage(&e))?;
        let mut fetched = 0;
        let manifest = self.manifest(client, payload, &mut fetched).await?;
        if let Some(free) = platform::free_space(&self.dir) {
            let have = fs::metadata(self.dir.join("payload")).map_or(0, |m| m.len());
            let wanted = manifest
                .payload
                .length
                .saturating_sub(have)
                .saturating_add(needed);
            let lacks =
                |wanted: u64| format!("{} MiB free, {} MiB needed", free >> 20, (wanted >> 20) + 1);
            if free < wanted {
                return Err(Explained::new(Reason::DiskFull, lacks(wanted)));
            }
            // Another payload may do without a file to unpack into.
            let unpacking = wanted.saturating_add(manifest.scratch);
            if free < unpacking {
                return Err(Explained::new(Reason::DeltaFailed, lacks(unpacking)));
            }
        }
        let mut progress = Progress::open(&self.dir, &manifest).map_err(|e| storage(&e))?;
        let path = format!("{}{}", paths::BLOBS, manifest.payload.sha256);
        let etag = manifest.payload.sha256.to_string();
        let (mut tries, mut corrupt) = (0, 0);
        while !progress.is_complete() {
            let (from, before) = (progress.offset, fetched);
            let result = client
                .fetch(&path, &etag, from, |at, bytes| {
                    fetched += bytes.len() as u64;
                    progress.take(at, bytes)
                })
                .await;
            match result {
                // A clean end short of the whole is a cut as well.
                Ok(Ok(())) if progress.is_complete() => {}
                Ok(Err(FetchError::Io(error))) => return Err(storage(&error)),
                Ok(Err(FetchError::Corrupt | FetchError::TooLong)) => {
                    corrupt += 1;
                    if corrupt >= 3 {
                        return Err(Explained::new(
                            Reason::ChunkCorrupt,
                            format!("chunk {} came damaged {corrupt} times", progress.index),
                        ));
                    }
                }
                Ok(Ok(())) | Err(_) => {
                    tries = if fetched > before { 0 } else { tries + 1 };
                    if tries >= TRIES {
                        let why = match result {
                            Err(error) => error.to_string(),
                            Ok(_) => "the connection ends early".into(),
                        };
                        return Err(Explained::new(Reason::DownloadFailed, why));
                    }
                    pause(tries).await;
                }
            }
        }
        progress.sync().map_err(|e| storage(&e))?;
        Ok(fetched)
    }

    /// The manifest: the kept one, if it is the assigned one, else fetched and verified.
    async fn manifest(
        &self,
        client: &mut Client,
        payload: &Payload,
        fetched: &mut u64,
    ) -> Result<Manifest, Explained> {
        if let Some(kept) = self.kept_manifest(payload) {
            return Ok(kept);
        }
        self.drop_all()
            .and_then(|()| fs::create_dir_all(&self.dir))
            .map_err(|e| storage(&e))?;
        let bytes = self.manifest_bytes(client, payload).await?;
        *fetched += bytes.len() as u64;
        let manifest = Manifest::from_bytes(&bytes, payload.manifest, &Limits::default())
            .map_err(|e| Explained::new(Reason::ChunkCorrupt, e.to_string()))?;
        durable::replace(&self.dir.join("manifest.json"), &bytes, false)
            .map_err(|e| storage(&e))?;
        Ok(manifest)
    }

    async fn manifest_bytes(
        &self,
        client: &mut Client,
        payload: &Payload,
    ) -> Result<Vec<u8>, Explained> {
        let path = format!("{}{}", paths::BLOBS, payload.manifest);
        let limit = Limits::default().max_manifest;
        let mut last = TransportError::Timeout;
        for tries in 0..TRIES {
            let answer = client
                .send(
                    hyper::Method::GET,
                    &path,
                    &[],
                    Vec::new(),
                    limit,
                    Duration::from_mins(1),
                )
                .await
                .and_then(crate::client::Answer::ok);
            match answer {
                Ok(body) => return Ok(body.to_vec()),
                Err(error @ TransportError::TooLarge(_)) => {
                    return Err(Explained::new(Reason::ChunkCorrupt, error.to_string()));
                }
                Err(error) => last = error,
            }
            pause(tries).await;
        }
        Err(Explained::new(Reason::DownloadFailed, last.to_string()))
    }
}

/// Waits before the next try: a quarter of a second, doubled each time, with jitter, at most 30 s.
async fn pause(tries: u32) {
    let base = Duration::from_millis(250).saturating_mul(1 << tries.min(7));
    let jitter: u64 = rand::random_range(0..=250);
    tokio::time::sleep(base.min(Duration::from_secs(30)) + Duration::from_millis(jitter)).await;
}

fn storage(error: &io::Error) -> Explained {
    Explained::new(io_reason(error), error.to_string())
}

/// How far a payload is.
struct Progress<'a> {
    manifest: &'a Manifest,
    file: File,
    have: PathBuf,
    /// The chunk that is being filled.
    index: usize,
    /// The next byte that is wanted.
    offset: u64,
    hasher: Hasher,
    unsynced: u64,
}

impl<'a> Progress<'a> {
    /// Takes up what is there: verified chunks count, and a part of the next one is hashed and
    /// gone on with.
    fn open(dir: &Path, manifest: &'a Manifest) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join("payload"))?;
        let have = dir.join("have");
        let index = fs::read_to_string(&have)
            .ok()
            .and_then(|text| text.trim().parse::<usize>().ok())
            .unwrap_or(0)
            .min(manifest.chunks.len());
        let start = manifest.offset(index);
        let length = file.metadata()?.len();
        let mut progress = Self {
            manifest,
            file,
            have,
            index,
            offset: start,
            hasher: Hasher::new(),
            unsynced: 0,
        };
        let partial = manifest.chunks.get(index).map_or(0, |c| {
            length
                .saturating_sub(start)
                .min(u64::from(c.length).saturating_sub(1))
        });
        let mut buffer = vec![0; 64 << 10];
        while progress.offset < start + partial {
            let left = usize::try_from(start + partial - progress.offset).unwrap_or(usize::MAX);
            let part = &mut buffer[..left.min(64 << 10)];
            progress.file.read_exact_at(part, progress.offset)?;
            progress.hasher.update(part);
            progress.offset += part.len() as u64;
        }
        Ok(progress)
    }

    fn is_complete(&self) -> bool {
        self.index >= self.manifest.chunks.len()
    }

    /// Takes bytes that stand at `at` in the payload. A server that does not know ranges begins
    /// at 0: what is there already is skipped.
    fn take(&mut self, at: u64, bytes: &[u8]) -> Result<(), FetchError> {
        let skip = usize::try_from(self.offset.saturating_sub(at)).unwrap_or(usize::MAX);
        let mut bytes = bytes.get(skip.min(bytes.len())..).unwrap_or_default();
        while !bytes.is_empty() {
            let chunk = self
                .manifest
                .chunks
                .get(self.index)
                .ok_or(FetchError::TooLong)?;
            let left = u64::from(chunk.length) - self.hasher.length();
            let take = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            write_at(&self.file, &bytes[..take], self.offset)?;
            self.hasher.update(&bytes[..take]);
            self.offset += take as u64;
            self.unsynced += take as u64;
            bytes = &bytes[take..];
            if self.hasher.length() == u64::from(chunk.length) {
                self.close_chunk(chunk.sha256)?;
            }
        }
        Ok(())
    }

    fn close_chunk(&mut self, expected: Sha256) -> Result<(), FetchError> {
        let got = std::mem::take(&mut self.hasher).finish();
        if got.sha256 != expected {
            // Back to the chunk's beginning; what is before it stays.
            self.offset = self.manifest.offset(self.index);
            self.file.set_len(self.offset)?;
            return Err(FetchError::Corrupt);
        }
        self.index += 1;
        failpoint::point("chunk verified");
        if self.unsynced >= SYNC_EVERY || self.is_complete() {
            self.sync()?;
        }
        Ok(())
    }

    /// The data first, then the word that it is there.
    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        durable::replace(&self.have, self.index.to_string().as_bytes(), false)?;
        self.unsynced = 0;
        Ok(())
    }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        bytes = &bytes[written..];
        offset += written as u64;
    }
    Ok(())
}
