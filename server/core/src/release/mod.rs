//! Products, releases, artifacts, and the deltas between them.

mod builds;
mod garbage;
mod gate;
mod lifecycle;
mod payloads;
pub mod settings;
mod tree;
mod upload;

pub use builds::BuildRequest;
pub use gate::GateAnswer;
pub use payloads::{PayloadStanding, PayloadState};

use tidegate_domain::event::Event;
use tidegate_domain::lifecycle::ReleaseStanding;
use tidegate_protocol::{Channel, Platform, ProblemCode, ProductName, Sha256, Stage, Version};
use tidegate_store::artifacts::{self, Artifact};
use tidegate_store::products::{self, ProductSettings, Release};
use tidegate_trust::{ImageFacts, ImagePath, RoleName};

use crate::CoreError;
use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::memory::plan::PlanSnapshot;

impl App {
    /// Creates a product. It begins with as many approvals as the strictest other product needs; fewer
    /// is a change of its settings, which waits for them. Idempotent.
    pub async fn create_product(
        &self,
        by: &Operator,
        name: &ProductName,
    ) -> Result<bool, CoreError> {
        let now = self.now();
        self.change_or_leave(async |tx| {
            if !products::insert_product(tx, name, now).await? {
                return Ok(Done::Leave(false));
            }
            let mut events = vec![Event::ProductMade {
                product: name.clone(),
            }];
            // One person must not get round the approvals of a product by making another one.
            let others = products::all_settings(tx).await?;
            let approvals = others.iter().map(|(_, settings)| settings.approvals).max();
            if let Some(approvals) = approvals.filter(|n| *n > 0) {
                let settings = ProductSettings {
                    approvals,
                    ..ProductSettings::default()
                };
                events.push(settings::applied(tx, name, &settings, None).await?);
            }
            Ok(Done::by(&by.actor, true, events))
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
    ) -> Result<(Release, bool), CoreError> {
        let now = self.now();
        self.change_or_leave(async |tx| {
            if !products::product_exists(tx, product).await? {
                return Err(CoreError::not_found(format!("product {product}")));
            }
            let new = products::insert_release(tx, product, version, notes, &by.name, now).await?;
            let release = products::release(tx, product, version)
                .await?
                .ok_or_else(|| CoreError::not_found(format!("release {version}")))?;
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

    /// Adds an artifact, uploaded before, to a draft release.
    pub async fn add_artifact(
        &self,
        by: &Operator,
        product: &ProductName,
        version: &Version,
        platform: &Platform,
        sha256: Sha256,
    ) -> Result<Artifact, CoreError> {
        let now = self.now();
        // Before the transaction: nobody should wait for a walk over the fleet, or for the store.
        let running = self.running_images();
        let uploaded = artifacts::blob(&mut self.db.read().await?, sha256).await?;
        if let Some(image) = uploaded {
            let artifact = Artifact {
                product: product.clone(),
                version: version.clone(),
                platform: platform.clone(),
                image,
            };
            self.check_tree(&artifact).await?;
        }
        self.change_or_leave(async |tx| {
            let release = products::release(tx, product, version)
                .await?
                .ok_or_else(|| CoreError::not_found(format!("release {version} of {product}")))?;
            let image = artifacts::blob(tx, sha256)
                .await?
                .ok_or_else(|| CoreError::not_found(format!("blob {sha256}; upload it first")))?;
            let artifact = Artifact {
                product: product.clone(),
                version: version.clone(),
                platform: platform.clone(),
                image,
            };
            let existing = artifacts::artifacts(tx, product, version).await?;
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
                    Err(CoreError::refuse(ProblemCode::Conflict, text))
                };
            }
            if release.stage != Stage::Draft {
                let stage = release.stage;
                let text = format!(
                    "release {version} is {stage}, and artifacts are added to a draft only: publish this one under \
                     a new version"
                );
                return Err(CoreError::refuse(ProblemCode::Conflict, text));
            }
            artifacts::insert_artifact(tx, &artifact, now).await?;
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

    /// Checks the artifacts of a draft on its way out: they may have been added before they were signed,
    /// and what they are is known only from then on.
    async fn check_draft(&self, product: &ProductName, version: &Version) -> Result<(), CoreError> {
        let mut tx = self.db.read().await?;
        let release = products::release(&mut tx, product, version).await?;
        if release.is_none_or(|release| release.stage != Stage::Draft) {
            return Ok(());
        }
        let added = artifacts::artifacts(&mut tx, product, version).await?;
        drop(tx);
        for artifact in &added {
            self.check_tree(artifact).await?;
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
    ) -> Result<Release, CoreError> {
        let plan = self.fleet.plan();
        self.check_draft(product, version).await?;
        self.change_or_leave(async |tx| {
            let release = products::release(tx, product, version)
                .await?
                .ok_or_else(|| CoreError::not_found(format!("release {version} of {product}")))?;
            let artifacts = artifacts::artifacts(tx, product, version).await?;
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
                return Err(CoreError::refuse(ProblemCode::Conflict, text));
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
}

/// Channels whose offline role lists exactly this artifact.
fn listed_in(plan: &PlanSnapshot, artifact: &Artifact) -> Vec<Channel> {
    facts_of(plan, artifact)
        .map(|(channel, _)| channel)
        .collect()
}

/// Facts that the offline roles sign about exactly this artifact, by channel.
fn facts_of<'a>(
    plan: &'a PlanSnapshot,
    artifact: &'a Artifact,
) -> impl Iterator<Item = (Channel, &'a ImageFacts)> {
    Channel::ALL.iter().copied().filter_map(|channel| {
        let path = ImagePath {
            role: RoleName::new(artifact.product.clone(), channel),
            release: artifact.version.clone(),
            platform: artifact.platform.clone(),
        };
        let facts = plan.trust.repository.image(&path)?;
        (facts.image == artifact.image).then_some((channel, facts))
    })
}
