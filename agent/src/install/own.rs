//! The agent's own program, in directory slots, started by a guard that is never updated.
//!
//! The running process is the agent that the guard started; a switch takes effect at its next
//! start. The slot of an agent that has proven itself is written to `confirmed`, which the guard
//! reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_delta::archive::PackOptions;
use tidegate_machine::fsm::{Activation, Medium, SlotId};
use tidegate_protocol::Image;

use super::{Backend, Directory, Order, SlotError, at};
use crate::fs::{Fs, Mode};

/// The agent itself.
pub struct Own {
    fs: Arc<dyn Fs>,
    state: PathBuf,
    slots: Directory,
    /// The slot that this process was started from.
    running: Option<SlotId>,
}

impl Own {
    /// Opens the backend, with slots below a state directory. `running` is the slot that the guard
    /// names: `a` or `b`.
    pub fn open(fs: Arc<dyn Fs>, state: &Path, running: Option<&str>) -> Result<Self, SlotError> {
        Ok(Self {
            slots: Directory::open(fs.clone(), state)?,
            fs,
            state: state.to_owned(),
            running: [SlotId::A, SlotId::B]
                .into_iter()
                .find(|slot| running == Some(slot.name())),
        })
    }
}

impl Backend for Own {
    fn formats(&self) -> &'static [&'static str] {
        self.slots.formats()
    }

    fn medium(&self) -> Result<Medium, SlotError> {
        let pointer = self.slots.medium()?.active;
        Ok(Medium {
            active: self.running.or(pointer),
            next: pointer,
            falls_back: true,
        })
    }

    fn stage(&self, order: Order<'_>) -> Result<(), SlotError> {
        self.slots.stage(order)
    }

    fn activate(&self, slot: Option<SlotId>) -> Result<Activation, SlotError> {
        if slot != self.running {
            // Starts used up by another version in that slot do not count against this one.
            let path = self.state.join("starts");
            self.fs
                .remove_if_there(&path)
                .and_then(|()| self.fs.sync_dir(&self.state))
                .map_err(at(&path))?;
        }
        self.slots.activate(slot)?;
        Ok(if self.running == slot {
            Activation::Live
        } else {
            Activation::Restart
        })
    }

    fn confirm(&self, slot: SlotId) -> Result<(), SlotError> {
        let path = self.state.join("confirmed");
        let confirmed = self.fs.read(&path, 16).map_err(at(&path))?;
        if confirmed.as_deref() == Some(slot.name().as_bytes()) {
            return Ok(());
        }
        self.fs
            .replace(&path, slot.name().as_bytes(), Mode::Plain)
            .map_err(at(&path))
    }

    fn verify(&self, slot: SlotId, image: Image) -> Result<(), SlotError> {
        self.slots.verify(slot, image)
    }

    fn make_room(&self, slot: SlotId) -> Result<(), SlotError> {
        self.slots.make_room(slot)
    }

    fn repair(&self, slot: SlotId, image: Image) -> Result<(), SlotError> {
        self.slots.repair(slot, image)
    }

    fn start(&self) -> String {
        format!("{:x}", rand::random::<u64>())
    }

    fn is_there(&self, slot: SlotId) -> bool {
        self.slots.is_there(slot)
    }

    fn discard(&self, slot: SlotId) -> Result<(), SlotError> {
        self.slots.discard(slot)
    }

    fn folder(&self, slot: SlotId) -> PathBuf {
        self.slots.folder(slot)
    }

    fn room(&self, length: u64) -> u64 {
        self.slots.room(length)
    }

    fn adopt(&self, slot: SlotId, from: &Path, options: PackOptions) -> Result<Image, SlotError> {
        let image = self.slots.adopt(slot, from, options)?;
        // It is running right now.
        self.confirm(slot)?;
        Ok(image)
    }
}
