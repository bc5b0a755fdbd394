//! Backends: where versions live on a machine, and how one is activated.
//!
//! Two slots, whatever they are made of ([`Backend`]): folders and a pointer ([`Directory`]), one
//! executable beside the one before it ([`Executable`]), raw images on files or block devices with
//! the boot loader's switch ([`Image`]), or anything that a command of the owner's manages
//! ([`Hook`]). The agent's own program is one more ([`Own`]). Each makes the new version durable
//! and verified before it is activated, each switch is idempotent, and a rollback needs nothing but
//! the machine itself.

mod artifact;
mod boot;
mod directory;
mod executable;
mod hook;
mod image;
mod own;
mod setup;
mod slots;

use std::io;
use std::path::PathBuf;

use tidegate_apply::Program;
use tidegate_delta::archive::{ArchiveError, PackOptions};
use tidegate_delta::{ApplyError, Manifest};
use tidegate_machine::fsm::{Activation, Medium, SlotId};
use tidegate_protocol::{Explained, Image as Bytes, Reason};

use crate::fs::io_reason;

pub use boot::BootSwitch;
pub use directory::Directory;
pub(crate) use directory::{LEFT, look_left};
pub use executable::Executable;
pub(crate) use executable::HALF;
pub use hook::{Hook, Verbs};
pub use image::Image;
pub use own::Own;
pub use setup::{BackendSettings, open};

/// The bytes of a payload, chunk by chunk.
pub trait Payload: Send {
    /// Fills `buf` with a chunk, which is as long as its manifest says.
    fn chunk(&self, index: usize, buf: &mut [u8]) -> io::Result<()>;
}

/// An order to stage a version in a slot.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// Target slot.
    pub slot: SlotId,
    /// Manifest of the payload.
    pub manifest: &'a Manifest,
    /// The complete payload.
    pub payload: &'a dyn Payload,
    /// The slot that a delta starts from; `None` for a full image.
    pub old: Option<SlotId>,
    /// Image that must result.
    pub image: Bytes,
    /// Program that decodes the payload; `None` to decode it in this process.
    pub decoder: Option<&'a Program>,
}

/// An installation backend.
pub trait Backend: Send + Sync {
    /// Artifact formats that it installs, as publishers name them.
    fn formats(&self) -> &'static [&'static str];
    /// Reads the state of the slots from the medium, never from the journal.
    fn medium(&self) -> Result<Medium, SlotError>;
    /// Stages a version in a slot. Idempotent: it resumes an earlier attempt at the same image and
    /// discards everything else. When it returns, every byte is verified and durable. The slot in
    /// use is not touched.
    fn stage(&self, order: Order<'_>) -> Result<(), SlotError>;
    /// Activates a slot, or none: atomic, durable, idempotent.
    fn activate(&self, slot: Option<SlotId>) -> Result<Activation, SlotError>;
    /// Verifies that a slot holds an image, byte for byte, and repairs what can be repaired from
    /// data on the machine. Called before a kept version is activated again: one that has rotted or
    /// was changed must not run under its old name.
    fn verify(&self, slot: SlotId, image: Bytes) -> Result<(), SlotError>;
    /// Frees what a return to a slot does not need, when there is no room for it.
    fn make_room(&self, _slot: SlotId) -> Result<(), SlotError> {
        Ok(())
    }
    /// Verifies and repairs like [`Backend::verify`], in place: there is no room beside.
    fn repair(&self, slot: SlotId, image: Bytes) -> Result<(), SlotError> {
        self.verify(slot, image)
    }
    /// Records what a version left in its slot, now that another one runs. For installations that
    /// versions may write to while they run.
    fn left(&self, _slot: SlotId, _image: Bytes) -> Result<(), SlotError> {
        Ok(())
    }
    /// Confirms a version that has proven itself: nothing switches back any more. Idempotent.
    fn confirm(&self, _slot: SlotId) -> Result<(), SlotError> {
        Ok(())
    }
    /// Returns whether there is anything in the place of a slot's version. Not whether it is whole: that
    /// takes reading all of it.
    fn is_there(&self, _slot: SlotId) -> bool {
        true
    }
    /// Frees the space that a staging attempt has taken in a slot not in use.
    fn discard(&self, _slot: SlotId) -> Result<(), SlotError> {
        Ok(())
    }
    /// Identifier of this start of the updated software: the machine's boot id, or this process's
    /// own where the agent itself is updated. Empty if unknown.
    fn start(&self) -> String {
        crate::host::platform::boot_id()
    }
    /// Working directory of commands for a slot.
    fn folder(&self, slot: SlotId) -> PathBuf;
    /// Space in bytes that staging an image of this length takes in the agent's folder.
    fn room(&self, length: u64) -> u64;
    /// Folder outside the agent's that a switch writes to as well.
    fn elsewhere(&self) -> Option<PathBuf> {
        None
    }
    /// Checks, before the first byte is fetched, that an image of this length has room where the switch
    /// writes it, outside the agent's folder. Leaves nothing there.
    fn check_room(&self, _length: u64) -> Result<(), SlotError> {
        Ok(())
    }
    /// Adopts an existing installation as a slot, so that deltas can start from it. A folder that has
    /// what a version does not carry is refused, unless the options allow it.
    fn adopt(
        &self,
        slot: SlotId,
        from: &std::path::Path,
        options: PackOptions,
    ) -> Result<Bytes, SlotError>;
}

/// Reason why a version could not be staged, or its slot not activated.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Reading or writing failed.
    #[error("{path}", path = path.display())]
    Io {
        /// Path concerned.
        path: PathBuf,
        /// Error from the operating system.
        #[source]
        source: io::Error,
    },
    /// The payload does not apply.
    #[error("the payload does not apply")]
    Apply(#[source] ApplyError),
    /// The artifact cannot be unpacked.
    #[error("the artifact cannot be unpacked")]
    Archive(#[source] ArchiveError),
    /// The bytes read back are not the signed image.
    #[error("what was read back is not the signed image")]
    WrongImage,
    /// The kept version is not what was verified when it was staged.
    #[error("{path} differs from what was installed", path = .0.display())]
    Damaged(PathBuf),
    /// A device is smaller than the image.
    #[error("{path} has {has} bytes, but the image needs {wants}", path = path.display())]
    TooSmall {
        /// Path of the device.
        path: PathBuf,
        /// Its size in bytes.
        has: u64,
        /// The image's length in bytes.
        wants: u64,
    },
    /// A command of the owner's failed.
    #[error("{verb}: {what}")]
    Hook {
        /// Command and verb that failed.
        verb: String,
        /// Its output, or what is wrong with it.
        what: String,
    },
    /// A command of the owner's could not be started.
    #[error("{verb}: {what}")]
    NotStarted {
        /// Command and verb.
        verb: String,
        /// Reason why it was not started.
        what: String,
    },
    /// The settings do not fit together.
    #[error("{0}")]
    Settings(String),
}

impl SlotError {
    /// Returns whether the contents of a slot are damaged or were changed; false for a full or read-only
    /// disk, a command that fails, and whatever passes: a file held by another program, or open
    /// files that the machine lacks.
    pub(crate) fn is_damage(&self) -> bool {
        !self.is_momentary()
            && !matches!(
                self.explained().code,
                Reason::DiskFull
                    | Reason::ReadOnly
                    | Reason::HookFailed
                    | Reason::CommandNotStarted
            )
    }

    /// Returns whether it says something about this moment and nothing about the bytes.
    fn is_momentary(&self) -> bool {
        let error = match self {
            Self::Io { source, .. } | Self::Archive(ArchiveError::Io { source, .. }) => source,
            Self::Apply(
                ApplyError::Write(e)
                | ApplyError::ReadOld(e)
                | ApplyError::Scratch(e)
                | ApplyError::NoDecoder(e),
            ) => e,
            _ => return false,
        };
        crate::fs::is_held(error) || crate::fs::is_momentary(error)
    }

    /// The reason to report.
    pub fn explained(&self) -> Explained {
        let code = match self {
            // No other payload helps, and none is to blame.
            Self::Apply(_) if self.is_momentary() => Reason::StorageError,
            Self::Io { source, .. } => io_reason(source),
            Self::Apply(ApplyError::Write(e) | ApplyError::NoDecoder(e)) => io_reason(e),
            Self::Apply(ApplyError::ChunkCorrupt { .. }) => Reason::ChunkCorrupt,
            Self::Apply(ApplyError::WrongImage) | Self::WrongImage => Reason::ImageMismatch,
            // Also where the old image cannot be read, or there is no room to unpack it: another
            // payload does without.
            Self::Apply(_) => Reason::DeltaFailed,
            Self::Damaged(_) => Reason::PreviousDamaged,
            Self::Archive(ArchiveError::Io { source, .. }) => io_reason(source),
            Self::Archive(_) => Reason::ArchiveRefused,
            Self::TooSmall { .. } => Reason::DiskFull,
            Self::Hook { .. } => Reason::HookFailed,
            Self::NotStarted { .. } => Reason::CommandNotStarted,
            Self::Settings(_) => Reason::StorageError,
        };
        Explained::new(code, crate::log::chain(self))
    }
}

/// Checks what a file system says of its free space; it may know more when it is asked for it.
fn check_free(folder: &std::path::Path, wanted: u64) -> io::Result<()> {
    match crate::host::platform::free_space(folder) {
        Some(free) if free < wanted => {
            let (free, wanted) = (free >> 10, (wanted >> 10) + 1);
            let text = format!("{free} KiB free, {wanted} KiB needed for the switch");
            Err(io::Error::new(io::ErrorKind::StorageFull, text))
        }
        _ => Ok(()),
    }
}

fn at(path: &std::path::Path) -> impl FnOnce(io::Error) -> SlotError + '_ {
    move |source| SlotError::Io {
        path: path.to_owned(),
        source,
    }
}
