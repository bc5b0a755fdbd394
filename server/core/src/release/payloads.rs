//! Payloads of a release, as people look at them.

use std::collections::BTreeMap;

use tidegate_protocol::{Encoding, Platform, ProductName, Sha256, Version};
use tidegate_store::{artifacts, jobs, products};

use super::builds::{BUILD, BuildRequest};
use crate::CoreError;
use crate::app::App;

/// Progress of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadState {
    /// Devices are offered it.
    Ready,
    /// A job will build it, or is building it.
    Building,
    /// It was not built, or not kept.
    Failed,
}

/// A payload of a release, or the job that is to build one.
#[derive(Debug, Clone)]
pub struct PayloadStanding {
    /// Its platform.
    pub platform: Platform,
    /// Release that it starts from; `None` for full payloads.
    pub from: Option<Version>,
    /// Its encoding.
    pub encoding: Encoding,
    /// Bytes to download; 0 until it is built.
    pub bytes: u64,
    /// Size in bytes of the image it produces.
    pub image_bytes: u64,
    /// Its progress.
    pub state: PayloadState,
    /// Reason it failed, or was not kept.
    pub error: String,
}

impl App {
    /// Lists the payloads of a release's artifacts, and the jobs that build more.
    pub async fn payloads_of(
        &self,
        product: &ProductName,
        version: &Version,
    ) -> Result<Vec<PayloadStanding>, CoreError> {
        let plan = self.fleet.plan();
        let mut tx = self.db.read().await?;
        let artifacts = artifacts::artifacts(&mut tx, product, version).await?;
        if artifacts.is_empty()
            && products::release(&mut tx, product, version)
                .await?
                .is_none()
        {
            return Err(CoreError::not_found(format!(
                "release {version} of {product}"
            )));
        }
        let names: BTreeMap<Sha256, Version> = artifacts::all_artifacts(&mut tx)
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
                views.push(PayloadStanding {
                    platform: artifact.platform.clone(),
                    from: payload.from.and_then(|f| names.get(&f).cloned()),
                    encoding: payload.encoding,
                    bytes: payload.bytes,
                    image_bytes: artifact.image.length,
                    state: PayloadState::Ready,
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
                views.push(PayloadStanding {
                    platform: artifact.platform.clone(),
                    from: request.from.and_then(|f| names.get(&f.sha256).cloned()),
                    encoding: request.encoding,
                    bytes: 0,
                    image_bytes: artifact.image.length,
                    state: if job.state == "failed" {
                        PayloadState::Failed
                    } else {
                        PayloadState::Building
                    },
                    error: job.error,
                });
            }
        }
        Ok(views)
    }
}
