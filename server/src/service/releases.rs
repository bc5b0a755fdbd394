//! Products, releases, artifacts, and the deltas between them.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use futures::{Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use tidegate_domain::event::Event;
use tidegate_domain::lifecycle::ReleaseStanding;
use tidegate_protocol::{
    Channel, Encoding, Image, JobId, Platform, ProblemCode, ProductName, Sha256, Stage, Version,
};
use tidegate_trust::{ImagePath, RoleName};

use super::ServiceError;
use super::access::Operator;
use super::plan::PlanSnapshot;
use crate::app::App;
use crate::commit::Done;
use crate::random;
use crate::store::products::{self, Artifact, Payload, Release};
use crate::store::{jobs, to_json};

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
pub const BUILD: &str = "build_payload";

/// Maximum number of releases that deltas are built from, and back to: the newest, and those that
/// most devices run.
const DELTAS_FROM: usize = 8;

impl App {
    /// Creates a product. Idempotent.
    pub async fn create_product(
        &self,
        by: &Operator,
        name: &ProductName,
    ) -> Result<bool, ServiceError> {
        let now = self.now();
        self.change_or_leave(async |tx| {
            if !products::insert_product(tx, name, now).await? {
                return Ok(Done::Leave(false));
            }
            let made = Event::ProductMade {
                product: name.clone(),
            };
            Ok(Done::by(&by.actor, true, [made]))
        })
        .await
    }

    /// Creates a draft release. Idempotent.
    pub async fn create_release(
        &self,
        by: &Operator,
        product: &ProductName,
        version: &Version,
        notes: &str,
    ) -> Result<(Release, bool), ServiceError> {
        let now = self.now();
        self.change_or_leave(async |tx| {
            if !products::product_exists(tx, product).await? {
                return Err(ServiceError::not_found(format!("product {product}")));
            }
            let new = products::insert_release(tx, product, version, notes, &by.name, now).await?;
            let release = products::release(tx, product, version)
                .await?
                .ok_or_else(|| ServiceError::not_found(format!("release {version}")))?;
            if !new {
                return Ok(Done::Leave((release, false)));
            }
            let drafted = Event::ReleaseDrafted {
                product: product.clone(),
                release: version.clone(),
            };
            Ok(Done::by(&by.actor, (release, true), [drafted]))
        })
        .await
    }

    /// Stores the bytes of an artifact from a stream, in constant memory. The manifest of the raw
    /// payload, which can be served at once, is made on the way.
    pub async fn upload_blob<E: Into<std::io::Error>>(
        &self,
        sha256: Sha256,
        stream: impl Stream<Item = Result<Bytes, E>>,
    ) -> Result<Image, ServiceError> {
        if let Some(known) = products::blob(&mut self.db.read().await?, sha256).await? {
            // Read to the end all the same: a client cut off while it is sending sees a broken pipe
            // instead of the answer.
            let mut stream = std::pin::pin!(stream);
            let mut left = self.settings.max_upload;
            while let Some(Ok(piece)) = stream.next().await {
                left = left.saturating_sub(piece.len() as u64);
                if left == 0 {
                    break;
                }
            }
            return Ok(known);
        }
        let manifest = self
            .blobs
            .put_stream(sha256, self.settings.max_upload, stream)
            .await?;
        let payload = self.store_manifest(&manifest).await?;
        self.keep_blob(manifest.to, &payload).await?;
        Ok(manifest.to)
    }

    /// Stores a manifest as a blob; returns the payload row that names it.
    pub(crate) async fn store_manifest(
        &self,
        manifest: &tidegate_delta::Manifest,
    ) -> Result<Payload, ServiceError> {
        Ok(Payload {
            to: manifest.to.sha256,
            from: manifest.from.map(|f| f.sha256),
            encoding: manifest.encoding,
            manifest: self.blobs.put_bytes(manifest.to_bytes()).await?,
            bytes: manifest.payload.length,
            memory: manifest.memory,
            work: manifest.work,
        })
    }

    /// Adds an artifact, uploaded before, to a draft release.
    pub async fn add_artifact(
        &self,
        by: &Operator,
        product: &ProductName,
        version: &Version,
        platform: &Platform,
        sha256: Sha256,
    ) -> Result<Artifact, ServiceError> {
        let now = self.now();
        // Before the transaction: nobody should wait for a walk over the fleet.
        let running = self.running_images();
        self.change_or_leave(async |tx| {
            let release = products::release(tx, product, version)
                .await?
                .ok_or_else(|| {
                    ServiceError::not_found(format!("release {version} of {product}"))
                })?;
            let image = products::blob(tx, sha256).await?.ok_or_else(|| {
                ServiceError::not_found(format!("blob {sha256}; upload it first"))
            })?;
            let artifact = Artifact {
                product: product.clone(),
                version: version.clone(),
                platform: platform.clone(),
                image,
            };
            let existing = products::artifacts(tx, product, version).await?;
            if let Some(there) = existing.iter().find(|a| a.platform == *platform) {
                // Publishing the same bytes again is the same request repeated.
                return if there.image == image {
                    Ok(Done::Leave(artifact))
                } else {
                    let there = there.image.sha256.short();
                    let text = format!(
                        "{version} for {platform} is {there} already: a release never changes, \
                         publish a new one"
                    );
                    Err(ServiceError::refuse(ProblemCode::Conflict, text))
                };
            }
            if release.stage != Stage::Draft {
                let stage = release.stage;
                let text =
                    format!("release {version} is {stage}; artifacts can only be added to a draft");
                return Err(ServiceError::refuse(ProblemCode::Conflict, text));
            }
            products::insert_artifact(tx, &artifact, now).await?;
            self.enqueue_builds(tx, &artifact, &running).await?;
            let added = Event::ArtifactAdded {
                product: product.clone(),
                release: version.clone(),
                platform: platform.clone(),
                image: sha256,
            };
            Ok(Done::by(&by.actor, artifact, [added]))
        })
        .await
    }

    /// Number of devices that run each image.
    pub(super) fn running_images(&self) -> HashMap<Sha256, u64> {
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
    async fn enqueue_builds(
        &self,
        tx: &mut crate::store::Tx,
        artifact: &Artifact,
        running: &HashMap<Sha256, u64>,
    ) -> Result<(), ServiceError> {
        let mut others: Vec<Artifact> = products::all_artifacts(tx)
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

    /// Promotes a release to a stage, or previews that; all rules are the domain's.
    pub async fn promote(
        &self,
        by: &Operator,
        product: &ProductName,
        version: &Version,
        to: Stage,
        reason: Option<&str>,
        dry_run: bool,
    ) -> Result<Release, ServiceError> {
        let plan = self.fleet.plan();
        self.change_or_leave(async |tx| {
            let release = products::release(tx, product, version)
                .await?
                .ok_or_else(|| {
                    ServiceError::not_found(format!("release {version} of {product}"))
                })?;
            let artifacts = products::artifacts(tx, product, version).await?;
            let standing = ReleaseStanding {
                stage: release.stage,
                artifacts: artifacts
                    .iter()
                    .map(|a| (a.platform.to_string(), listed_in(&plan, a)))
                    .collect(),
            };
            let stage = standing.promote(to, reason)?;
            let promoted = Release {
                stage,
                ..release.clone()
            };
            if dry_run || stage == release.stage {
                return Ok(Done::Leave(promoted));
            }
            if !products::set_stage(tx, &release, stage, reason).await? {
                let text = "the release has just been changed by someone else; try again";
                return Err(ServiceError::refuse(ProblemCode::Conflict, text));
            }
            let event = Event::ReleasePromoted {
                product: product.clone(),
                release: version.clone(),
                from: release.stage,
                to: stage,
                reason: reason.map(str::to_owned),
            };
            let after = Release {
                revision: release.revision + 1,
                ..promoted
            };
            Ok(Done::by(&by.actor, after, [event]))
        })
        .await
    }

    /// Lists the payloads of a release's artifacts, and the jobs that build more.
    pub async fn payloads_of(
        &self,
        product: &ProductName,
        version: &Version,
    ) -> Result<Vec<PayloadView>, ServiceError> {
        let plan = self.fleet.plan();
        let mut tx = self.db.read().await?;
        let artifacts = products::artifacts(&mut tx, product, version).await?;
        if artifacts.is_empty()
            && products::release(&mut tx, product, version)
                .await?
                .is_none()
        {
            return Err(ServiceError::not_found(format!(
                "release {version} of {product}"
            )));
        }
        let names: BTreeMap<Sha256, Version> = products::all_artifacts(&mut tx)
            .await?
            .into_iter()
            .filter(|a| a.product == *product)
            .map(|a| (a.image.sha256, a.version))
            .collect();
        let mut views = Vec::new();
        for artifact in &artifacts {
            for payload in plan
                .payloads
                .get(&artifact.image.sha256)
                .into_iter()
                .flatten()
            {
                views.push(PayloadView {
                    platform: artifact.platform.to_string(),
                    from: payload
                        .from
                        .and_then(|f| names.get(&f).map(ToString::to_string)),
                    encoding: payload.encoding.to_string(),
                    bytes: payload.bytes,
                    image_bytes: artifact.image.length,
                    state: "ready".into(),
                    error: String::new(),
                });
            }
        }
        for job in jobs::of_kind(&mut tx, BUILD).await? {
            let Ok(request) = serde_json::from_str::<BuildRequest>(&job.payload) else {
                continue;
            };
            let artifact = artifacts.iter().find(|a| a.image == request.to);
            if let Some(artifact) = artifact
                && job.state != "done"
            {
                views.push(PayloadView {
                    platform: artifact.platform.to_string(),
                    from: request
                        .from
                        .and_then(|f| names.get(&f.sha256).map(ToString::to_string)),
                    encoding: request.encoding.to_string(),
                    bytes: 0,
                    image_bytes: artifact.image.length,
                    state: if job.state == "failed" {
                        "failed"
                    } else {
                        "building"
                    }
                    .into(),
                    error: job.error,
                });
            }
        }
        Ok(views)
    }
}

/// Payload, for people.
#[derive(Debug, Clone, Serialize, Deserialize, utoipa::ToSchema)]
pub struct PayloadView {
    /// Its platform.
    pub platform: String,
    /// Release that it starts from; absent for full payloads.
    pub from: Option<String>,
    /// Its encoding.
    pub encoding: String,
    /// Bytes to download.
    pub bytes: u64,
    /// Size in bytes of the image it produces.
    pub image_bytes: u64,
    /// `ready`, `building` or `failed`.
    pub state: String,
    /// Reason it failed, or was not kept.
    pub error: String,
}

/// Channels whose offline role lists exactly this artifact.
fn listed_in(plan: &PlanSnapshot, artifact: &Artifact) -> Vec<Channel> {
    Channel::ALL
        .iter()
        .copied()
        .filter(|channel| {
            let path = ImagePath {
                role: RoleName::new(artifact.product.clone(), *channel),
                release: artifact.version.clone(),
                platform: artifact.platform.clone(),
            };
            plan.trust
                .repository
                .image(&path)
                .is_some_and(|f| f.image == artifact.image)
        })
        .collect()
}
