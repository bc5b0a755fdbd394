//! One device, driven without network and clock, on any file system, with any backend.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use tidegate_delta::archive::{self, PackOptions};
use tidegate_machine::Agenda;
use tidegate_machine::fsm::{Activation, Effect, Event, Installed, Job, Phase, Record, SlotId};
use tidegate_protocol::{DeploymentId, DeploymentState, Explained, Reason, Report};
use tidegate_trust::assignment::{Action, Payload};

use super::boot::{Boot, env_of};
use super::versions::{Versions, image_of};
use crate::driver::core::{Core, NotBack};
use crate::fs::{Fs, Mode, journal};
use crate::install::{Backend, Directory, Executable, Hook, Image as ImageSlots, SlotError};

/// The backends, each of which passes the same suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Directory,
    Executable,
    Image,
    Hook,
}

/// Fate of the new version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It starts and stays healthy.
    Healthy,
    /// It starts and its check fails.
    Unhealthy,
    /// It is healthy at first, and its check fails within the window.
    FailsLater,
    /// It does not start at all: the boot loader, if there is one, goes back.
    Dead,
}

/// Reports that the server has received, by number; none may change once received.
pub(super) type Heard = BTreeMap<u64, Report>;

/// Reason why a device stopped.
#[derive(Debug)]
#[expect(dead_code, reason = "shown when a test fails")]
pub(super) enum Stopped {
    /// The power failed, or the file system reported an error.
    Cut(String),
    /// It broke an invariant.
    Broken(String),
}

impl<E: std::error::Error> From<E> for Stopped {
    fn from(error: E) -> Self {
        Self::Cut(tidegate_protocol::error_chain(&error))
    }
}

/// Outcome of an effect.
enum Done {
    Event(Option<Event>),
    /// The machine reboots.
    Restart,
}

/// A device whose state is below `root` of a file system.
pub(super) struct Device<'a> {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) root: PathBuf,
    pub(super) sort: Sort,
    pub(super) versions: &'a Versions,
    pub(super) fate: Fate,
    /// Reports that the server has received.
    pub(super) heard: Heard,
    /// Called after each durable step with the number of journal writes so far.
    pub(super) durable: &'a dyn Fn(u64, &Heard),
}

/// Header size of the small images here, in bytes: written last.
pub(super) const HEADER: usize = 64;

impl Device<'_> {
    pub(super) fn state(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(super) fn env(&self) -> PathBuf {
        self.root.join("boot/env")
    }

    pub(super) fn live(&self) -> PathBuf {
        self.root.join("opt/app")
    }

    fn boot(&self) -> Boot {
        Boot {
            fs: self.fs.clone(),
            env: self.env(),
        }
    }

    fn backend(&self) -> Result<Arc<dyn Backend>, SlotError> {
        let (fs, state) = (self.fs.clone(), self.state());
        Ok(match self.sort {
            Sort::Directory => Arc::new(Directory::open(fs, &state)?),
            Sort::Executable => Arc::new(Executable::open(fs, &state, self.live())?),
            Sort::Image => {
                let places = ["a", "b"].map(|name| self.root.join("images").join(name));
                let mut slots = ImageSlots::open(fs, &state, places, self.boot())?;
                slots.set_header(HEADER as u64);
                Arc::new(slots)
            }
            Sort::Hook => Arc::new(Hook::open(fs, &state, self.boot())?),
        })
    }

    /// Installs the old version, as a person would have.
    pub(super) fn set_up(&self) {
        let fs = &self.fs;
        for folder in ["state", "boot", "opt", "images"] {
            fs.create_dirs(&self.root.join(folder)).unwrap();
        }
        fs.replace(&self.env(), b"a a -", Mode::Plain).unwrap();
        for name in ["a", "b"] {
            let path = self.root.join("images").join(name);
            let bytes = if name == "a" {
                self.versions.old.clone()
            } else {
                self.versions.older.clone()
            };
            fs.replace(&path, &bytes, Mode::Plain).unwrap();
        }
        let backend = self.backend().unwrap();
        if self.sort == Sort::Directory {
            // Unpacking opens it to everybody, as a version's folder is.
            let dir = tempfile::tempdir().unwrap();
            archive::unpack(&self.versions.old[..], dir.path()).unwrap();
            backend
                .adopt(SlotId::A, dir.path(), PackOptions::default())
                .unwrap();
        } else {
            // What is adopted lies on the same file system.
            let path = self.root.join("opt/adopted");
            fs.replace(&path, &self.versions.old, Mode::Executable)
                .unwrap();
            backend
                .adopt(SlotId::A, &path, PackOptions::default())
                .unwrap();
        }
        let record = Record {
            active: Some(SlotId::A),
            a: Some(self.installed(&self.versions.old, "1.0.0")),
            ..Record::new()
        };
        let mut journal = journal::open(fs.clone(), &self.state()).unwrap();
        journal.write(record).unwrap();
        backend.activate(Some(SlotId::A)).unwrap();
    }

    fn installed(&self, bytes: &[u8], release: &str) -> Installed {
        let format = match self.sort {
            Sort::Directory => "tar",
            _ => "raw",
        };
        Installed {
            release: release.parse().unwrap(),
            image: image_of(bytes),
            format: format.into(),
            health: None,
        }
    }

    fn job(&self, record: &Record) -> Job {
        let payload = Payload {
            manifest: tidegate_delta::sha256(&self.versions.manifest_bytes),
            manifest_length: self.versions.manifest_bytes.len() as u64,
            from: self.versions.manifest.from.map(|image| image.sha256),
            bytes: self.versions.payload.len() as u64,
        };
        Job {
            deployment: DeploymentId::from_random([1; 16]),
            action: Action::Install,
            target: self.installed(&self.versions.new, "1.1.0"),
            rollback_window_s: 60,
            again: false,
            signed_window_s: 0,
            switch_within_s: None,
            payloads: vec![payload],
            payload: 0,
            slot: record.inactive(),
            bytes: 0,
            kept: false,
            cuts: 0,
            min_release: None,
        }
    }

    /// Boots the machine, before the agent runs.
    pub(super) fn power_on(&self) -> Result<(), SlotError> {
        let [_, good, trial] = env_of(&*self.fs, &self.env());
        if self.sort != Sort::Image {
            return Ok(());
        }
        let boot = self.boot();
        // A version that does not start uses up its starts, and then the other slot is booted.
        if trial == "-" || self.fate == Fate::Dead {
            return boot.write([&good, &good, "-"]);
        }
        let left = match &trial[1..] {
            "" => "-",
            left => left,
        };
        boot.write([&trial[..1], &good, left])
    }

    /// Runs the agent until the update has ended one way or the other.
    pub(super) fn run(&mut self) -> Result<Record, Stopped> {
        'start: for _ in 0..12 {
            let backend = self.backend()?;
            let mut core = Core::open(self.fs.clone(), &self.state(), backend)?;
            // Alternate between two identifiers: each start differs from the last, and equal media
            // are still tried only once.
            let last = core.journal.record().start.as_str();
            core.start = if last == "odd" { "even" } else { "odd" }.into();
            core.download.start.clone_from(&core.start);
            (self.durable)(core.journal.writes(), &self.heard);
            let mut agenda = core.start()?;
            loop {
                while let Some(effect) = core.next(&mut agenda, &mut |_| {})? {
                    self.hear(&core)?;
                    match self.perform(&mut core, effect)? {
                        Done::Event(event) => agenda.add(event),
                        Done::Restart => {
                            self.power_on()?;
                            continue 'start;
                        }
                    }
                }
                self.hear(&core)?;
                let Some(event) = self.outside(&core) else {
                    return Ok(core.journal.record().clone());
                };
                agenda = Agenda::of(event);
            }
        }
        Err(Stopped::Broken("it starts again and again".into()))
    }

    /// Delivers reports to the server as soon as they are durable.
    fn hear(&mut self, core: &Core) -> Result<(), Stopped> {
        for report in &core.journal.record().outbox {
            match self.heard.get(&report.seq) {
                Some(known) if known != report => {
                    return Err(Stopped::Broken(format!(
                        "report {} was {:?} and is {:?}",
                        report.seq, known.state, report.state
                    )));
                }
                _ => {
                    self.heard.insert(report.seq, report.clone());
                }
            }
        }
        (self.durable)(core.journal.writes(), &self.heard);
        Ok(())
    }

    pub(super) fn told(&self, state: DeploymentState) -> bool {
        self.heard.values().any(|report| report.state == state)
    }

    /// Next event from outside when the device has nothing to do; `None` at the end.
    fn outside(&self, core: &Core) -> Option<Event> {
        let record = core.journal.record();
        match &record.phase {
            Phase::Probation { .. } if self.fate == Fate::FailsLater => {
                Some(Event::Unhealthy(Reason::HealthFailed.into()))
            }
            Phase::Probation { .. } => Some(Event::WindowPassed(60)),
            Phase::Idle => {
                let ended = [
                    DeploymentState::Succeeded,
                    DeploymentState::Failed,
                    DeploymentState::RolledBack,
                ];
                if ended.into_iter().any(|state| self.told(state)) {
                    return None;
                }
                let job = self.job(record);
                Some(Event::Assigned(Box::new(job), record.counter + 1))
            }
            other => panic!("nothing to do in {other:?}"),
        }
    }

    fn perform(&self, core: &mut Core, effect: Effect) -> Result<Done, Stopped> {
        let reason = |what: SlotError| Stopped::Cut(tidegate_protocol::error_chain(&what));
        Ok(Done::Event(match effect {
            Effect::DropDownload | Effect::GiveBack(_) => {
                core.download.drop_all()?;
                None
            }
            Effect::Download(job) => {
                self.download(core, &job)?;
                let bytes = self.versions.payload.len() as u64;
                Some(Event::Downloaded { bytes })
            }
            Effect::Stage(job) => match core.staging(*job).run() {
                Ok(()) => Some(Event::Staged),
                Err(why) if why.code == Reason::StorageError => {
                    return Err(Stopped::Cut(why.to_string()));
                }
                Err(why) => return Err(Stopped::Broken(why.to_string())),
            },
            Effect::Switch(slot) => {
                let activation = core.backend.activate(Some(slot)).map_err(reason)?;
                Some(Event::Switched(activation))
            }
            Effect::Return(slot) => match core.way_back(slot).run() {
                Ok(Activation::Live) => Some(Event::Returned),
                Ok(Activation::Restart) => return Ok(Done::Restart),
                Err(NotBack::Failed(why)) => return Err(Stopped::Cut(why.to_string())),
                Err(NotBack::Damaged(why)) => return Err(Stopped::Broken(why.to_string())),
            },
            Effect::Restart => return Ok(Done::Restart),
            Effect::CheckHealth(installed) => {
                if self.fate == Fate::Unhealthy || self.fate == Fate::Dead {
                    let why = Explained::from(Reason::HealthFailed);
                    return Ok(Done::Event(Some(Event::Unhealthy(why))));
                }
                if installed.image != image_of(&self.versions.new) {
                    return Err(Stopped::Broken("the old version is checked".into()));
                }
                if let Some(slot) = core.journal.record().active {
                    core.backend.confirm(slot).map_err(reason)?;
                }
                Some(Event::Healthy)
            }
        }))
    }

    fn download(&self, core: &Core, job: &Job) -> Result<(), Stopped> {
        let payload = job.payloads[0];
        // A kept part of the same download is resumed.
        if core.download.kept_manifest(&payload).is_none() {
            core.download
                .keep_manifest(&payload, &self.versions.manifest_bytes)
                .map_err(|why| Stopped::Cut(why.to_string()))?;
        }
        let manifest = &self.versions.manifest;
        let mut store = core.download.store(manifest)?;
        for (index, chunk) in manifest.chunks.iter().enumerate() {
            let begin = usize::try_from(manifest.offset(index)).unwrap();
            let whole = &self.versions.payload[begin..begin + chunk.length as usize];
            while !store.has(index) {
                let from = usize::try_from(store.begun(index)).unwrap();
                let piece = &whole[from..whole.len().min(from + 150)];
                if !store.append(manifest, index, piece)? {
                    // The trusted bytes were wrong: that costs the chunk, nothing more.
                    continue;
                }
                store.sync()?;
            }
        }
        store.sync()?;
        Ok(())
    }
}
