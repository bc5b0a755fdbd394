//! The fleet in memory: device facts, and the plan, an immutable snapshot that is swapped as a
//! whole.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;
use tidegate_domain::contact::later;
use tidegate_domain::rollout::{Outcome, Progress};
use tidegate_protocol::{DeviceId, RolloutId, Timestamp};
use tidegate_store::devices::{self, Device};
use tidegate_store::{Db, StoreError, aggregates, deployments, events, quarantine};
use tokio::sync::watch;

use crate::memory::device::{DeviceEntry, DeviceState, merge_heartbeat, new_state, watched_as};
use crate::memory::permits::Permits;
use crate::memory::plan::PlanSnapshot;

/// Devices that took the update and have missed their usual check-in: counts by wave and outcome.
pub type Quiet = Vec<(u32, Outcome, u64)>;

/// The fleet as known to this replica.
pub struct Fleet {
    devices: RwLock<HashMap<DeviceId, Arc<DeviceEntry>>>,
    plan: ArcSwap<PlanSnapshot>,
    permits: ArcSwap<BTreeMap<RolloutId, Arc<Permits>>>,
    /// Devices taking an update or in their rollback window, whose silence matters.
    watched: Mutex<BTreeSet<DeviceId>>,
    reloading: tokio::sync::Mutex<()>,
    /// Locks that serialize reloads of a device: an older read must not overwrite a newer one.
    reloading_devices: [tokio::sync::Mutex<()>; RELOADS],
    version: watch::Sender<u64>,
    /// Number of the newest event contained in the plan, and in the permits.
    plan_at: AtomicI64,
    permits_at: AtomicI64,
}

/// Number of devices that can be reloaded at the same time.
const RELOADS: usize = 64;

impl Fleet {
    /// Loads the whole fleet.
    pub async fn load(db: &Db) -> Result<Self, StoreError> {
        let mut tx = db.read().await?;
        let head = events::head(&mut tx).await?;
        let mut states: HashMap<DeviceId, DeviceState> = devices::all(&mut tx)
            .await?
            .into_iter()
            .map(|device| (device.id, new_state(device)))
            .collect();
        for deployment in deployments::all(&mut tx).await? {
            if let Some(state) = states.get_mut(&deployment.device) {
                state
                    .deployments
                    .insert(deployment.rollout, deployment.facts);
            }
        }
        for (device, version) in quarantine::all_quarantined(&mut tx).await? {
            if let Some(state) = states.get_mut(&device) {
                state.quarantine.insert(version);
            }
        }
        let plan = PlanSnapshot::load(&mut tx).await?;
        let watched = states
            .iter()
            .filter(|(_, state)| state.is_watched())
            .map(|(id, _)| *id)
            .collect();
        let devices = states
            .into_iter()
            .map(|(id, state)| (id, DeviceEntry::new(state)))
            .collect();
        let permits = plan
            .progress
            .iter()
            .map(|(id, progress)| {
                let permits = Permits::default();
                permits.set(progress.permits());
                (*id, Arc::new(permits))
            })
            .collect();
        Ok(Self {
            devices: RwLock::new(devices),
            plan: ArcSwap::from_pointee(plan),
            permits: ArcSwap::from_pointee(permits),
            watched: Mutex::new(watched),
            reloading_devices: [const { tokio::sync::Mutex::const_new(()) }; RELOADS],
            reloading: tokio::sync::Mutex::default(),
            version: watch::Sender::new(0),
            plan_at: AtomicI64::new(head),
            permits_at: AtomicI64::new(head),
        })
    }

    /// Current plan.
    pub fn plan(&self) -> Arc<PlanSnapshot> {
        self.plan.load_full()
    }

    /// Wakes held check-ins without a change of the plan.
    pub fn wake_held(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Subscribes to changes of the plan.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Reloads the plan and swaps it. Reloads of the plan and of the permits take turns, so that an
    /// older read never replaces a newer one.
    pub async fn reload_plan(&self, db: &Db) -> Result<(), StoreError> {
        let _turn = self.reloading.lock().await;
        let mut tx = db.read().await?;
        // Read the head first: later events may be in the plan already, but none up to the head is
        // missing.
        let head = events::head(&mut tx).await?;
        let plan = PlanSnapshot::load(&mut tx).await?;
        drop(tx);
        self.set_permits(&plan.progress);
        self.plan.store(Arc::new(plan));
        self.plan_at.store(head, Ordering::Relaxed);
        self.permits_at.store(head, Ordering::Relaxed);
        self.version.send_modify(|version| *version += 1);
        Ok(())
    }

    /// Reloads the permits only: grants come often.
    pub async fn reload_permits(&self, db: &Db) -> Result<(), StoreError> {
        let _turn = self.reloading.lock().await;
        let mut tx = db.read().await?;
        let head = events::head(&mut tx).await?;
        let progress = aggregates::progress(&mut tx).await?;
        drop(tx);
        self.set_permits(&progress);
        self.permits_at.store(head, Ordering::Relaxed);
        Ok(())
    }

    /// Returns whether the plan was loaded before this event was written.
    pub fn plan_lacks(&self, seq: i64) -> bool {
        self.plan_at.load(Ordering::Relaxed) < seq
    }

    /// Returns whether the permits were loaded before this event was written.
    pub fn permits_lack(&self, seq: i64) -> bool {
        self.permits_at.load(Ordering::Relaxed) < seq
    }

    fn set_permits(&self, progress: &BTreeMap<RolloutId, Progress>) {
        let permits = self.permits.load();
        if progress.keys().any(|id| !permits.contains_key(id)) {
            let mut grown = BTreeMap::clone(&permits);
            for id in progress.keys() {
                grown.entry(*id).or_default();
            }
            self.permits.store(Arc::new(grown));
        }
        let permits = self.permits.load();
        for (id, progress) in progress {
            if let Some(found) = permits.get(id) {
                found.set(progress.permits());
            }
        }
    }

    /// Permits of a rollout.
    pub fn permits(&self, rollout: RolloutId) -> Option<Arc<Permits>> {
        self.permits.load().get(&rollout).cloned()
    }

    /// Number of permits left in a rollout.
    pub fn permits_left(&self, rollout: RolloutId) -> u64 {
        self.permits
            .load()
            .get(&rollout)
            .map_or(0, |room| room.left())
    }

    /// Returns a device.
    pub fn device(&self, id: DeviceId) -> Option<Arc<DeviceEntry>> {
        self.devices
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
            .cloned()
    }

    /// Returns all devices, in no particular order.
    pub fn devices(&self) -> Vec<Arc<DeviceEntry>> {
        self.devices
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Number of devices.
    pub fn len(&self) -> usize {
        self.devices
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .len()
    }

    /// Returns whether there is no device.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reloads one device: another replica changed it, or it has just joined.
    pub async fn reload_device(&self, db: &Db, id: DeviceId) -> Result<(), StoreError> {
        let mut hasher = DefaultHasher::new();
        id.hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % RELOADS as u64).unwrap_or(0);
        let _turn = self.reloading_devices[lane].lock().await;
        let mut tx = db.read().await?;
        let Some(device) = devices::one(&mut tx, id).await? else {
            return Ok(());
        };
        let deployments = deployments::of_device(&mut tx, id).await?;
        let quarantine = quarantine::quarantined(&mut tx, id).await?;
        drop(tx);
        let entry = {
            let mut map = self.devices.write().unwrap_or_else(PoisonError::into_inner);
            let fresh = || DeviceEntry::new(new_state(device.clone()));
            map.entry(id).or_insert_with(fresh).clone()
        };
        let mut state = entry.lock();
        let standing = |d: &Device| (d.active, d.awaiting, d.isolated.clone(), d.new_key);
        let changed = standing(&state.device) != standing(&device)
            || !state.quarantine.iter().eq(quarantine.iter());
        let before = std::mem::replace(&mut state.device, device);
        if state.dirty {
            merge_heartbeat(&mut state.device, &before);
        } else if before.isolated.is_empty() && state.device.isolated.is_empty() {
            // Another replica may have written an earlier one last.
            state.device.contact = later(state.device.contact.take(), before.contact);
        }
        state.deployments = deployments
            .into_iter()
            .map(|d| (d.rollout, d.facts))
            .collect();
        state.quarantine = quarantine.into_iter().collect();
        let is_watched = state.is_watched();
        drop(state);
        if changed {
            entry.changed.notify_waiters();
        }
        let mut watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        if is_watched {
            watched.insert(id);
        } else {
            watched.remove(&id);
        }
        Ok(())
    }

    /// Devices of some rollouts that took the update and were last heard from before a time: by
    /// wave, and by whether they are still taking it or in their rollback window. Looks only at
    /// watched devices, and in memory, where heartbeats are newest.
    pub fn quiet(&self, before: &BTreeMap<RolloutId, Timestamp>) -> BTreeMap<RolloutId, Quiet> {
        let watched: Vec<DeviceId> = {
            let watched = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
            watched.iter().copied().collect()
        };
        let mut counts: BTreeMap<(RolloutId, u32, Outcome), u64> = BTreeMap::new();
        for entry in watched.into_iter().filter_map(|id| self.device(id)) {
            let state = entry.lock();
            for (rollout, deployment) in &state.deployments {
                let Some(outcome) = watched_as(deployment) else {
                    continue;
                };
                if before
                    .get(rollout)
                    .is_some_and(|at| state.device.last_seen < *at)
                {
                    *counts
                        .entry((*rollout, deployment.wave, outcome))
                        .or_default() += 1;
                }
            }
        }
        let mut quiet: BTreeMap<RolloutId, Quiet> = BTreeMap::new();
        for ((rollout, wave, outcome), count) in counts {
            quiet
                .entry(rollout)
                .or_default()
                .push((wave, outcome, count));
        }
        quiet
    }

    /// Merges heartbeats written by other replicas. Returns the devices that run something else than is
    /// known here: the event that says so was withheld, or is about to be followed.
    pub fn merge_heartbeats(&self, heard: &[Device]) -> Vec<DeviceId> {
        let mut others = Vec::new();
        for device in heard {
            let Some(entry) = self.device(device.id) else {
                continue;
            };
            let overtaken = {
                let mut state = entry.lock();
                let session = |d: &Device| d.contact.as_ref().map(|c| c.session);
                let before = session(&state.device);
                merge_heartbeat(&mut state.device, device);
                if (&state.device.release, state.device.image) != (&device.release, device.image) {
                    others.push(device.id);
                }
                before.is_some() && before != session(&state.device)
            };
            if overtaken {
                // Whoever is held here in an older session asks again, and has to show itself.
                entry.changed.notify_waiters();
            }
        }
        others
    }
}
