//! The device of the model, and everything around it.

mod contact;
mod effects;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_delta::archive::PackOptions;
use tidegate_domain::deployment::{DeploymentEvent, apply};
use tidegate_machine::Agenda;
use tidegate_machine::fsm::{Event, Phase, Record, SlotId};
use tidegate_protocol::{DeploymentState as State, Reason, Timestamp};

use crate::driver::core::Core;
use crate::fs::journal;
use crate::fs::sim::Sim;
use crate::fs::{Crashing, Fs, Mode};
use crate::install::{Backend, Executable};

use super::orders::{Orders, SIGNED};
use super::server::Server;
use super::versions::Versions;
use super::{COUNTS, Happening};

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
        backend
            .adopt(SlotId::A, Path::new("/m/opt/app"), PackOptions::default())
            .unwrap();
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
