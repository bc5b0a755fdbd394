//! Fetching: several chunks at once, from one source after another.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use tidegate_delta::Limits;
use tidegate_protocol::{Explained, Reason, paths};
use tidegate_trust::assignment::Payload;

use super::progress::{Shared, Stop};
use super::store::{damaged, storage};
use super::{DAMAGED, Download};
use crate::host::platform;
use crate::net::client::{Answer, Client, Taken};
use crate::net::error::TransportError;
use crate::net::rate::{Pacer, RateLimit, limit_at};

/// Sources and limits of a download.
pub(crate) struct Ways<'a> {
    /// Sources, best first; the last is the server itself.
    pub(crate) sources: Vec<Client>,
    /// Number of chunks fetched in parallel.
    pub(crate) parallel: usize,
    /// Rate limits, by hour of the day.
    pub(crate) limits: &'a [RateLimit],
    /// Deadline of the whole download; `None` for no limit.
    pub(crate) deadline: Option<Duration>,
}

/// Bytes received over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Count for this payload, across restarts of the agent.
    pub(crate) total: u64,
    /// Count in this run.
    pub(crate) now: u64,
}

/// Attempts per source without a single new byte before a download is given up for now.
const TRIES: u32 = 8;
/// Interval between checks while the rate limit is 0.
const CLOSED: Duration = Duration::from_secs(30);
impl Download {
    /// Fetches a payload to its end, across any number of interruptions. `needed` is the space in
    /// bytes that the installation takes beyond the payload.
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
                let text = format!("the download took longer than {} s", deadline.as_secs());
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
        // Received data is kept, whatever the outcome.
        let synced = shared.store.sync().map_err(|e| storage(&e));
        ended?;
        synced?;
        Ok(Fetched {
            total: shared.store.fetched(),
            now: shared.now,
        })
    }
}

/// Runs all futures to completion, or until the first error.
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
                let text = "there is no source to download from";
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
                // A clean end before the last byte is an interruption too.
                Ok(_) => "the connection ended early".into(),
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
                .and_then(Answer::ok);
            match answer {
                // A mirror may serve anything under that name.
                Ok(body) if tidegate_delta::sha256(&body) == payload.manifest => {
                    return Ok(body.to_vec());
                }
                Ok(_) => {
                    last = TransportError::Malformed("the source sent a different manifest".into());
                }
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

/// Backs off before the next attempt: 250 ms, doubled each time up to 30 s, with jitter.
async fn pause(tries: u32) {
    let base = Duration::from_millis(250).saturating_mul(1 << tries.min(7));
    let jitter: u64 = rand::random_range(0..=250);
    tokio::time::sleep(base.min(Duration::from_secs(30)) + Duration::from_millis(jitter)).await;
}
