//! States of one device in one rollout.

use serde::{Deserialize, Serialize};

/// State of one device in one rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeploymentState {
    /// The server has offered the update; the device has not responded yet.
    Offered,
    /// The device waits for a better moment (battery, link, window) and reports the reason.
    Deferred,
    /// The device fetches chunks.
    Downloading,
    /// The device writes the new version into its inactive slot.
    Installing,
    /// The device runs the new version and checks its health.
    Verifying,
    /// Healthy on the new version, the previous slot still kept: the rollback window is open.
    Probation,
    /// The new version is installed for good.
    Succeeded,
    /// The update failed; the device runs, or has returned to, what it ran before.
    Failed,
    /// The device is returning to what it ran before.
    RollingBack,
    /// The device is back on what it ran before, after having run the new version.
    RolledBack,
    /// Cancelled before the device switched.
    Cancelled,
    /// The device did not report in time.
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
    /// Returns whether the deployment is over: nothing more is expected of the device in this rollout.
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

    /// Returns whether the device runs, or is about to run, the new version: past the point where a
    /// cancel would still be enough.
    pub fn has_switched(self) -> bool {
        matches!(
            self,
            Self::Verifying | Self::Probation | Self::Succeeded | Self::RollingBack
        )
    }
}
