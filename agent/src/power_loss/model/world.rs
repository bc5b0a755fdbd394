//! The device of the model, and everything around it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_domain::deployment::{DeploymentEvent, apply};
use tidegate_machine::Agenda;
use tidegate_machine::fsm::{Activation, Effect, Event, Job, Phase, Record, SlotId};
use tidegate_machine::orders::{self, Asked, NotTaken};
use tidegate_protocol::{DeploymentId, DeploymentState as State, Reason, Timestamp};
use tidegate_trust::TrustError;
use tidegate_trust::assignment::{Action, Clock, Terms};

use crate::driver::core::{Core, NotBack};
use crate::fs::journal;
use crate::fs::sim::Sim;
use crate::fs::{Crashing, Fs, Mode};
use crate::install::{Backend, Executable};

use super::orders::{Orders, SIGNED};
use super::server::{Deployment, Server};
use super::versions::Versions;
use super::{COUNTS, Happening, VERSIONS};

/// The device and everything around it.
pub(super) struct World {
    sim: Sim,
    versions: Arc<Versions>,
    orders: Arc<Orders>,
    server: Server,
    core: Option<Core>,
    /// Operations left until the power fails, and which medium is left then.
    cut: Arc<AtomicU64>,
    medium: usize,
    /// Whether the server still has the kept version; `None` if it is not damaged.
    rotten: Option<bool>,
    /// The server's time, and how far the device's clock is from it, in seconds.
    now: Timestamp,
    ahead: i64,
}

const NEVER: u64 = u64::MAX;

fn state_dir() -> PathBuf {
    "/m/state".into()
}

impl World {
    pub(super) fn new(versions: Arc<Versions>, orders: Arc<Orders>) -> Self {
        let sim = Sim::new();
        let fs: Arc<dyn Fs> = Arc::new(sim.clone());
        for folder in ["/m", "/m/state", "/m/opt"] {
            fs.create_dirs(Path::new(folder)).unwrap();
        }
        fs.replace(
            Path::new("/m/opt/app"),
            &versions.images[0],
            Mode::Executable,
        )
        .unwrap();
        let backend = Executable::open(fs.clone(), &state_dir(), "/m/opt/app".into()).unwrap();
        backend.adopt(SlotId::A, Path::new("/m/opt/app")).unwrap();
        let record = Record {
            active: Some(SlotId::A),
            a: Some(versions.installed(0)),
            ..Record::new()
        };
        let mut journal = journal::open(fs, &state_dir()).unwrap();
        journal.write(record).unwrap();
        Self {
            sim: Sim::from_medium(&sim.medium()),
            versions,
            orders,
            server: Server::default(),
            core: None,
            cut: Arc::new(AtomicU64::new(NEVER)),
            medium: 0,
            rotten: None,
            now: SIGNED,
            ahead: 0,
        }
    }

    fn fs(&self) -> Arc<dyn Fs> {
        let cut = self.cut.clone();
        Arc::new(Crashing::new(
            self.sim.clone(),
            move |_, what, _| match cut.load(Ordering::Relaxed) {
                NEVER => Ok(true),
                0 => Err(std::io::Error::other(format!(
                    "the power goes before {what}"
                ))),
                left => {
                    cut.store(left - 1, Ordering::Relaxed);
                    Ok(true)
                }
            },
        ))
    }

    /// Cuts the power: one of the media that this may leave is left.
    fn lose_power(&mut self) {
        self.core = None;
        self.cut.store(NEVER, Ordering::Relaxed);
        COUNTS.cuts.fetch_add(1, Ordering::Relaxed);
        let media = self.sim.after_power_cut();
        self.sim = Sim::from_medium(&media[self.medium % media.len()]);
    }

    /// Takes an event in, or starts; recovers from any power cut on the way.
    fn live(&mut self, event: Option<Event>) {
        let mut event = event;
        for _ in 0..40 {
            match self.try_live(event.take()) {
                Ok(()) => return,
                // The event is lost with the process; the server repeats what it wants.
                Err(_) if self.cut.load(Ordering::Relaxed) == 0 => self.lose_power(),
                Err(what) => panic!("no cut, and yet: {what}"),
            }
        }
        panic!("it starts again and again");
    }

    fn try_live(&mut self, event: Option<Event>) -> Result<(), String> {
        let shown = |e: &dyn std::error::Error| tidegate_protocol::error_chain(e);
        let mut agenda = Agenda::default();
        if self.core.is_none() {
            let backend: Arc<dyn Backend> = Arc::new(
                Executable::open(self.fs(), &state_dir(), "/m/opt/app".into())
                    .map_err(|e| shown(&e))?,
            );
            let core = Core::open(self.fs(), &state_dir(), backend).map_err(|e| shown(&e))?;
            agenda = core.start().map_err(|e| shown(&e))?;
            self.core = Some(core);
        }
        agenda.add(event);
        loop {
            let core = self.core.as_mut().unwrap();
            let Some(effect) = core.next(&mut agenda, &mut |_| {}).map_err(|e| shown(&e))? else {
                return Ok(());
            };
            let event = self.perform(effect)?;
            agenda.add(event);
        }
    }

    fn perform(&mut self, effect: Effect) -> Result<Option<Event>, String> {
        let versions = self.versions.clone();
        let core = self.core.as_ref().unwrap();
        Ok(match effect {
            Effect::DropDownload => {
                core.download.drop_all().map_err(|e| e.to_string())?;
                None
            }
            Effect::Download(job) => {
                self.download(&job)?;
                Some(Event::Downloaded { bytes: 1 })
            }
            Effect::Stage(job) => match core.staging(*job.clone()).run() {
                Ok(()) => {
                    if !job.kept {
                        self.rotten = None;
                    }
                    Some(Event::Staged)
                }
                Err(why) if why.code == Reason::StorageError => return Err(why.to_string()),
                // A power cut, too, looks like damage to a reader.
                Err(why) if self.cut.load(Ordering::Relaxed) == 0 => return Err(why.to_string()),
                Err(why) => {
                    assert!(job.kept && self.rotten.is_some(), "{why}");
                    Some(Event::StageFailed(why))
                }
            },
            Effect::Switch(slot) => {
                let activated = core.backend.activate(Some(slot));
                Some(Event::Switched(activated.map_err(|e| e.to_string())?))
            }
            Effect::Return(slot) => loop {
                match self.core.as_ref().unwrap().way_back(slot).run() {
                    Ok(Activation::Live) => break Some(Event::Returned),
                    Ok(Activation::Restart) => unreachable!("an executable needs none"),
                    Err(NotBack::Failed(why)) => return Err(why.to_string()),
                    Err(NotBack::Damaged(why)) => {
                        if self.cut.load(Ordering::Relaxed) == 0 {
                            return Err(why.to_string());
                        }
                        match self.rotten {
                            None => panic!("nothing is damaged, and yet {why}"),
                            Some(false) => {
                                COUNTS.stayed.fetch_add(1, Ordering::Relaxed);
                                break Some(Event::NotReturned(why));
                            }
                            Some(true) => {
                                self.restore(slot.unwrap())?;
                                COUNTS.restored.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            },
            Effect::Restart => unreachable!("an executable needs none"),
            Effect::CheckHealth(installed) => {
                Some(if versions.healthy[versions.which(installed.image)] {
                    Event::Healthy
                } else {
                    Event::Unhealthy(Reason::HealthFailed.into())
                })
            }
        })
    }

    fn restore(&mut self, slot: SlotId) -> Result<(), String> {
        let core = self.core.as_ref().unwrap();
        let wanted = core.journal.record().slot(slot).unwrap().clone();
        let to = self.versions.which(wanted.image);
        let job = Job::anew(wanted, slot, self.versions.payloads(to, to)[1..].to_vec());
        self.download(&job)?;
        let staging = self.core.as_ref().unwrap().staging(job);
        staging.run().map_err(|why| why.to_string())?;
        self.rotten = None;
        Ok(())
    }

    fn download(&self, job: &Job) -> Result<(), String> {
        let core = self.core.as_ref().unwrap();
        let payload = job.payloads[job.payload];
        let (manifest, bytes) = self.versions.behind(&payload);
        if core.download.kept_manifest(&payload).is_none() {
            core.download
                .keep_manifest(&payload, &manifest.to_bytes().unwrap())
                .map_err(|e| e.to_string())?;
        }
        let mut store = core.download.store(manifest).map_err(|e| e.to_string())?;
        for (index, chunk) in manifest.chunks.iter().enumerate() {
            let begin = usize::try_from(manifest.offset(index)).unwrap();
            let whole = &bytes[begin..begin + chunk.length as usize];
            while !store.has(index) {
                let from = usize::try_from(store.begun(index)).unwrap();
                let piece = &whole[from..whole.len().min(from + 120)];
                store
                    .append(manifest, index, piece)
                    .map_err(|e| e.to_string())?;
            }
            store.sync().map_err(|e| e.to_string())?;
        }
        store.sync().map_err(|e| e.to_string())
    }

    fn record(&self) -> Record {
        match &self.core {
            Some(core) => core.journal.record().clone(),
            None => journal::open_enrolled(Arc::new(self.sim.clone()), &state_dir())
                .unwrap()
                .record()
                .clone(),
        }
    }

    /// The version that a person finds in use.
    pub(super) fn in_use(&self) -> usize {
        let fs: Arc<dyn Fs> = Arc::new(self.sim.clone());
        let bytes = fs.read(Path::new("/m/opt/app"), 1 << 20).unwrap().unwrap();
        let same = |image: &Vec<u8>| *image == bytes;
        self.versions
            .images
            .iter()
            .position(same)
            .expect("one whole version is in use")
    }

    fn contact(&mut self, answer: bool, acknowledged: bool) {
        self.now = self.now.plus(Duration::from_mins(5));
        if self.core.is_none() {
            self.live(None);
        }
        let record = self.record();
        for report in &record.outbox {
            self.server.hear(report, &self.versions);
        }
        if let Some(last) = record.outbox.last().filter(|_| acknowledged) {
            self.live(Some(Event::Acknowledged(last.seq)));
        }
        let record = self.record();
        if record.outbox.is_empty()
            && let Some(installed) = record.running()
        {
            self.server.runs = self.versions.which(installed.image);
        }
        self.offer();
        let event = self.decides(&record);
        if answer && event.is_some() {
            self.live(event);
        }
    }

    /// Starts a deployment when the device checks in, from the version that it says it runs.
    fn offer(&mut self) {
        let server = &mut self.server;
        if server.open().is_some() {
            return;
        }
        let newer = server.wanted.take().map(|step| server.runs + step);
        if let Some(target) = newer.filter(|target| *target < VERSIONS) {
            let number = u8::try_from(server.deployments.len()).unwrap();
            server.deployments.push(Deployment {
                id: DeploymentId::from_random([number + 1; 16]),
                state: State::Offered,
                target,
                from: server.runs,
            });
        }
    }

    /// Returns what the server tells a device with this record.
    fn decides(&mut self, record: &Record) -> Option<Event> {
        let deployment = self.server.deployments.last()?;
        let (action, to) = match deployment.state {
            State::Cancelled | State::Superseded => {
                let busy = record.status().is_some_and(|(id, ..)| id == deployment.id);
                return busy.then_some(Event::CalledOff(deployment.id));
            }
            State::Offered | State::Deferred => (Action::Install, deployment.target),
            State::RollingBack => (Action::Rollback, deployment.from),
            _ => return None,
        };
        let running = self.versions.which(record.running()?.image);
        let nonce = "00112233";
        let terms = Terms {
            device: self.orders.device,
            nonce: nonce.into(),
            action,
            deployment: deployment.id,
            rollback_window_s: if action == Action::Install { 60 } else { 0 },
            again: false,
            switch_within_s: None,
            payloads: self.versions.payloads(running, to),
        };
        let signed = self.orders.assign(to, record.counter + 1, self.now, terms);
        let clock = Clock {
            shows: Timestamp::from_secs(self.now.as_secs() + self.ahead),
            floor: record.time_floor,
            strict: false,
        };
        let orders = self.orders.clone();
        let core = self.core.as_mut()?;
        let asked = Asked {
            device: orders.device,
            platform: &orders.platform,
            nonce: Some(nonce),
            clock,
            agent: None,
            formats: core.backend.formats(),
        };
        match orders::check(&mut core.journal, &orders.trusted, &signed, &asked) {
            Ok((job, counter)) => {
                if self.ahead.abs() > 3_600 {
                    COUNTS.misled.fetch_add(1, Ordering::Relaxed);
                }
                Some(Event::Assigned(Box::new(job), counter))
            }
            Err(NotTaken::Trust(TrustError::AlreadyInstalled(_))) => None,
            Err(NotTaken::Trust(error)) => panic!("an honest order is refused: {error}"),
            // The power failed.
            Err(NotTaken::Journal(_)) => {
                self.lose_power();
                None
            }
        }
    }

    pub(super) fn happen(&mut self, happening: &Happening) {
        match happening {
            Happening::Offer(step) => self.server.wanted = Some(*step),
            Happening::Cancel => {
                if let Some(deployment) = self.server.open()
                    && let Ok(state) = apply(deployment.state, DeploymentEvent::Cancelled)
                {
                    deployment.state = state;
                }
            }
            Happening::Order => {
                if let Some(deployment) = self.server.deployments.last_mut()
                    && let Ok(state) = apply(deployment.state, DeploymentEvent::ReturnOrdered)
                {
                    deployment.state = state;
                }
            }
            Happening::Contact {
                answer,
                acknowledged,
            } => self.contact(*answer, *acknowledged),
            Happening::Cut { after, medium } => {
                self.medium = *medium;
                self.cut.store(*after, Ordering::Relaxed);
            }
            Happening::Window(seconds) => self.live(Some(Event::WindowPassed(*seconds))),
            Happening::Fails => {
                let reason = Reason::HealthFailed.into();
                if matches!(self.record().phase, Phase::Probation { .. }) {
                    self.live(Some(Event::Unhealthy(reason)));
                }
            }
            Happening::Kill => {
                // Whatever the system holds in memory is kept: only the process is gone.
                self.core = None;
                self.live(None);
            }
            Happening::Clock(ahead) => self.ahead = *ahead,
            Happening::Rot { fetchable } => self.rot(*fetchable),
        }
    }

    fn rot(&mut self, fetchable: bool) {
        let record = self.record();
        let slot = record.inactive();
        let resting = matches!(record.phase, Phase::Idle | Phase::Probation { .. });
        if !resting || record.slot(slot).is_none() {
            return;
        }
        let fs: Arc<dyn Fs> = Arc::new(self.sim.clone());
        let path = state_dir().join("slots").join(slot.name()).join("artifact");
        fs.replace(&path, b"rotten", Mode::Plain).unwrap();
        self.rotten = Some(fetchable);
    }

    /// Ends all faults: everything is heard, and whatever is open comes to its end.
    pub(super) fn settle(&mut self) {
        self.cut.store(NEVER, Ordering::Relaxed);
        self.core = None;
        self.live(None);
        for _ in 0..40 {
            self.contact(true, true);
            self.live(Some(Event::WindowPassed(60)));
            let record = self.record();
            if record.phase == Phase::Idle
                && record.outbox.is_empty()
                && self.server.open().is_none()
                && self.server.wanted.is_none()
            {
                return;
            }
        }
        let record = self.record();
        let open = self
            .server
            .deployments
            .last()
            .map(|d| (d.state, d.target, d.from));
        panic!(
            "it comes to no end: {:?}, the server has {open:?}",
            record.phase
        );
    }

    pub(super) fn agree(&self) {
        let (record, runs) = (self.record(), self.in_use());
        let named = self.versions.which(record.running().unwrap().image);
        assert_eq!(runs, named, "the medium and the journal");
        assert_eq!(self.server.runs, runs, "the server and the medium");
        let numbers: Vec<u64> = self.server.heard.keys().copied().collect();
        let gapless: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, gapless, "no report is lost");
        let Some(last) = self.server.deployments.last() else {
            return;
        };
        match last.state {
            State::Succeeded => assert_eq!(runs, last.target, "what succeeded runs"),
            State::RolledBack => assert_eq!(runs, last.from, "what was rolled back is back"),
            State::Cancelled => assert_ne!(runs, last.target, "what was called off does not run"),
            State::Failed => {}
            other => panic!("a deployment that ends as {other}"),
        }
    }
}
