//! The states of one device in one rollout.

use serde::{Deserialize, Serialize};

/// Where one device stands in one rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// The server has offered the update; the device has not said anything yet.
    Offered,
    /// The device waits for a better moment (battery, link, window) and says why.
    Deferred,
    /// The device fetches chunks.
    Downloading,
    /// The device writes the new version into its inactive slot.
    Installing,
    /// The device runs the new version and checks its health.
    Verifying,
    /// Healthy on the new version, the previous slot still kept: the rollback window is open.
    Probation,
    /// The new version is there to stay.
    Succeeded,
    /// It did not work; the device still runs, or again runs, what it ran before.
    Failed,
    /// The device returns to what it ran before.
    RollingBack,
    /// The device is back on what it ran before, after having run the new version.
    RolledBack,
    /// Called off before the device switched.
    Cancelled,
    /// The device was not heard of in time.
    TimedOut,
    /// Another rollout took the device over.
    Superseded,
}

crate::words!(DeploymentState("deployment state") {
    Offered = "offered",
    Deferred = "deferred",
    Downloading = "downloading",
    Installing = "installing",
    Verifying = "verifying",
    Probation = "probation",
    Succeeded = "succeeded",
    Failed = "failed",
    RollingBack = "rolling_back",
    RolledBack = "rolled_back",
    Cancelled = "cancelled",
    TimedOut = "timed_out",
    Superseded = "superseded",
});

impl DeploymentState {
    /// Whether nothing more is expected of the device in this rollout.
    pub fn is_final(self) -> bool {
        match self {
            Self::Offered
            | Self::Deferred
            | Self::Downloading
            | Self::Installing
            | Self::Verifying
            | Self::Probation
            | Self::RollingBack => false,
            Self::Succeeded
            | Self::Failed
            | Self::RolledBack
            | Self::Cancelled
            | Self::TimedOut
            | Self::Superseded => true,
        }
    }

    /// Whether the device runs, or is about to run, the new version: past the point where a
    /// cancel would still be enough.
    pub fn has_switched(self) -> bool {
        matches!(
            self,
            Self::Verifying | Self::Probation | Self::Succeeded | Self::RollingBack
        )
    }
}
