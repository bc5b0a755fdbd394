//! Invariants of a medium.

use std::path::{Path, PathBuf};

use tidegate_machine::fsm::{Phase, SlotId};
use tidegate_protocol::DeploymentState;

use super::boot::env_of;
use super::device::{Device, Fate, HEADER, Heard, Sort, Stopped};
use super::versions::Versions;
use crate::fs::journal;
use crate::fs::{Kind, Open};

impl Device<'_> {
    /// Checks what must hold after a cut, before any recovery. `writes` is the number of durable
    /// journal writes.
    pub(super) fn is_sound(&self, writes: u64) -> Result<(), String> {
        let runs = self.version_in_use()?;
        self.notes_are_true()?;
        self.looks_are_true()?;
        let journal = journal::open_enrolled(self.fs.clone(), &self.state())
            .map_err(|e| format!("journal: {e}"))?;
        if journal.writes() < writes {
            let found = journal.writes();
            return Err(format!(
                "the journal has forgotten: {found} of {writes} writes"
            ));
        }
        let record = journal.record();
        let Versions { old, new, .. } = self.versions;
        for (slot, bytes) in [(SlotId::A, old), (SlotId::B, new)] {
            if record.slot(slot).is_some() && !self.holds(slot, bytes) {
                return Err(format!("slot {} is not what it is said to be", slot.name()));
            }
        }
        let committed = match &record.phase {
            Phase::Probation { .. } => true,
            Phase::Idle => record.active == Some(SlotId::B),
            _ => false,
        };
        if committed && runs != 1 {
            return Err("the new version is committed and the old one runs".into());
        }
        let begun = matches!(
            record.phase,
            Phase::Idle | Phase::Downloading { .. } | Phase::Staging { .. }
        );
        if begun && !committed && runs != 0 {
            return Err("the new version runs without a trial".into());
        }
        Ok(())
    }

    /// Checks what must hold in the end, however often the power failed.
    pub(super) fn end_is_right(&self, heard: &Heard) -> Result<(), Stopped> {
        let broken = |what: String| Err(Stopped::Broken(what));
        let wanted = usize::from(self.fate == Fate::Healthy);
        match self.version_in_use() {
            Ok(found) if found == wanted => {}
            found => return broken(format!("the end is {found:?}, not {wanted}")),
        }
        // The boot loader would abandon a slot on trial some starts later.
        let [running, good, trial] = env_of(&*self.fs, &self.env());
        if self.sort == Sort::Image && (running != good || trial != "-") {
            return broken(format!("{running} is still on trial: {good} is good"));
        }
        let numbers: Vec<u64> = heard.keys().copied().collect();
        let gapless: Vec<u64> = (1..=numbers.len() as u64).collect();
        if numbers != gapless {
            return broken(format!("reports {numbers:?} have gaps"));
        }
        let returns = heard
            .values()
            .filter(|report| report.state == DeploymentState::RolledBack)
            .count();
        if returns != usize::from(self.fate != Fate::Healthy) {
            return broken(format!("it went back {returns} times"));
        }
        Ok(())
    }

    /// Returns the bytes of the version in use, as found without the agent, or what is wrong.
    pub(super) fn in_use(&self) -> Result<Vec<u8>, String> {
        let read = |path: &Path| -> Result<Vec<u8>, String> {
            self.fs
                .read(path, 1 << 20)
                .map_err(|e| e.to_string())?
                .ok_or_else(|| format!("{} is not there", path.display()))
        };
        match self.sort {
            Sort::Directory => {
                let pointer = self.state().join("current");
                let to = self.fs.read_link(&pointer).map_err(|e| e.to_string())?;
                self.packed(&self.state().join(to).join("tree"))
            }
            Sort::Executable => read(&self.live()),
            Sort::Image => {
                let [running, ..] = env_of(&*self.fs, &self.env());
                let bytes = read(&self.root.join("images").join(running))?;
                let length = |v: &Vec<u8>| bytes.get(..v.len()).is_some_and(|b| b == &v[..]);
                let Versions { old, new, .. } = self.versions;
                [old, new]
                    .into_iter()
                    .find(|v| length(v))
                    .cloned()
                    .ok_or_else(|| "no whole image is booted".into())
            }
            Sort::Hook => {
                let [running, ..] = env_of(&*self.fs, &self.env());
                read(&self.state().join("slots").join(running).join("artifact"))
            }
        }
    }

    /// Checks that whatever is noted as fetched or made is there: a note is never ahead of the
    /// data.
    pub(super) fn notes_are_true(&self) -> Result<(), String> {
        let read = |path: PathBuf| self.fs.read(&path, 1 << 20).map_err(|e| e.to_string());
        let download = self.state().join("download");
        let Versions {
            manifest, payload, ..
        } = self.versions;
        if let Some(note) = read(download.join("have"))? {
            let note: serde_json::Value = serde_json::from_slice(&note)
                .map_err(|e| format!("the note of a download: {e}"))?;
            let bits = hex::decode(note["verified"].as_str().unwrap()).unwrap();
            for (index, chunk) in manifest.chunks.iter().enumerate() {
                let begun = note["begun"].as_array().unwrap().iter();
                let begun = begun
                    .filter(|pair| pair[0] == index)
                    .map(|pair| pair[1].as_u64().unwrap());
                let whole = bits
                    .get(index / 8)
                    .is_some_and(|b| b >> (index % 8) & 1 == 1);
                let noted = begun
                    .chain(whole.then_some(u64::from(chunk.length)))
                    .max()
                    .unwrap_or(0);
                let from = usize::try_from(manifest.offset(index)).unwrap();
                let wanted = &payload[from..from + usize::try_from(noted).unwrap()];
                let found = read(download.join(format!("chunk.{index}")))?.unwrap_or_default();
                if !found.starts_with(wanted) {
                    return Err(format!("chunk {index} is not there, of which a note is"));
                }
            }
        }
        let notes = self.state().join("slots/b");
        let Some(made) = read(notes.join("made"))? else {
            return Ok(());
        };
        let made = String::from_utf8(made).map_err(|e| e.to_string())?;
        let (image, bytes) = made.trim().split_once(' ').ok_or("an empty note")?;
        let wanted = &self.versions.new[..bytes.parse::<usize>().map_err(|e| e.to_string())?];
        let found = match self.sort {
            Sort::Image => {
                let device = read(self.root.join("images/b"))?.unwrap_or_default();
                let header = read(notes.join("header"))?.unwrap_or_default();
                let head = wanted.len().min(HEADER);
                if !header.starts_with(&wanted[..head]) && !device.starts_with(&wanted[..head]) {
                    return Err("the header is not there, of which a note is".into());
                }
                let rest = wanted.len();
                if head < rest && device.get(head..rest) != Some(&wanted[head..]) {
                    return Err("the body is not there, of which a note is".into());
                }
                return Ok(());
            }
            _ => match read(notes.join(format!("artifact.{image}")))? {
                Some(part) => part,
                // It was renamed already.
                None => read(notes.join("artifact"))?.unwrap_or_default(),
            },
        };
        if found.starts_with(wanted) {
            Ok(())
        } else {
            Err("what is noted as made is not there".into())
        }
    }

    /// Checks for a boot loader that probes: whatever begins like an image is that image.
    pub(super) fn looks_are_true(&self) -> Result<(), String> {
        if self.sort != Sort::Image {
            return Ok(());
        }
        let path = self.root.join("images/b");
        let found = self.fs.read(&path, 1 << 20).map_err(|e| e.to_string())?;
        let found = found.unwrap_or_default();
        for image in [&self.versions.older, &self.versions.new] {
            if found.starts_with(&image[..HEADER]) && !found.starts_with(image) {
                return Err("the other slot looks like an image and is none".into());
            }
        }
        Ok(())
    }

    /// Version in use: 0 is the old one, 1 the new one.
    pub(super) fn version_in_use(&self) -> Result<usize, String> {
        let found = self.in_use()?;
        if found == self.versions.old {
            Ok(0)
        } else if found == self.versions.new {
            Ok(1)
        } else {
            Err("what is in use is neither the old nor the new version".into())
        }
    }

    /// Returns whether a slot really holds these bytes.
    pub(super) fn holds(&self, slot: SlotId, bytes: &[u8]) -> bool {
        let artifact = match self.sort {
            Sort::Image => self.root.join("images").join(slot.name()),
            _ => self
                .state()
                .join("slots")
                .join(slot.name())
                .join("artifact"),
        };
        let found = self.fs.read(&artifact, 1 << 20).ok().flatten();
        let whole = found.is_some_and(|found| found.get(..bytes.len()) == Some(bytes));
        let tree = self.state().join("slots").join(slot.name()).join("tree");
        whole
            && (self.sort != Sort::Directory
                || self.packed(&tree).is_ok_and(|found| found == bytes))
    }

    /// Identifies the version whose tree this is and returns its bytes.
    fn packed(&self, tree: &Path) -> Result<Vec<u8>, String> {
        let mut listing = Vec::new();
        self.collect(tree, &mut PathBuf::new(), &mut listing)?;
        listing.sort();
        let Versions {
            old, new, trees, ..
        } = self.versions;
        let found = trees.iter().position(|tree| *tree == listing);
        match found {
            Some(0) => Ok(old.clone()),
            Some(_) => Ok(new.clone()),
            None => Err(format!("{} is no whole tree", tree.display())),
        }
    }

    fn collect(
        &self,
        root: &Path,
        below: &mut PathBuf,
        into: &mut Vec<(PathBuf, Vec<u8>)>,
    ) -> Result<(), String> {
        let dir = root.join(&*below);
        for (name, kind) in self.fs.list(&dir).map_err(|e| e.to_string())? {
            below.push(&name);
            let path = root.join(&*below);
            match kind {
                Kind::Dir => self.collect(root, below, into)?,
                Kind::Link => {
                    let to = self.fs.read_link(&path).map_err(|e| e.to_string())?;
                    into.push((
                        below.clone(),
                        to.to_string_lossy().into_owned().into_bytes(),
                    ));
                }
                _ => {
                    let file = self.fs.open(&path, Open::Read).map_err(|e| e.to_string())?;
                    let length = file.length().map_err(|e| e.to_string())?;
                    let mut bytes = vec![0; usize::try_from(length).unwrap()];
                    file.read_exact_at(&mut bytes, 0)
                        .map_err(|e| e.to_string())?;
                    into.push((below.clone(), bytes));
                }
            }
            below.pop();
        }
        Ok(())
    }
}
