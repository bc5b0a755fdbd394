//! Every legal power-loss image after every operation, and again during the recovery from each.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::device::{Device, Fate, Heard, Sort, Stopped};
use super::versions::Versions;
use crate::fs::sim::{Medium, Sim, Thing};
use crate::fs::{Crashing, Fs};

/// Knowledge outside of the device at the moment of a cut.
#[derive(Debug, Clone, Default)]
struct Known {
    /// Durable writes of the journal.
    writes: u64,
    /// Reports that the server has received.
    heard: Heard,
    /// Files that were renamed into place before their folder was synced: they must be there.
    promises: BTreeMap<PathBuf, Thing>,
    renamed: Option<PathBuf>,
    synced: Option<PathBuf>,
}

impl Known {
    /// Follows the operations: a rename and the sync of its folder become a promise once the sync
    /// has returned, that is, at the next operation.
    fn follow(&mut self, sim: &Sim, what: &str, path: &Path) {
        if let Some(path) = self.synced.take()
            && let Some(thing) = sim.medium().remove(&below_root(&path))
        {
            self.promises.insert(path, thing);
        }
        match what {
            "rename to" => {
                self.promises.remove(path);
                self.renamed = Some(path.to_owned());
            }
            "sync folder" => {
                let of = |renamed: &PathBuf| renamed.parent() == Some(path);
                self.synced = self.renamed.take_if(|renamed| of(renamed));
            }
            "remove" | "open" | "write" | "cut" => {
                self.promises.remove(path);
            }
            _ => {}
        }
    }

    fn kept(&self, medium: &Medium) -> Result<(), String> {
        let lost =
            |(path, thing): &(&PathBuf, &Thing)| medium.get(&below_root(path)) != Some(*thing);
        match self.promises.iter().find(lost) {
            Some((path, _)) => Err(format!("{} was durable and is lost", path.display())),
            None => Ok(()),
        }
    }
}

fn below_root(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

/// A moment at which the power may go.
struct Cut {
    before: String,
    known: Known,
    media: Vec<Medium>,
}

/// Runs a device on a simulated file system and records what a cut before each operation leaves.
fn run_and_cut(
    sim: &Sim,
    versions: &Versions,
    sort: Sort,
    fate: Fate,
    known: Known,
    cutting: bool,
) -> (Result<(), Stopped>, Vec<Cut>, Heard) {
    let cuts = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::new(Mutex::new(known.clone()));
    let hook = {
        let (sim, cuts, shared) = (sim.clone(), cuts.clone(), shared.clone());
        move |_: u64, what: &str, path: &Path| {
            if cutting {
                shared.lock().unwrap().follow(&sim, what, path);
                cuts.lock().unwrap().push(Cut {
                    before: format!("{what} {}", path.display()),
                    known: shared.lock().unwrap().clone(),
                    media: sim.after_power_cut(),
                });
            }
            Ok(true)
        }
    };
    let fs: Arc<dyn Fs> = Arc::new(Crashing::new(sim.clone(), hook));
    let durable = |writes: u64, heard: &Heard| {
        let mut shared = shared.lock().unwrap();
        shared.writes = writes;
        shared.heard.clone_from(heard);
    };
    let mut device = Device {
        fs,
        root: "/m".into(),
        sort,
        versions,
        fate,
        heard: known.heard,
        durable: &durable,
    };
    device.power_on().unwrap();
    let result = device.run().map(drop);
    let heard = std::mem::take(&mut device.heard);
    let result = result.and_then(|()| device.end_is_right(&heard));
    drop(device);
    let last = Cut {
        before: "the end".into(),
        known: shared.lock().unwrap().clone(),
        media: if cutting {
            sim.after_power_cut()
        } else {
            Vec::new()
        },
    };
    let mut cuts = std::mem::take(&mut *cuts.lock().unwrap());
    cuts.push(last);
    (result, cuts, heard)
}

fn first_medium(versions: &Versions, sort: Sort) -> Medium {
    let sim = Sim::new();
    let device = Device {
        fs: Arc::new(sim.clone()),
        root: "/m".into(),
        sort,
        versions,
        fate: Fate::Healthy,
        heard: Heard::new(),
        durable: &|_, _| {},
    };
    device.fs.create_dirs(Path::new("/m")).unwrap();
    device.set_up();
    sim.medium()
}

/// Checks media for one backend and fate; each distinct medium is tried once.
struct Trial<'a> {
    versions: &'a Versions,
    sort: Sort,
    fate: Fate,
    seen: RefCell<BTreeSet<(Medium, u64, bool)>>,
    tried: RefCell<u64>,
}

impl Trial<'_> {
    /// Checks a medium and recovers from it; if `again`, also with a power cut during the recovery.
    fn judge(&self, cut: &Cut, medium: &Medium, again: bool) -> Result<(), String> {
        let at = |what: String| format!("cut before {:?}: {what}", cut.before);
        // Checked for a medium that was seen before, too: less was promised then.
        cut.known.kept(medium).map_err(at)?;
        let heard = cut.known.heard.len() as u64;
        let key = (medium.clone(), cut.known.writes << 16 | heard, again);
        if !self.seen.borrow_mut().insert(key) {
            return Ok(());
        }
        *self.tried.borrow_mut() += 1;
        let (versions, sort, fate) = (self.versions, self.sort, self.fate);
        let device = Device {
            fs: Arc::new(Sim::from_medium(medium)),
            root: "/m".into(),
            sort,
            versions,
            fate,
            heard: Heard::new(),
            durable: &|_, _| {},
        };
        device.power_on().unwrap();
        device.is_sound(cut.known.writes).map_err(at)?;
        let sim = Sim::from_medium(medium);
        let known = Known {
            promises: BTreeMap::new(),
            renamed: None,
            synced: None,
            ..cut.known.clone()
        };
        let (ended, cuts, _) = run_and_cut(&sim, versions, sort, fate, known, again);
        ended.map_err(|e| at(format!("recovery: {e:?}")))?;
        if again {
            for second in &cuts {
                for medium in &second.media {
                    self.judge(second, medium, false)
                        .map_err(|e| at(format!("then {e}")))?;
                }
            }
        }
        Ok(())
    }
}

/// Tries all cuts of one run; returns the number of media tried, and the syncs.
fn all_cuts(
    versions: &Versions,
    sort: Sort,
    fate: Fate,
    deaf: Option<usize>,
    twice: bool,
) -> (Result<u64, String>, Vec<String>) {
    let sim = Sim::from_medium(&first_medium(versions, sort));
    if let Some(deaf) = deaf {
        sim.ignore_sync(deaf);
    }
    let known = Known::default();
    let (ended, cuts, _) = run_and_cut(&sim, versions, sort, fate, known, true);
    let log = sim.sync_log();
    if let Err(error) = ended {
        return (Err(format!("without a cut: {error:?}")), log);
    }
    let trial = Trial {
        versions,
        sort,
        fate,
        seen: RefCell::default(),
        tried: RefCell::default(),
    };
    for cut in &cuts {
        for medium in &cut.media {
            if let Err(error) = trial.judge(cut, medium, twice) {
                return (Err(error), log);
            }
        }
    }
    (Ok(*trial.tried.borrow()), log)
}

/// Tries every cut of an update with each of these fates, and for some a second one in the
/// recovery.
fn passes(sort: Sort, fates: [Fate; 2]) {
    let versions = Versions::new(sort);
    assert!(versions.chunks() >= 2, "{} chunks", versions.chunks());
    let mut tried = 0;
    for fate in fates {
        let twice = matches!(fate, Fate::Healthy | Fate::FailsLater);
        let (result, _) = all_cuts(&versions, sort, fate, None, twice);
        match result {
            Ok(media) => tried += media,
            Err(error) => panic!("{sort:?}, {fate:?}: {error}"),
        }
    }
    assert!(tried > 200, "only {tried} media");
    println!("{sort:?}, {fates:?}: {tried} media after power cuts");
}

/// Leaves out each sync of an update once: the checks must notice.
fn misses_each_sync(sort: Sort, fate: Fate) {
    let versions = Versions::new(sort);
    let (sound, log) = all_cuts(&versions, sort, fate, None, false);
    assert!(sound.is_ok(), "{sort:?} {fate:?}: {sound:?}");
    let mut missed = Vec::new();
    for (index, what) in log.iter().enumerate() {
        let (result, _) = all_cuts(&versions, sort, fate, Some(index + 1), false);
        if result.is_ok() {
            missed.push(format!("{}: {what}", index + 1));
        }
    }
    assert!(
        missed.is_empty(),
        "{sort:?} {fate:?}: nobody misses:\n{}",
        missed.join("\n")
    );
}

/// The tests of one backend, small enough to run beside each other.
macro_rules! backend {
    ($name:ident, $sort:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn a_good_and_an_unhealthy_version_survive_every_power_cut() {
                passes($sort, [Fate::Healthy, Fate::Unhealthy]);
            }

            #[test]
            fn one_that_fails_later_and_one_that_is_dead_survive_every_power_cut() {
                passes($sort, [Fate::FailsLater, Fate::Dead]);
            }

            #[test]
            fn no_sync_of_a_good_update_can_be_left_out() {
                misses_each_sync($sort, Fate::Healthy);
            }

            #[test]
            fn no_sync_on_the_way_there_and_back_can_be_left_out() {
                misses_each_sync($sort, Fate::FailsLater);
            }
        }
    };
}

backend!(directory, Sort::Directory);
backend!(executable, Sort::Executable);
backend!(image, Sort::Image);
backend!(hook, Sort::Hook);
