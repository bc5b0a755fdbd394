//! Builds payloads, full ones and deltas, ahead of need. A rollout never waits for one.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Seek as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_delta::{
    Applier, DeltaOptions, Encoding, Limits, Manifest, ReadAt, make_bsdiff, make_delta, make_full,
};
use tidegate_domain::event::{Actor, Event};
use tidegate_protocol::Image;

use crate::app::App;
use crate::blob::read_verified;
use crate::commit::Done;
use crate::service::releases::BuildRequest;
use tidegate_protocol::error_chain;

use crate::service::ServiceError;
use crate::store::jobs::{Job, Outcome};
use crate::store::products::{self, Payload};

/// Time a worker may be silent before another takes its job.
const LEASE: Duration = Duration::from_mins(2);
const TRIES: u32 = 3;
const TRY_AGAIN: Duration = Duration::from_secs(30);
/// Memory of the delta engine per byte of the old image. The engine holds both images, both again
/// with their references masked, and for each byte of the old one four bytes of index and half a
/// byte of sieve: measured 8.6 times the old image.
const MEMORY_PER_OLD_BYTE: u64 = 7;
const MEMORY_PER_NEW_BYTE: u64 = 2;
/// Fixed memory of the engine: its tables, and the copies and frames it has coded.
const MEMORY_BESIDE: u64 = 192 << 20;

/// Maximum length of each of the two images that fits into a memory limit.
fn affordable(memory: u64) -> u64 {
    memory.saturating_sub(MEMORY_BESIDE) / (MEMORY_PER_OLD_BYTE + MEMORY_PER_NEW_BYTE)
}

pub(super) async fn run(app: Arc<App>) {
    while !app.stopping.is_cancelled() {
        let worked = match app.take_job(LEASE).await {
            Ok(Some(job)) => {
                work(&app, &job).await;
                true
            }
            Ok(None) => false,
            Err(error) => {
                super::log("looking for a job", Err(error.into()));
                false
            }
        };
        if !worked {
            tokio::select! {
                () = app.builder_woken() => {}
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
                () = app.stopping.cancelled() => {}
            }
        }
    }
}

async fn work(app: &Arc<App>, job: &Job) {
    let build = build(app, job);
    tokio::pin!(build);
    let result = loop {
        tokio::select! {
            result = &mut build => break result,
            () = tokio::time::sleep(LEASE / 4) => {
                let kept = app.keep_job(job.id, LEASE).await;
                super::log("keeping a job", kept.map_err(Into::into));
            }
            // The lease expires, and another replica takes the job.
            () = app.stopping.cancelled() => return,
        }
    };
    let outcome = match result {
        Ok(None) => Outcome::Done,
        Ok(Some(why)) => Outcome::Failed(why),
        Err(error) if job.attempts < TRIES => {
            Outcome::Again(error_chain(&error), app.now().plus(TRY_AGAIN))
        }
        Err(error) => Outcome::Failed(error_chain(&error)),
    };
    if let Outcome::Failed(why) | Outcome::Again(why, _) = &outcome {
        tracing::warn!(job = %job.id, subject = job.subject, why, "no payload was built");
    }
    let finished = app.finish_job(job.id, &outcome).await;
    super::log("finishing a job", finished.map_err(Into::into));
}

/// Builds one payload; returns the reason if there is none to be had, which is not an error.
async fn build(app: &Arc<App>, job: &Job) -> Result<Option<String>, ServiceError> {
    let request: BuildRequest =
        serde_json::from_str(&job.payload).map_err(ServiceError::invalid)?;
    if let Some(from) = request.from {
        let needed = from.length.saturating_mul(MEMORY_PER_OLD_BYTE)
            + request.to.length.saturating_mul(MEMORY_PER_NEW_BYTE)
            + MEMORY_BESIDE;
        if needed > app.settings.jobs.delta_memory {
            return Ok(Some(format!(
                "building a delta would take {} MiB of memory, more than the {} MiB allowed",
                needed >> 20,
                app.settings.jobs.delta_memory >> 20
            )));
        }
    }
    let new = fetch(app, request.to).await?;
    let old = match request.from {
        Some(from) => Some(fetch(app, from).await?),
        None => None,
    };
    // A thread of its own: building may take minutes and must not delay shutdown.
    let (done, result) = tokio::sync::oneshot::channel();
    let cancel = Arc::new(AtomicBool::new(false));
    // Dropped with this future: when the lease is lost or the server stops, so does the engine.
    let _guard = StopOnDrop(cancel.clone());
    let jobs = &app.settings.jobs;
    let bounds = (jobs.delta_threads, affordable(jobs.delta_memory));
    std::thread::spawn(move || {
        let _ = done.send(make(new, old, request, bounds, &cancel));
    });
    let made = result
        .await
        .map_err(|_| ServiceError::invalid("the builder thread ended without a result"))?;
    let (manifest, file) = made?;
    // A device that can apply one delta can apply the other, and `quick` is cheaper for it.
    let rivals = |p: &Payload| {
        p.from.is_none()
            || request.encoding == Encoding::Dense
                && p.encoding == Encoding::Quick
                && p.from == request.from.map(|f| f.sha256)
    };
    let smallest = app
        .fleet
        .plan()
        .payloads
        .get(&request.to.sha256)
        .and_then(|list| list.iter().filter(|p| rivals(p)).map(|p| p.bytes).min())
        .unwrap_or(request.to.length);
    if manifest.payload.length >= smallest {
        return Ok(Some(format!(
            "not kept: {} bytes, and there is a payload of {smallest} bytes that is no more expensive to apply",
            manifest.payload.length
        )));
    }
    app.blobs.put_file(manifest.payload.sha256, file).await?;
    let payload = app.store_manifest(&manifest).await?;
    let now = app.now();
    app.change_or_leave(async |tx| {
        if !products::insert_payload(tx, &payload, now).await? {
            return Ok(Done::Leave(()));
        }
        let made = Event::PayloadMade {
            encoding: manifest.encoding,
            image: request.to.sha256,
            from: request.from.map(|from| from.sha256),
            bytes: manifest.payload.length,
            image_bytes: request.to.length,
        };
        Ok(Done::by(&Actor::Builder, (), [made]))
    })
    .await?;
    app.metrics
        .payload_bytes_saved
        .inc_by(request.to.length.saturating_sub(manifest.payload.length));
    Ok(None)
}

async fn fetch(app: &App, image: Image) -> Result<File, ServiceError> {
    let file = temporary()?;
    let copy = file.try_clone().map_err(io)?;
    app.blobs.fetch(image, copy).await?;
    Ok(file)
}

/// Stops the engine when nobody waits for its result any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn make(
    mut new: File,
    old: Option<File>,
    request: BuildRequest,
    (threads, unpacked): (usize, u64),
    cancel: &AtomicBool,
) -> Result<(Manifest, File), ServiceError> {
    let mut out = temporary()?;
    let writer = BufWriter::new(out.try_clone().map_err(io)?);
    let made = if let (Some(old), Some(from)) = (old, request.from) {
        let (old, new) = (read_verified(old, from)?, read_verified(new, request.to)?);
        match request.encoding {
            // Asked for by jobs of an earlier version.
            Encoding::Raw | Encoding::Full | Encoding::Bsdiff => make_bsdiff(&old, &new, writer),
            encoding @ (Encoding::Quick | Encoding::Dense) => {
                let options = DeltaOptions {
                    threads,
                    unpacked: unpacked.saturating_sub(from.length.max(request.to.length)),
                    chunk: request.chunk.unwrap_or(Limits::DELTA_CHUNK),
                    cancel: Some(cancel),
                    ..DeltaOptions::new(encoding)
                };
                let manifest =
                    make_delta(&old, &new, writer, &options).map_err(|e| not_made(&e))?;
                check(&manifest, &old, &mut out)?;
                Ok(manifest)
            }
        }
    } else {
        new.rewind().map_err(io)?;
        let chunk = request.chunk.unwrap_or(Limits::FULL_CHUNK);
        make_full(&mut BufReader::new(new), writer, chunk)
    };
    let manifest = made.map_err(|e| not_made(&e))?;
    if manifest.to != request.to {
        return Err(ServiceError::invalid("the stored artifact is damaged"));
    }
    out.rewind().map_err(io)?;
    Ok((manifest, out))
}

/// Applies the delta as a device will: one that does not produce the image is a bug in the encoder
/// and must not be published.
fn check(manifest: &Manifest, old: &[u8], payload: &mut File) -> Result<(), ServiceError> {
    let wrong = |why: &dyn std::error::Error| {
        ServiceError::invalid(format!(
            "the delta does not reproduce the image; please report this: {}",
            error_chain(why)
        ))
    };
    payload.rewind().map_err(io)?;
    let limits = Limits::default();
    let scratch = temporary()?;
    let out = std::io::sink();
    let mut applier = Applier::new(manifest, Some(&old as &dyn ReadAt), out, &limits)
        .map_err(|e| wrong(&e))?
        .with_scratch(&scratch);
    let mut bytes = Vec::new();
    for chunk in &manifest.chunks {
        bytes.resize(chunk.length as usize, 0);
        payload.read_exact(&mut bytes).map_err(io)?;
        applier.push_chunk(&bytes).map_err(|e| wrong(&e))?;
    }
    applier.finish().map(drop).map_err(|e| wrong(&e))
}

fn not_made(error: &tidegate_delta::MakeError) -> ServiceError {
    ServiceError::invalid(error_chain(error))
}

fn temporary() -> Result<File, ServiceError> {
    tempfile::tempfile().map_err(io)
}

fn io(error: std::io::Error) -> ServiceError {
    ServiceError::Blob(crate::blob::BlobError::Read(error))
}
