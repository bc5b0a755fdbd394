//! Downloads that survive everything: several chunks at once, each resumed inside, verified
//! before it counts, from the mirrors that the server names and from the server itself.

mod carried;
mod rate;
mod store;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use tidegate_delta::{Limits, Manifest};
use tidegate_protocol::{Explained, Reason, paths};
use tidegate_trust::assignment::Payload;

use crate::client::{Client, Taken, TransportError};
use crate::fs::{Fs, Mode};
use crate::platform;
pub use rate::RateLimit;
pub(crate) use rate::{MinimumRate, Pacer, limit_at};
pub(crate) use store::{Chunks, Store};
use store::{damaged, storage};

/// What is being fetched for one device.
#[derive(Clone)]
pub struct Download {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    /// Names this start of the machine; empty where that is not known.
    pub(crate) start: String,
}

/// How it is fetched.
pub(crate) struct Ways<'a> {
    /// Where from, best first; the last is the server itself.
    pub(crate) sources: Vec<Client>,
    /// Chunks that are fetched at once.
    pub(crate) parallel: usize,
    /// Limits by the hour.
    pub(crate) limits: &'a [RateLimit],
    /// How long all of it may take.
    pub(crate) deadline: Option<Duration>,
}

/// What came over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// For this payload, over all starts of the agent.
    pub(crate) total: u64,
    /// Now.
    pub(crate) now: u64,
}

/// Tries without a single new byte before a download is given up for now.
const TRIES: u32 = 8;
/// Times that one chunk may come damaged from each source.
const DAMAGED: u32 = 3;
/// While nothing may pass it is looked again after this.
const CLOSED: Duration = Duration::from_secs(30);
/// What has come is made durable when it is so many bytes, or so old.
const SYNC_BYTES: u64 = 4 << 20;
const SYNC_AGE: Duration = Duration::from_secs(5);

impl Download {
    /// The download below a state directory.
    pub fn new(fs: Arc<dyn Fs>, state: &Path) -> Self {
        Self {
            fs,
            dir: state.join("download"),
            start: platform::boot_id(),
        }
    }

    /// Throws away what was fetched.
    pub fn drop_all(&self) -> io::Result<()> {
        // First, so that no note tells of what is not there.
        self.fs.remove_if_there(&self.dir.join("have"))?;
        self.fs.remove_tree(&self.dir)
    }

    /// The fetched payload with its manifest, once it is complete.
    pub(crate) fn open(&self, payload: &Payload) -> Result<(Manifest, Chunks), Explained> {
        let manifest = self.kept_manifest(payload).ok_or_else(|| {
            Explained::new(
                Reason::ChunkCorrupt,
                "the kept manifest is not the assigned one",
            )
        })?;
        let chunks = Chunks {
            fs: self.fs.clone(),
            dir: self.dir.clone(),
        };
        Ok((manifest, chunks))
    }

    pub(crate) fn kept_manifest(&self, payload: &Payload) -> Option<Manifest> {
        let limit = Limits::default().max_manifest as u64;
        let bytes = self
            .fs
            .read(&self.dir.join("manifest.json"), limit)
            .ok()??;
        Manifest::from_bytes(&bytes, payload.manifest, &Limits::default()).ok()
    }

    /// Keeps a manifest; whatever of another one is there is thrown away.
    pub(crate) fn keep_manifest(
        &self,
        payload: &Payload,
        bytes: &[u8],
    ) -> Result<Manifest, Explained> {
        let manifest = Manifest::from_bytes(bytes, payload.manifest, &Limits::default())
            .map_err(|e| Explained::new(Reason::ChunkCorrupt, e.to_string()))?;
        self.drop_all()
            .and_then(|()| self.fs.create_dirs(&self.dir))
            .and_then(|()| {
                let path = self.dir.join("manifest.json");
                self.fs.replace(&path, bytes, Mode::Private)
            })
            .map_err(|e| storage(&e))?;
        Ok(manifest)
    }

    /// What of a payload is there.
    pub(crate) fn store(&self, manifest: &Manifest) -> io::Result<Store> {
        Store::open(self.fs.clone(), &self.dir, manifest, &self.start)
    }

    /// Fetches a payload to its end, across any number of cuts. `needed` is what the installation
    /// will take beyond the payload.
    pub(crate) async fn run(
        &self,
        ways: Ways<'_>,
        payload: &Payload,
        needed: u64,
    ) -> Result<Fetched, Explained> {
        let Some(deadline) = ways.deadline else {
            return self.fetch_all(ways, payload, needed).await;
        };
        tokio::time::timeout(deadline, self.fetch_all(ways, payload, needed))
            .await
            .unwrap_or_else(|_| {
                let text = format!("it took longer than {} s", deadline.as_secs());
                Err(Explained::new(Reason::DownloadFailed, text))
            })
    }

    async fn fetch_all(
        &self,
        mut ways: Ways<'_>,
        payload: &Payload,
        needed: u64,
    ) -> Result<Fetched, Explained> {
        let mut now = 0;
        let manifest = if let Some(kept) = self.kept_manifest(payload) {
            kept
        } else {
            let bytes = manifest_bytes(&mut ways.sources, payload).await?;
            now += bytes.len() as u64;
            self.keep_manifest(payload, &bytes)?
        };
        let mut store = self.store(&manifest).map_err(|e| storage(&e))?;
        store.count(now);
        self.check_room(&manifest, store.bytes(&manifest), needed)?;
        let shared = RefCell::new(Shared {
            manifest: &manifest,
            store,
            claimed: BTreeSet::new(),
            now,
            tries: 0,
            damaged: BTreeMap::new(),
            source: 0,
            synced: Instant::now(),
            pacer: Pacer::default(),
            begun: Instant::now(),
        });
        let parallel = ways.parallel.clamp(1, 8).min(manifest.chunks.len().max(1));
        let workers = (0..parallel)
            .map(|_| worker(&shared, &ways))
            .collect::<Vec<_>>();
        let ended = all(workers).await;
        let mut shared = shared.into_inner();
        // What came is kept however it ended.
        let synced = shared.store.sync().map_err(|e| storage(&e));
        ended?;
        synced?;
        Ok(Fetched {
            total: shared.store.fetched(),
            now: shared.now,
        })
    }

    /// Before the first byte: whether all of it will fit.
    fn check_room(&self, manifest: &Manifest, have: u64, needed: u64) -> Result<(), Explained> {
        let Some(free) = platform::free_space(&self.dir) else {
            return Ok(());
        };
        let lacks = |wanted: u64| {
            let (free, wanted) = (free >> 10, (wanted >> 10) + 1);
            format!(
                "{}: {free} KiB free, {wanted} KiB needed",
                self.dir.display()
            )
        };
        let wanted = manifest
            .payload
            .length
            .saturating_sub(have)
            .saturating_add(needed);
        if free < wanted {
            return Err(Explained::new(Reason::DiskFull, lacks(wanted)));
        }
        // Another payload may do without a file to unpack into.
        let unpacking = wanted.saturating_add(manifest.scratch);
        if free < unpacking {
            return Err(Explained::new(Reason::DeltaFailed, lacks(unpacking)));
        }
        Ok(())
    }
}

/// Runs all to their ends, or to the first error.
async fn all(workers: Vec<impl Future<Output = Result<(), Explained>>>) -> Result<(), Explained> {
    let mut workers: Vec<Pin<Box<_>>> = workers.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        let mut index = 0;
        while index < workers.len() {
            match workers[index].as_mut().poll(context) {
                Poll::Pending => index += 1,
                Poll::Ready(Ok(())) => drop(workers.swap_remove(index)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            }
        }
        if workers.is_empty() {
            Poll::Ready(Ok(()))
        } else {
            Poll::Pending
        }
    })
    .await
}

/// What the workers of one download share. No borrow of it lives over a wait.
struct Shared<'a> {
    manifest: &'a Manifest,
    store: Store,
    claimed: BTreeSet<usize>,
    now: u64,
    tries: u32,
    damaged: BTreeMap<usize, u32>,
    /// The source in use.
    source: usize,
    synced: Instant,
    pacer: Pacer,
    begun: Instant,
}

/// Why a chunk is not fetched any further over this answer.
enum Stop {
    Io(io::Error),
    Damaged,
    Full,
    /// Nothing may pass at this hour.
    Closed,
}

impl Shared<'_> {
    /// A chunk that nobody fetches yet; those that are begun come first.
    fn claim(&mut self) -> Option<usize> {
        let open = |index: &usize| !self.store.has(*index) && !self.claimed.contains(index);
        let all = 0..self.manifest.chunks.len();
        let begun = all.clone().filter(open).find(|i| self.store.begun(*i) > 0);
        let index = begun.or_else(|| all.clone().find(open))?;
        self.claimed.insert(index);
        Some(index)
    }

    /// Takes bytes that stand at `at` in the payload.
    fn take(&mut self, index: usize, at: u64, bytes: &[u8]) -> Result<(), Stop> {
        self.now += bytes.len() as u64;
        self.store.count(bytes.len() as u64);
        let wanted = self.manifest.offset(index) + self.store.begun(index);
        let skip = usize::try_from(wanted.saturating_sub(at)).unwrap_or(usize::MAX);
        let bytes = bytes.get(skip.min(bytes.len())..).unwrap_or_default();
        if bytes.is_empty() {
            return Ok(());
        }
        // What was there already, sent again, is no progress.
        self.tries = 0;
        let good = self
            .store
            .append(self.manifest, index, bytes)
            .map_err(Stop::Io)?;
        if !good {
            return Err(Stop::Damaged);
        }
        if self.store.unsynced() >= SYNC_BYTES || self.synced.elapsed() >= SYNC_AGE {
            self.synced = Instant::now();
            self.store.sync().map_err(Stop::Io)?;
        }
        if self.store.has(index) {
            Err(Stop::Full)
        } else {
            Ok(())
        }
    }

    /// Another source is tried next; whether all of them were.
    fn turn_from(&mut self, source: usize, sources: usize) -> bool {
        if self.source == source {
            self.source = (source + 1) % sources;
        }
        source + 1 >= sources
    }
}

/// Fetches chunk after chunk.
async fn worker(shared: &RefCell<Shared<'_>>, ways: &Ways<'_>) -> Result<(), Explained> {
    let mut line: Option<(usize, Client)> = None;
    loop {
        let Some(index) = shared.borrow_mut().claim() else {
            return Ok(());
        };
        while !shared.borrow().store.has(index) {
            while limit_at(ways.limits, platform::now().as_secs()) == Some(0) {
                tokio::time::sleep(CLOSED).await;
            }
            let source = shared.borrow().source;
            if line.as_ref().is_none_or(|(of, _)| *of != source) {
                line = ways.sources.get(source).map(|c| (source, c.sibling()));
            }
            let Some((_, client)) = &mut line else {
                let text = "there is nowhere to fetch it from";
                return Err(Explained::new(Reason::DownloadFailed, text));
            };
            let ended = fetch(shared, ways, client, index).await;
            let turn = || shared.borrow_mut().turn_from(source, ways.sources.len());
            let why = match ended {
                Ok(Ok(()) | Err(Stop::Full)) if shared.borrow().store.has(index) => break,
                Ok(Err(Stop::Io(error))) => return Err(storage(&error)),
                Ok(Err(Stop::Closed)) => continue,
                Ok(Err(Stop::Damaged)) => {
                    let mut shared = shared.borrow_mut();
                    let times = shared.damaged.entry(index).or_default();
                    *times += 1;
                    let times = *times;
                    shared.turn_from(source, ways.sources.len());
                    let most = DAMAGED * u32::try_from(ways.sources.len()).unwrap_or(1);
                    if times >= most {
                        return Err(damaged(index, times));
                    }
                    continue;
                }
                // A clean end short of the whole is a cut as well.
                Ok(_) => "the connection ends early".into(),
                Err(error) => error.to_string(),
            };
            let tries = {
                let mut shared = shared.borrow_mut();
                shared.tries += 1;
                shared.tries
            };
            if tries >= TRIES * u32::try_from(ways.sources.len()).unwrap_or(1) {
                return Err(Explained::new(Reason::DownloadFailed, why));
            }
            if turn() {
                pause(tries - 1).await;
            }
        }
    }
}

async fn fetch(
    shared: &RefCell<Shared<'_>>,
    ways: &Ways<'_>,
    client: &mut Client,
    index: usize,
) -> Result<Result<(), Stop>, TransportError> {
    let (path, etag, range) = {
        let shared = shared.borrow();
        let payload = shared.manifest.payload.sha256;
        let begin = shared.manifest.offset(index);
        let end = begin + u64::from(shared.manifest.chunks[index].length);
        (
            format!("{}{payload}", paths::BLOBS),
            payload.to_string(),
            begin + shared.store.begun(index)..end,
        )
    };
    client
        .fetch(&path, &etag, range, |at, bytes| {
            let mut shared = shared.borrow_mut();
            let mut stop = shared.take(index, at, bytes).err();
            let limit = limit_at(ways.limits, platform::now().as_secs());
            if limit == Some(0) {
                stop = stop.or(Some(Stop::Closed));
            }
            let now = shared.begun.elapsed();
            Taken {
                stop,
                pause: shared.pacer.passed(now, bytes.len(), limit),
            }
        })
        .await
}

async fn manifest_bytes(sources: &mut [Client], payload: &Payload) -> Result<Vec<u8>, Explained> {
    let path = format!("{}{}", paths::BLOBS, payload.manifest);
    let limit = Limits::default().max_manifest;
    let mut last = TransportError::Timeout;
    for tries in 0..TRIES {
        for client in &mut *sources {
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
                // A mirror may have anything under that name.
                Ok(body) if tidegate_delta::sha256(&body) == payload.manifest => {
                    return Ok(body.to_vec());
                }
                Ok(_) => last = TransportError::Malformed("another manifest".into()),
                Err(error) => last = error,
            }
        }
        if let TransportError::TooLarge(_) | TransportError::Malformed(_) = last
            && tries >= DAMAGED
        {
            return Err(Explained::new(Reason::ChunkCorrupt, last.to_string()));
        }
        pause(tries).await;
    }
    Err(Explained::new(Reason::DownloadFailed, last.to_string()))
}

/// Waits before the next try: a quarter of a second, doubled each time, with jitter, at most 30 s.
async fn pause(tries: u32) {
    let base = Duration::from_millis(250).saturating_mul(1 << tries.min(7));
    let jitter: u64 = rand::random_range(0..=250);
    tokio::time::sleep(base.min(Duration::from_secs(30)) + Duration::from_millis(jitter)).await;
}
