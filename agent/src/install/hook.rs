//! External hook: a command of the owner's that installs, switches and confirms.
//!
//! The agent fetches, verifies and keeps the artifact; the hook is called with one verb as its
//! argument and answers by its exit status. Each verb must be idempotent: it may be called again
//! after a power cut. Its inputs are in the environment: `TIDEGATE_SLOT` (a or b) and
//! `TIDEGATE_ARTIFACT` (the verified file).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidegate_delta::archive::PackOptions;
use tidegate_machine::fsm::{Activation, Medium, SlotId};
use tidegate_protocol::Image;
use tidegate_trust::CommandLine;

use super::artifact::image_of;
use super::boot::{BootSwitch, activation};
use super::slots::Slots;
use super::{Backend, Order, SlotError, at};
use crate::fs::Fs;
use crate::host::command::{Call, Ended};

/// Verbs that a hook answers.
pub trait Verbs: Send + Sync {
    /// Calls a verb and returns its standard output.
    fn call(&self, verb: &str, slot: Option<SlotId>, artifact: &Path) -> Result<String, SlotError>;
}

/// A command of the owner's that is called with verbs.
#[derive(Debug, Clone)]
pub(super) struct CommandVerbs {
    /// Command line and timeout of a verb.
    pub(super) line: CommandLine,
    /// Working directory.
    pub(super) folder: PathBuf,
}

impl Verbs for CommandVerbs {
    fn call(&self, verb: &str, slot: Option<SlotId>, artifact: &Path) -> Result<String, SlotError> {
        let failed = |what: String| SlotError::Hook {
            verb: format!("{} {verb}", self.line.command.join(" ")),
            what,
        };
        let call = Call {
            line: &self.line,
            arguments: &[verb],
            folder: &self.folder,
            environment: &[
                (
                    "TIDEGATE_SLOT",
                    slot.map_or("none", SlotId::name).to_owned(),
                ),
                ("TIDEGATE_ARTIFACT", artifact.display().to_string()),
            ],
        };
        match call.run() {
            Ended::Well(said) => Ok(said),
            Ended::Badly(what) => Err(failed(what)),
            Ended::NotStarted(not) => Err(SlotError::NotStarted {
                verb: format!("{} {verb}", self.line.command.join(" ")),
                what: not.what,
            }),
            Ended::Late(said) => {
                let what = format!(
                    "timed out within {} s; killed with its children: {said}",
                    self.line.timeout_s
                );
                Err(failed(what.trim_end_matches([' ', ':']).to_owned()))
            }
        }
    }
}

fn slot_of(verb: &str, said: &str) -> Result<Option<SlotId>, SlotError> {
    match said.trim() {
        "a" | "A" => Ok(Some(SlotId::A)),
        "b" | "B" => Ok(Some(SlotId::B)),
        "none" => Ok(None),
        other => Err(SlotError::Hook {
            verb: verb.to_owned(),
            what: format!("it printed {other:?}, expected a, b or none"),
        }),
    }
}

/// The verbs of a boot switch: `booted`, `next`, `set`, `confirm`.
impl<V: Verbs> BootSwitch for V {
    fn booted(&self) -> Result<Option<SlotId>, SlotError> {
        slot_of("booted", &self.call("booted", None, Path::new(""))?)
    }

    fn next(&self) -> Result<Option<SlotId>, SlotError> {
        slot_of("next", &self.call("next", None, Path::new(""))?)
    }

    fn set(&self, slot: SlotId) -> Result<(), SlotError> {
        self.call("set", Some(slot), Path::new("")).map(drop)
    }

    fn confirm(&self, slot: SlotId) -> Result<(), SlotError> {
        self.call("confirm", Some(slot), Path::new("")).map(drop)
    }
}

/// Versions that a command of the owner's manages: `install`, `activate`, `current`, `confirm`,
/// `remove`.
pub struct Hook<V> {
    slots: Slots,
    state: PathBuf,
    verbs: V,
}

impl<V: Verbs> Hook<V> {
    /// Opens the backend, with artifacts below a state directory.
    pub fn open(fs: Arc<dyn Fs>, state: &Path, verbs: V) -> Result<Self, SlotError> {
        Ok(Self {
            slots: Slots::open(fs, state)?,
            state: state.to_owned(),
            verbs,
        })
    }

    fn ask(&self, verb: &str, slot: Option<SlotId>) -> Result<String, SlotError> {
        let artifact = slot.map_or_else(PathBuf::new, |slot| self.slots.artifact(slot));
        self.verbs.call(verb, slot, &artifact)
    }
}

impl<V: Verbs> Backend for Hook<V> {
    fn formats(&self) -> &'static [&'static str] {
        &["raw", "tar"]
    }

    fn medium(&self) -> Result<Medium, SlotError> {
        let said = self.ask("current", None)?;
        // A second word names the slot that the next start takes, where that differs.
        let mut words = said.split_whitespace();
        let active = slot_of("current", words.next().unwrap_or_default())?;
        let next = match words.next() {
            Some(word) => Some(slot_of("current", word)?),
            None => None,
        };
        Ok(Medium {
            active,
            next: next.unwrap_or(active),
            falls_back: next.is_some(),
        })
    }

    fn stage(&self, order: Order<'_>) -> Result<(), SlotError> {
        let file = self.slots.make(order)?;
        let path = self.slots.artifact(order.slot);
        let found = image_of(&*file, order.image.length).map_err(at(&path))?;
        if found != order.image {
            return Err(SlotError::WrongImage);
        }
        self.slots.sync(order.slot)?;
        self.ask("install", Some(order.slot)).map(drop)
    }

    fn activate(&self, slot: Option<SlotId>) -> Result<Activation, SlotError> {
        let Some(slot) = slot else {
            self.ask("remove", None)?;
            return Ok(Activation::Live);
        };
        self.ask("activate", Some(slot))?;
        let medium = self.medium()?;
        activation("current", slot, medium.active, medium.next)
    }

    fn confirm(&self, slot: SlotId) -> Result<(), SlotError> {
        self.ask("confirm", Some(slot)).map(drop)
    }

    fn verify(&self, slot: SlotId, image: Image) -> Result<(), SlotError> {
        self.slots.verify(slot, image).map(drop)
    }

    fn discard(&self, slot: SlotId) -> Result<(), SlotError> {
        self.slots.empty(slot, None)
    }

    fn folder(&self, _: SlotId) -> PathBuf {
        self.state.clone()
    }

    fn room(&self, length: u64) -> u64 {
        length
    }

    fn adopt(&self, slot: SlotId, from: &Path, _: PackOptions) -> Result<Image, SlotError> {
        self.slots.copy_in(slot, from)
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn verbs(script: &str) -> CommandVerbs {
        CommandVerbs {
            line: CommandLine {
                command: vec!["sh".into(), "-c".into(), script.into(), "hook".into()],
                timeout_s: 2,
            },
            folder: std::env::temp_dir(),
        }
    }

    #[test]
    fn a_hook_that_fails_talks_nonsense_or_hangs_is_told_apart() {
        let booted = |script: &str| verbs(script).booted().map_err(|e| e.to_string());
        assert_eq!(booted("echo b"), Ok(Some(SlotId::B)));
        assert_eq!(booted("echo none"), Ok(None));
        assert!(booted("echo 7").unwrap_err().contains("\"7\""));
        let failed = booted("echo no grubenv >&2; exit 1").unwrap_err();
        assert!(failed.contains("no grubenv"), "{failed}");
        assert!(booted("sleep 60").unwrap_err().contains("within 2 s"));
    }

    #[test]
    fn the_verb_and_the_slot_reach_the_command() {
        let said = verbs("echo $1 $TIDEGATE_SLOT $TIDEGATE_ARTIFACT")
            .call("install", Some(SlotId::B), Path::new("/x/artifact"))
            .unwrap();
        assert_eq!(said, "install b /x/artifact");
    }
}
