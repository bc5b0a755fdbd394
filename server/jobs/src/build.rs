//! Builds payloads, full ones and deltas, ahead of need. A rollout never waits for one.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Seek as _};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_core::blob::{BlobError, read_verified};
use tidegate_core::release::BuildRequest;
use tidegate_core::rows::{Job as BuildJob, Outcome};
use tidegate_core::{App, CoreError};
use tidegate_delta::{
    Applier, DeltaOptions, Encoding, Limits, Manifest, ReadAt, make_bsdiff, make_delta, make_full,
};
use tidegate_protocol::{Image, error_chain};

use crate::{Job, log};

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

/// Builder of payloads.
pub(crate) struct Build;

impl Job for Build {
    fn name(&self) -> &'static str {
        "building payloads"
    }

    fn run(&self, app: Arc<App>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(run(app))
    }
}

async fn run(app: Arc<App>) {
    while !app.stopping().is_cancelled() {
        let worked = match app.take_job(LEASE).await {
            Ok(Some(job)) => {
                work(&app, &job).await;
                true
            }
            Ok(None) => false,
            Err(error) => {
                log("looking for a job", Err(error));
                false
            }
        };
        if !worked {
            tokio::select! {
                () = app.builder_woken() => {}
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
                () = app.stopping().cancelled() => {}
            }
        }
    }
}

async fn work(app: &Arc<App>, job: &BuildJob) {
    let build = build(app, job);
    tokio::pin!(build);
    let result = loop {
        tokio::select! {
            result = &mut build => break result,
            () = tokio::time::sleep(LEASE / 4) => {
                let kept = app.keep_job(job.id, LEASE).await;
                log("keeping a job", kept);
            }
            // The lease expires, and another replica takes the job.
            () = app.stopping().cancelled() => return,
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
    log("finishing a job", finished);
}

/// Builds one payload; returns the reason if there is none to be had, which is not an error.
async fn build(app: &Arc<App>, job: &BuildJob) -> Result<Option<String>, CoreError> {
    let request: BuildRequest = serde_json::from_str(&job.payload).map_err(CoreError::invalid)?;
    if let Some(from) = request.from {
        let needed = from.length.saturating_mul(MEMORY_PER_OLD_BYTE)
            + request.to.length.saturating_mul(MEMORY_PER_NEW_BYTE)
            + MEMORY_BESIDE;
        if needed > app.settings().jobs.delta_memory {
            return Ok(Some(format!(
                "building a delta would take {} MiB of memory, more than the {} MiB allowed",
                needed >> 20,
                app.settings().jobs.delta_memory >> 20
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
    let jobs = &app.settings().jobs;
    let bounds = (jobs.delta_threads, affordable(jobs.delta_memory));
    std::thread::spawn(move || {
        let _ = done.send(make(new, old, request, bounds, &cancel));
    });
    let made = result
        .await
        .map_err(|_| CoreError::invalid("the builder thread ended without a result"))?;
    let (manifest, file) = made?;
    let smallest = app.smallest_rival(&request);
    if manifest.payload.length >= smallest {
        return Ok(Some(format!(
            "not kept: {} bytes, and there is a payload of {smallest} bytes that is no more expensive to apply",
            manifest.payload.length
        )));
    }
    app.add_payload(&request, &manifest, file).await?;
    Ok(None)
}

async fn fetch(app: &App, image: Image) -> Result<File, CoreError> {
    let file = temporary()?;
    let copy = file.try_clone().map_err(io)?;
    app.fetch_image(image, copy).await?;
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
) -> Result<(Manifest, File), CoreError> {
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
        return Err(CoreError::invalid("the stored artifact is damaged"));
    }
    out.rewind().map_err(io)?;
    Ok((manifest, out))
}

/// Applies the delta as a device will: one that does not produce the image is a bug in the encoder
/// and must not be published.
fn check(manifest: &Manifest, old: &[u8], payload: &mut File) -> Result<(), CoreError> {
    let wrong = |why: &dyn std::error::Error| {
        CoreError::invalid(format!(
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

fn not_made(error: &tidegate_delta::MakeError) -> CoreError {
    CoreError::invalid(error_chain(error))
}

fn temporary() -> Result<File, CoreError> {
    tempfile::tempfile().map_err(io)
}

fn io(error: std::io::Error) -> CoreError {
    CoreError::Blob(BlobError::Read(error))
}
