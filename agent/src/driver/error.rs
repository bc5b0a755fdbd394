//! Errors of the driver.

use tidegate_machine::journal::JournalError;
use tidegate_protocol::{Explained, Reason};
use tidegate_trust::TrustError;

use crate::fs;
use crate::install::SlotError;
use crate::log;
use crate::net::TransportError;
use crate::people::config::ConfigError;
use crate::trust::TrustStoreError;

/// Errors that stop the agent. All others are reported and retried.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The configuration cannot be used.
    #[error("the configuration cannot be used")]
    Config(#[from] ConfigError),
    /// The journal cannot be used: without it nothing may be done.
    #[error("the journal cannot be used")]
    Journal(#[from] JournalError),
    /// The slots cannot be used.
    #[error("the slots cannot be used")]
    Slots(#[from] SlotError),
    /// The signed files cannot be read or written.
    #[error("the signed files cannot be read or written")]
    Trust(#[from] TrustStoreError),
    /// The server's address or certificates cannot be used.
    #[error("the server cannot be addressed")]
    Transport(#[from] TransportError),
    /// Another version of the agent must run: the guard starts it when this process ends.
    #[error("another version of the agent takes over")]
    TakesOver,
}

impl DriverError {
    /// Reason to tell the server; `None` if nothing is wrong with the machine.
    pub(super) fn explained(&self) -> Option<Explained> {
        match self {
            Self::Journal(JournalError::Io { source, .. }) => {
                Some(Explained::new(fs::io_reason(source), log::chain(self)))
            }
            Self::Slots(error) => Some(error.explained()),
            Self::Journal(_) | Self::Config(_) | Self::Trust(_) => {
                Some(Explained::new(Reason::StorageError, log::chain(self)))
            }
            Self::Transport(_) | Self::TakesOver => None,
        }
    }
}

/// Reason why a round with the server failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    #[error("asking the server failed")]
    Transport(#[from] TransportError),
    #[error("signed metadata was refused")]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Fatal(#[from] DriverError),
}
