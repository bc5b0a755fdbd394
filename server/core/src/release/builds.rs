//! Build jobs: which payloads are made ahead of need, and taking what was made.

use std::collections::HashMap;
use std::fs::File;

use serde::{Deserialize, Serialize};
use tidegate_delta::Manifest;
use tidegate_domain::event::{Actor, Event};
use tidegate_protocol::{Encoding, Image, JobId, Sha256};
use tidegate_store::artifacts::{self, Artifact, Payload};
use tidegate_store::{jobs, to_json};

use crate::app::App;
use crate::commit::Done;
use crate::{CoreError, random};

/// Request of a build job.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct BuildRequest {
    /// Image to produce.
    pub to: Image,
    /// Image to start from; `None` for a full payload.
    pub from: Option<Image>,
    /// Encoding of the payload; jobs of earlier versions do not name one.
    #[serde(default = "full")]
    pub encoding: Encoding,
    /// Size of a chunk in bytes; `None` for the default of its kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunk: Option<u32>,
}

fn full() -> Encoding {
    Encoding::Full
}

/// Name of the queue of build jobs.
pub(super) const BUILD: &str = "build_payload";

/// Maximum number of releases that deltas are built from, and back to: the newest, and those that
/// most devices run.
const DELTAS_FROM: usize = 8;

impl App {
    /// Number of devices that run each image.
    pub(crate) fn running_images(&self) -> HashMap<Sha256, u64> {
        let mut running = HashMap::new();
        for device in self.fleet.devices() {
            if let Some(image) = device.lock().device.image {
                *running.entry(image).or_default() += 1;
            }
        }
        running
    }

    /// Enqueues build jobs: the full payload first, then deltas from other releases, then deltas
    /// back to them.
    pub(super) async fn enqueue_builds(
        &self,
        tx: &mut tidegate_store::Tx,
        artifact: &Artifact,
        running: &HashMap<Sha256, u64>,
    ) -> Result<(), CoreError> {
        let mut others: Vec<Artifact> = artifacts::all_artifacts(tx)
            .await?
            .into_iter()
            .filter(|a| a.product == artifact.product && a.platform == artifact.platform)
            .filter(|a| a.version != artifact.version && a.image != artifact.image)
            .collect();
        // The newest comes first: testers run it, even if few devices do.
        others.sort_by(|a, b| b.version.cmp(&a.version));
        let rest = others.split_off(others.len().min(1));
        let mut rest: Vec<_> = rest
            .into_iter()
            .map(|a| (running.get(&a.image.sha256).copied().unwrap_or(0), a))
            .collect();
        rest.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
        others.extend(rest.into_iter().map(|(_, artifact)| artifact));
        others.truncate(DELTAS_FROM);
        let plan = self.fleet.plan();
        let settings = plan.settings.get(&artifact.product);
        let bytes = |kib: Option<u32>| kib.map(|kib| kib << 10);
        let full_chunk = settings.and_then(|s| bytes(s.full_chunk_kib));
        let chunk = settings.and_then(|s| bytes(s.delta_chunk_kib));
        let mut requests = vec![BuildRequest {
            to: artifact.image,
            from: None,
            encoding: Encoding::Full,
            chunk: full_chunk,
        }];
        for encoding in [Encoding::Quick, Encoding::Dense] {
            for other in &others {
                requests.push(BuildRequest {
                    to: artifact.image,
                    from: Some(other.image),
                    encoding,
                    chunk,
                });
            }
            for other in &others {
                requests.push(BuildRequest {
                    to: other.image,
                    from: Some(artifact.image),
                    encoding,
                    chunk,
                });
            }
        }
        for (at, request) in (0..).zip(requests) {
            let from = request
                .from
                .map_or_else(String::new, |f| f.sha256.to_string());
            let subject = match request.encoding {
                Encoding::Full => format!("{}<{from}", request.to.sha256),
                encoding => format!("{}<{from} {encoding}", request.to.sha256),
            };
            let payload = to_json("payload", &request)?;
            let id = JobId::from_random(random::bytes());
            // One microsecond apart, so that they run in this order.
            let now = self.now().plus(std::time::Duration::from_micros(at));
            jobs::enqueue(tx, id, BUILD, &subject, &payload, now).await?;
        }
        Ok(())
    }

    /// Length of the smallest payload that costs a device no more than one of this request to
    /// apply; the image's own length if there is none.
    pub fn smallest_rival(&self, request: &BuildRequest) -> u64 {
        // A device that can apply one delta can apply the other, and `quick` is cheaper for it.
        let rivals = |p: &Payload| {
            p.from.is_none()
                || request.encoding == Encoding::Dense
                    && p.encoding == Encoding::Quick
                    && p.from == request.from.map(|f| f.sha256)
        };
        self.fleet
            .plan()
            .payloads
            .get(&request.to.sha256)
            .and_then(|list| list.iter().filter(|p| rivals(p)).map(|p| p.bytes).min())
            .unwrap_or(request.to.length)
    }

    /// Fetches a stored image into a file.
    pub async fn fetch_image(&self, image: Image, into: File) -> Result<(), CoreError> {
        Ok(self.blobs.fetch(image, into).await?)
    }

    /// Stores a payload that was built, and offers it from now on.
    pub async fn add_payload(
        &self,
        request: &BuildRequest,
        manifest: &Manifest,
        file: File,
    ) -> Result<(), CoreError> {
        self.blobs.put_file(manifest.payload.sha256, file).await?;
        let payload = self.store_manifest(manifest).await?;
        let now = self.now();
        self.change_or_leave(async |tx| {
            if !artifacts::insert_payload(tx, &payload, now).await? {
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
        self.metrics
            .payload_bytes_saved
            .inc_by(request.to.length.saturating_sub(manifest.payload.length));
        Ok(())
    }
}
