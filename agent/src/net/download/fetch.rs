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
use super::sources::{Fault, Kind};
use super::store::storage;
use super::{DAMAGED, Download};
use crate::host::platform;
use crate::net::client::{Answer, Client};
use crate::net::error::TransportError;
use crate::net::part::{Part, Taken};
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
    /// Longest wait for the next bytes of one source.
    pub(crate) silence: Duration,
}

/// Bytes received over the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fetched {
    /// Count for this payload, across restarts of the agent.
    pub(crate) total: u64,
    /// Count in this run.
    pub(crate) now: u64,
}

/// Breaks of a mirror's connection in a row, with next to nothing sent, before it is put aside.
const BREAKS: u32 = 3;
/// Bytes after which a broken connection is a link that drops.
const SOME: u64 = 64 << 10;
/// Attempts at the server without a single new byte, after which the download has failed.
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
        let names: Vec<String> = ways.sources.iter().map(Client::address).collect();
        // What an earlier process has noted of mirrors is past.
        self.tell_unused();
        let mut now = 0;
        let manifest = if let Some(kept) = self.kept_manifest(payload) {
            kept
        } else {
            let bytes = manifest_bytes(self, &mut ways, &names, payload).await?;
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
            names,
            synced: Instant::now(),
            pacer: Pacer::default(),
            begun: Instant::now(),
        });
        let parallel = ways.parallel.clamp(1, 8).min(manifest.chunks.len().max(1));
        let workers = (0..parallel)
            .map(|_| worker(self, &shared, &ways))
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

/// Fetches chunk after chunk, each from one source.
async fn worker(
    download: &Download,
    shared: &RefCell<Shared<'_>>,
    ways: &Ways<'_>,
) -> Result<(), Explained> {
    let mut line: Option<(usize, Client)> = None;
    loop {
        let Some(index) = shared.borrow_mut().claim() else {
            return Ok(());
        };
        let mut broke = 0;
        while !shared.borrow().store.has(index) {
            while limit_at(ways.limits, platform::now().as_secs()) == Some(0) {
                tokio::time::sleep(CLOSED).await;
            }
            let source = shared.borrow_mut().pick(&mut download.blame(), index);
            let source = source.map_err(|e| storage(&e))?;
            if line.as_ref().is_none_or(|(of, _)| *of != source) {
                line = ways.sources.get(source).map(|c| (source, c.sibling()));
            }
            let Some((_, client)) = &mut line else {
                let text = "there is no source to download from";
                return Err(Explained::new(Reason::DownloadFailed, text));
            };
            let before = shared.borrow().store.begun(index);
            let is_server = source + 1 == ways.sources.len();
            let ended = fetch(shared, ways, client, index, is_server).await;
            let fault = match ended {
                Ok(Ok(()) | Err(Stop::Full)) if shared.borrow().store.has(index) => {
                    if !is_server {
                        download.note_good(&shared.borrow().names[source]);
                    }
                    break;
                }
                Ok(Err(Stop::Io(error))) => return Err(storage(&error)),
                Ok(Err(Stop::Closed)) => continue,
                Ok(Err(Stop::Damaged)) => Fault {
                    why: format!("chunk {index} arrived damaged"),
                    kind: Kind::Damaged,
                },
                // A clean end before the last byte.
                Ok(_) => Fault::lasting("the answer ended early"),
                Err(error) => error.into(),
            };
            if is_server {
                ask_server_again(download, shared, index, &fault).await?;
                continue;
            }
            // A link that drops says nothing about the mirror as long as bytes come.
            let gained = shared.borrow().store.begun(index).saturating_sub(before);
            broke = if gained < SOME { broke + 1 } else { 0 };
            if fault.kind == Kind::Broken && broke < BREAKS {
                pause(broke).await;
                continue;
            }
            let name = shared.borrow().names[source].clone();
            download.put_aside(&name, &fault);
        }
    }
}

/// Decides after a failure of the server itself, which comes last: whether and when it is asked again.
async fn ask_server_again(
    download: &Download,
    shared: &RefCell<Shared<'_>>,
    index: usize,
    fault: &Fault,
) -> Result<(), Explained> {
    let failed = |reason, why: &str| {
        let mut text = why.to_owned();
        for unused in download.blame().unused() {
            text += &format!("; mirror {}: {}", unused.mirror, unused.why);
        }
        Explained::new(
            reason,
            format!(
                "{}: {text}",
                shared
                    .borrow()
                    .names
                    .last()
                    .map_or("no source", String::as_str)
            ),
        )
    };
    if fault.kind == Kind::Damaged {
        let times = {
            let mut shared = shared.borrow_mut();
            let times = shared.damaged.entry(index).or_default();
            *times += 1;
            *times
        };
        if times >= DAMAGED {
            let why = format!("chunk {index} arrived damaged {times} times");
            return Err(failed(Reason::ChunkCorrupt, &why));
        }
        return Ok(());
    }
    let tries = {
        let mut shared = shared.borrow_mut();
        shared.tries += 1;
        shared.tries
    };
    if tries >= TRIES {
        return Err(failed(Reason::DownloadFailed, &fault.why));
    }
    download.blame().relent(Instant::now());
    pause(tries - 1).await;
    Ok(())
}

async fn fetch(
    shared: &RefCell<Shared<'_>>,
    ways: &Ways<'_>,
    client: &mut Client,
    index: usize,
    is_server: bool,
) -> Result<Result<(), Stop>, TransportError> {
    let (path, range, total) = {
        let shared = shared.borrow();
        let payload = shared.manifest.payload;
        let begin = shared.manifest.offset(index);
        let end = begin + u64::from(shared.manifest.chunks[index].length);
        (
            format!("{}{}", paths::BLOBS, payload.sha256),
            begin + shared.store.begun(index)..end,
            payload.length,
        )
    };
    let part = Part {
        path: &path,
        range,
        total,
        // Behind a proxy that drops ranges the server is slow; a mirror that drops them is useless.
        from_start: is_server,
        silence: ways.silence,
    };
    client
        .fetch(part, |at, bytes| {
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

async fn manifest_bytes(
    download: &Download,
    ways: &mut Ways<'_>,
    names: &[String],
    payload: &Payload,
) -> Result<Vec<u8>, Explained> {
    let path = format!("{}{}", paths::BLOBS, payload.manifest);
    let limit = Limits::default().max_manifest;
    let mut tries = 0;
    loop {
        let source = download.blame().pick(names, None, Instant::now());
        let Some(client) = ways.sources.get_mut(source) else {
            let text = "there is no source to download from";
            return Err(Explained::new(Reason::DownloadFailed, text));
        };
        let deadline = 2 * ways.silence;
        client.silence = ways.silence;
        let answer = client
            .send(hyper::Method::GET, &path, &[], Vec::new(), limit, deadline)
            .await
            .and_then(Answer::ok);
        let is_server = source + 1 == names.len();
        let fault: Fault = match answer {
            // A mirror may serve anything under that name.
            Ok(body) if tidegate_delta::sha256(&body) == payload.manifest => {
                if !is_server {
                    download.note_good(&names[source]);
                }
                return Ok(body.to_vec());
            }
            Ok(body) => Fault::lasting(format!(
                "it sent {} bytes that are not the manifest",
                body.len()
            )),
            Err(error) => error.into(),
        };
        if !is_server {
            download.put_aside(&names[source], &fault);
            continue;
        }
        tries += 1;
        let damaged = fault.kind == Kind::Lasting && tries > DAMAGED;
        if tries >= TRIES || damaged {
            let reason = if damaged {
                Reason::ChunkCorrupt
            } else {
                Reason::DownloadFailed
            };
            let text = format!("the manifest from {}: {}", names[source], fault.why);
            return Err(Explained::new(reason, text));
        }
        download.blame().relent(Instant::now());
        pause(tries - 1).await;
    }
}

/// Backs off before the next attempt: 250 ms, doubled each time up to 30 s, with jitter.
async fn pause(tries: u32) {
    let base = Duration::from_millis(250).saturating_mul(1 << tries.min(7));
    let jitter: u64 = rand::random_range(0..=250);
    tokio::time::sleep(base.min(Duration::from_secs(30)) + Duration::from_millis(jitter)).await;
}
