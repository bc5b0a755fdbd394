//! Where versions live on a machine, and how one is put to use.
//!
//! Two slots, whatever they are made of ([`Backend`]): folders and a pointer ([`Directory`]), one
//! executable beside the one before it ([`Executable`]), raw images on files or block devices
//! with the boot loader's switch ([`Image`]), or anything that a command of the owner's manages
//! ([`Hook`]). The agent's own program is one more ([`Own`]). Each makes the new version durable and verified before it is put to use, each
//! switch can be repeated, and the way back needs nothing but the machine itself.

mod artifact;
pub(crate) mod command;
mod directory;
mod executable;
mod hook;
mod image;
mod own;
mod setup;

use std::io;
use std::path::PathBuf;

use tidegate_delta::archive::ArchiveError;
use tidegate_delta::{ApplyError, Manifest};
use tidegate_protocol::{Explained, Image as Bytes, Reason};

use crate::fsm::{Activation, Medium, SlotId};

pub use directory::Directory;
pub use executable::Executable;
pub use hook::{Hook, Verbs};
pub use image::{BootSwitch, Image};
pub use own::Own;
pub use setup::{BackendSettings, open};

/// The bytes of a payload, chunk by chunk.
pub trait Payload: Send {
    /// Fills `buf` with a chunk, which is as long as its manifest says.
    fn chunk(&self, index: usize, buf: &mut [u8]) -> io::Result<()>;
}

/// What is to be made in a slot.
#[derive(Clone, Copy)]
pub struct Order<'a> {
    /// Where.
    pub slot: SlotId,
    /// How the payload is built.
    pub manifest: &'a Manifest,
    /// The payload, all of it.
    pub payload: &'a dyn Payload,
    /// The slot that a delta starts from.
    pub old: Option<SlotId>,
    /// What it must become.
    pub image: Bytes,
}

/// A kind of installation.
pub trait Backend: Send + Sync {
    /// The formats of artifacts that it installs, as publishers name them.
    fn formats(&self) -> &'static [&'static str];
    /// What the medium says; never what the journal says.
    fn medium(&self) -> Result<Medium, SlotError>;
    /// Makes a version in a slot. Idempotent: it goes on with what an attempt at the same image
    /// has left, and throws away everything else. When it returns, every byte is verified and
    /// durable. The slot in use is not touched.
    fn stage(&self, order: Order<'_>) -> Result<(), SlotError>;
    /// Puts a slot to use, or none: atomic, durable, and good to repeat.
    fn activate(&self, slot: Option<SlotId>) -> Result<Activation, SlotError>;
    /// Whether a slot holds an image, byte by byte as it was verified when it was made; what can be
    /// mended from what is kept on the machine is mended. Asked before a kept version is put to use
    /// again: what has rotted or was changed must not run under its old name.
    fn verify(&self, slot: SlotId, image: Bytes) -> Result<(), SlotError>;
    /// Another version runs now: what this slot holds is what the version left in it. For
    /// installations that versions may write into while they run.
    fn left(&self, _slot: SlotId, _image: Bytes) -> Result<(), SlotError> {
        Ok(())
    }
    /// The version in a slot has proven itself: nothing turns the switch back any more. Good to
    /// repeat.
    fn confirm(&self, _slot: SlotId) -> Result<(), SlotError> {
        Ok(())
    }
    /// Whether anything is where a slot's version should be. Not whether it is whole: that takes
    /// reading all of it.
    fn is_there(&self, _slot: SlotId) -> bool {
        true
    }
    /// Gives back the room that an attempt at a version has taken in a slot that is not in use.
    fn discard(&self, _slot: SlotId) -> Result<(), SlotError> {
        Ok(())
    }
    /// Names this start of what is installed: the machine's, or of this process where that is what is
    /// updated. Empty where nobody tells.
    fn start(&self) -> String {
        crate::platform::boot_id()
    }
    /// The folder in which commands run for what is in a slot.
    fn folder(&self, slot: SlotId) -> PathBuf;
    /// Bytes that staging an image of this length takes on the file system of the agent's folder.
    fn room(&self, length: u64) -> u64;
    /// Takes what is installed over as a slot, so that deltas can start from it.
    fn adopt(&self, slot: SlotId, from: &std::path::Path) -> Result<Bytes, SlotError>;
}

/// Why a version could not be put into its slot, or the slot not to use.
#[derive(Debug, thiserror::Error)]
pub enum SlotError {
    /// Reading or writing failed.
    #[error("{path}", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The payload does not apply.
    #[error("the payload does not apply")]
    Apply(#[source] ApplyError),
    /// The artifact cannot be unpacked.
    #[error("the artifact cannot be unpacked")]
    Archive(#[source] ArchiveError),
    /// What was written is not the signed image.
    #[error("what was read back is not the signed image")]
    WrongImage,
    /// What was kept is not what was verified when it was made.
    #[error("{path} is not what was installed", path = .0.display())]
    Damaged(PathBuf),
    /// A device is smaller than the image.
    #[error("{path} has {has} bytes and the image {wants}", path = path.display())]
    TooSmall {
        /// Which.
        path: PathBuf,
        /// Its size in bytes.
        has: u64,
        /// The image's length in bytes.
        wants: u64,
    },
    /// A command of the owner's failed.
    #[error("{verb}: {what}")]
    Hook {
        /// What it was asked for.
        verb: String,
        /// What it said.
        what: String,
    },
    /// The settings do not fit together.
    #[error("{0}")]
    Settings(String),
}

impl SlotError {
    /// Whether what lies in a slot cannot be used: the medium is damaged or was changed, and not
    /// full, held by another program, or in the hands of a command that fails.
    pub(crate) fn is_damage(&self) -> bool {
        let held = match self {
            Self::Io { source, .. }
            | Self::Apply(ApplyError::Write(source))
            | Self::Archive(ArchiveError::Io { source, .. }) => crate::fs::is_held(source),
            _ => false,
        };
        !held
            && !matches!(
                self.explained().code,
                Reason::DiskFull | Reason::ReadOnly | Reason::HookFailed
            )
    }

    /// The reason to report.
    pub fn explained(&self) -> Explained {
        let code = match self {
            Self::Io { source, .. } => io_reason(source),
            Self::Apply(ApplyError::Write(e)) => io_reason(e),
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
            Self::Settings(_) => Reason::StorageError,
        };
        Explained::new(code, crate::log::chain(self))
    }
}

/// What can be mended from afar has its own reason: a full disk, one that can only be read.
pub(crate) fn io_reason(error: &io::Error) -> Reason {
    match error.kind() {
        // Too large: for its file system, or for what this process may write.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Reason::DiskFull
        }
        io::ErrorKind::ReadOnlyFilesystem => Reason::ReadOnly,
        _ => Reason::StorageError,
    }
}

fn at(path: &std::path::Path) -> impl FnOnce(io::Error) -> SlotError + '_ {
    move |source| SlotError::Io {
        path: path.to_owned(),
        source,
    }
}
