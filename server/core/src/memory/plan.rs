//! Plan snapshot: the basis of decisions, apart from the devices.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tidegate_domain::admission::{
    ArtifactPlan, FleetPlan, ProductPlan, ReleasePlan, RolloutPlan, SignedPolicy, WavePlan,
};
use tidegate_domain::rollout::Progress;
use tidegate_domain::version_gate::GatePolicy;
use tidegate_protocol::{Channel, ProductName, RolloutId, Sha256, Version};
use tidegate_store::artifacts::{self, Artifact, Payload};
use tidegate_store::products::{self, ProductSettings, Release};
use tidegate_store::rollouts::{self, Rollout};
use tidegate_store::waves::{self, WaveRow};
use tidegate_store::{StoreError, Tx, aggregates, holds};
use tidegate_trust::{ImagePath, RoleName};

use crate::memory::trust::TrustState;

/// Everything but the devices, as of one transaction.
#[derive(Debug)]
pub struct PlanSnapshot {
    fleet: FleetPlan,
    /// Planned rollouts with their waves.
    pub rollouts: BTreeMap<RolloutId, (Rollout, Vec<WaveRow>)>,
    /// Number of devices that each rollout has exposed and may expose.
    pub progress: BTreeMap<RolloutId, Progress>,
    /// Settings of each product.
    pub settings: BTreeMap<ProductName, ProductSettings>,
    /// Payloads for fetching each image, smallest first.
    pub payloads: HashMap<Sha256, Vec<Payload>>,
    /// Offline and online metadata.
    pub trust: TrustState,
    nothing: ProductPlan,
}

impl PlanSnapshot {
    /// Loads a snapshot.
    pub async fn load(tx: &mut Tx) -> Result<Self, StoreError> {
        let trust = TrustState::load(tx).await?;
        let mut payloads: HashMap<Sha256, Vec<Payload>> = HashMap::new();
        for payload in artifacts::all_payloads(tx).await? {
            payloads.entry(payload.to).or_default().push(payload);
        }
        let mut fleet = FleetPlan::default();
        for release in products::all_releases(tx).await? {
            add_release(&mut fleet, &release);
        }
        for artifact in artifacts::all_artifacts(tx).await? {
            add_artifact(&mut fleet, &artifact, &payloads, &trust);
        }
        let settings: BTreeMap<_, _> = products::all_settings(tx).await?.into_iter().collect();
        for (name, settings) in &settings {
            let product = fleet.products.entry(name.clone()).or_default();
            product.gate = gate_policy(settings);
            for channel in Channel::ALL {
                let role = RoleName::new(name.clone(), *channel);
                if let Some(role) = trust.repository.role(&role) {
                    let signed = SignedPolicy {
                        min_release: role.policy.min_release.clone(),
                        eol: role.policy.eol.iter().cloned().collect(),
                        listed: role
                            .images
                            .keys()
                            .map(|path| (path.release.clone(), path.platform.clone()))
                            .collect(),
                    };
                    product.signed.insert(*channel, signed);
                }
            }
        }
        for row in holds::open(tx).await? {
            let product = fleet.products.entry(row.product).or_default();
            product.holds.push(row.hold);
        }
        let mut by_id = BTreeMap::new();
        for rollout in rollouts::planned(tx).await? {
            let waves = waves::waves(tx, rollout.id).await?;
            let product = fleet.products.entry(rollout.product.clone()).or_default();
            product.rollouts.push(rollout_plan(&rollout, &waves));
            by_id.insert(rollout.id, (rollout, waves));
        }
        for product in fleet.products.values_mut() {
            // Live rollouts before completed ones, then the newest release: a late device goes
            // there.
            product.rollouts.sort_by(|a, b| {
                let finished = |r: &RolloutPlan| r.state.is_final();
                finished(a)
                    .cmp(&finished(b))
                    .then_with(|| b.release.cmp(&a.release))
            });
        }
        Ok(Self {
            fleet,
            rollouts: by_id,
            progress: aggregates::progress(tx).await?,
            settings,
            payloads,
            trust,
            nothing: ProductPlan::default(),
        })
    }

    /// Plan of a product; an empty one if it has no releases.
    pub fn product(&self, name: &ProductName) -> &ProductPlan {
        self.fleet.products.get(name).unwrap_or(&self.nothing)
    }

    /// Artifact of a release for a platform.
    pub fn artifact(
        &self,
        product: &ProductName,
        version: &Version,
        platform: &tidegate_protocol::Platform,
    ) -> Option<&ArtifactPlan> {
        self.product(product)
            .releases
            .get(version)?
            .artifacts
            .get(platform)
    }

    /// Products with their plans.
    pub fn products(&self) -> impl Iterator<Item = (&ProductName, &ProductPlan)> {
        self.fleet.products.iter()
    }
}

fn add_release(fleet: &mut FleetPlan, release: &Release) {
    let product = fleet.products.entry(release.product.clone()).or_default();
    let plan = ReleasePlan {
        stage: release.stage,
        eol: release.eol.clone(),
        artifacts: BTreeMap::new(),
    };
    product.releases.insert(release.version.clone(), plan);
}

fn add_artifact(
    fleet: &mut FleetPlan,
    artifact: &Artifact,
    payloads: &HashMap<Sha256, Vec<Payload>>,
    trust: &TrustState,
) {
    let Some(release) = fleet
        .products
        .get_mut(&artifact.product)
        .and_then(|p| p.releases.get_mut(&artifact.version))
    else {
        return;
    };
    // Properties signed by the offline keys: the role of any channel lists the same ones.
    let facts = Channel::ALL.iter().find_map(|channel| {
        trust.repository.image(&ImagePath {
            role: RoleName::new(artifact.product.clone(), *channel),
            release: artifact.version.clone(),
            platform: artifact.platform.clone(),
        })
    });
    let list = payloads
        .get(&artifact.image.sha256)
        .map_or(&[][..], Vec::as_slice);
    let full = list
        .iter()
        .filter(|p| p.from.is_none())
        .map(|p| p.bytes)
        .min();
    let plan = ArtifactPlan {
        image: artifact.image,
        stepping_stone: facts.is_some_and(|f| f.stepping_stone),
        min_from: facts.and_then(|f| f.min_from.clone()),
        allow_rollback: facts.is_none_or(|f| f.allow_rollback),
        full_bytes: full.unwrap_or(artifact.image.length),
        deltas: list
            .iter()
            // Largest first, so that of two from the same image the smaller one wins.
            .rev()
            .filter_map(|p| Some((p.from?, p.bytes)))
            .collect(),
    };
    release.artifacts.insert(artifact.platform.clone(), plan);
}

pub(crate) fn rollout_plan(rollout: &Rollout, waves: &[WaveRow]) -> RolloutPlan {
    RolloutPlan {
        id: rollout.id,
        release: rollout.release.clone(),
        state: rollout.state,
        generation: rollout.generation,
        salt: rollout.salt,
        waves: waves
            .iter()
            .map(|row| WavePlan {
                name: row.wave.name.clone(),
                selector: row.wave.selector.clone(),
                frontier: row.progress.frontier,
                state: row.progress.state,
            })
            .collect(),
        max_attempts: rollout.max_attempts,
        rollback_window_s: rollout.rollback_window_s,
        windows: rollout.policy.windows.clone(),
        ramp: RAMP,
        deadline: rollout.policy.deadline,
        battery_wait: rollout.policy.battery_wait,
        metered: rollout.policy.metered,
    }
}

/// Time over which devices are spread when their maintenance window opens.
const RAMP: Duration = Duration::from_mins(10);

/// Settings are checked when they are written; one stored by an earlier version that cannot be read
/// imposes nothing on clients.
fn gate_policy(settings: &ProductSettings) -> GatePolicy {
    GatePolicy {
        min_version: settings.min_version.clone(),
        min_tls: settings.min_tls.as_ref().and_then(|t| t.parse().ok()),
        capabilities: settings.capabilities.clone(),
        upgrade_url: settings.upgrade_url.clone(),
    }
}
