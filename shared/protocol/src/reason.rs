//! Reasons why something happened, or did not.

use serde::{Deserialize, Serialize};

/// The closed set of reasons shared by agent and server. Each states whether a retry can help, and
/// has a key in the knowledge base (`docs/reference/reasons.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "&'static str")]
#[expect(
    missing_docs,
    reason = "`text` is the documentation of each, shown to people as well"
)]
pub enum Reason {
    // Nothing to do.
    UpToDate,
    NoRollout,
    UpdateOffered,
    InProgress,
    ProbationOpen,
    // Not this device, or not yet.
    ChannelDoesNotTakeStage,
    SelectorMismatch,
    WaveNotStarted,
    BehindFrontier,
    PaceLimit,
    RolloutPaused,
    RolloutHalted,
    RolloutRollingBack,
    RolloutNotStarted,
    Quarantined,
    AttemptsExhausted,
    BackOff,
    NoArtifactForPlatform,
    NoPath,
    ReleaseNotOffered,
    NewerInstalled,
    BatteryLow,
    MeteredLink,
    Held,
    WindowClosed,
    /// A person at the machine has paused its updates.
    PausedOnDevice,
    /// The device waits for a person to accept it.
    DeviceNotAccepted,
    DeviceRevoked,
    /// The device may only roll back: its identity is in doubt.
    DeviceIsolated,
    // Conditions that a gate waits for.
    WaveInFlight,
    WaveSoaking,
    WaveReachesOut,
    SampleTooSmall,
    WaitsForWord,
    ApprovalNeeded,
    GateBreached,
    RolloutEnded,
    // Reasons for a business server to turn a client away.
    ClientTooOld,
    ClientTlsTooOld,
    ClientLacksCapability,
    ReleaseEol,
    ReleaseWithdrawn,
    // Orders of a person or the server.
    RollbackOrdered,
    CancelOrdered,
    TimedOut,
    Superseded,
    RollbackNotAllowed,
    // Failures on the device.
    DownloadFailed,
    ChunkCorrupt,
    DeltaFailed,
    ImageMismatch,
    ArchiveRefused,
    DiskFull,
    /// The medium is read-only.
    ReadOnly,
    StorageError,
    /// A command of this machine could not be started.
    CommandNotStarted,
    HookFailed,
    MetadataRefused,
    MetadataExpired,
    AssignmentRefused,
    HealthFailed,
    HealthTimeout,
    RestartFailed,
    CrashedInTrial,
    NoPreviousSlot,
    PreviousDamaged,
}

crate::words!(Reason("reason") {
    UpToDate = "up_to_date",
    NoRollout = "no_rollout",
    UpdateOffered = "update_offered",
    InProgress = "in_progress",
    ProbationOpen = "probation_open",
    ChannelDoesNotTakeStage = "channel_does_not_take_stage",
    SelectorMismatch = "selector_mismatch",
    WaveNotStarted = "wave_not_started",
    BehindFrontier = "behind_frontier",
    PaceLimit = "pace_limit",
    RolloutPaused = "rollout_paused",
    RolloutHalted = "rollout_halted",
    RolloutRollingBack = "rollout_rolling_back",
    RolloutNotStarted = "rollout_not_started",
    Quarantined = "quarantined",
    AttemptsExhausted = "attempts_exhausted",
    BackOff = "back_off",
    NoArtifactForPlatform = "no_artifact_for_platform",
    NoPath = "no_path",
    ReleaseNotOffered = "release_not_offered",
    NewerInstalled = "newer_installed",
    BatteryLow = "battery_low",
    MeteredLink = "metered_link",
    Held = "held",
    WindowClosed = "window_closed",
    PausedOnDevice = "paused_on_device",
    DeviceNotAccepted = "device_not_accepted",
    DeviceRevoked = "device_revoked",
    DeviceIsolated = "device_isolated",
    WaveInFlight = "wave_in_flight",
    WaveSoaking = "wave_soaking",
    WaveReachesOut = "wave_reaches_out",
    SampleTooSmall = "sample_too_small",
    WaitsForWord = "waits_for_word",
    ApprovalNeeded = "approval_needed",
    GateBreached = "gate_breached",
    RolloutEnded = "rollout_ended",
    ClientTooOld = "client_too_old",
    ClientTlsTooOld = "client_tls_too_old",
    ClientLacksCapability = "client_lacks_capability",
    ReleaseEol = "release_eol",
    ReleaseWithdrawn = "release_withdrawn",
    RollbackOrdered = "rollback_ordered",
    CancelOrdered = "cancel_ordered",
    TimedOut = "timed_out",
    Superseded = "superseded",
    RollbackNotAllowed = "rollback_not_allowed",
    DownloadFailed = "download_failed",
    ChunkCorrupt = "chunk_corrupt",
    DeltaFailed = "delta_failed",
    ImageMismatch = "image_mismatch",
    ArchiveRefused = "archive_refused",
    DiskFull = "disk_full",
    ReadOnly = "read_only",
    StorageError = "storage_error",
    CommandNotStarted = "command_not_started",
    HookFailed = "hook_failed",
    MetadataRefused = "metadata_refused",
    MetadataExpired = "metadata_expired",
    AssignmentRefused = "assignment_refused",
    HealthFailed = "health_failed",
    HealthTimeout = "health_timeout",
    RestartFailed = "restart_failed",
    CrashedInTrial = "crashed_in_trial",
    NoPreviousSlot = "no_previous_slot",
    PreviousDamaged = "previous_damaged",
});

crate::words_in_json!(Reason);

impl Reason {
    /// Returns whether the same device may retry the same release on its own.
    pub fn retryable(self) -> bool {
        matches!(
            self,
            Self::DownloadFailed
                | Self::ChunkCorrupt
                | Self::DiskFull
                | Self::ReadOnly
                | Self::StorageError
                | Self::CommandNotStarted
                | Self::HookFailed
                | Self::MetadataExpired
                | Self::BatteryLow
                | Self::BackOff
                | Self::PaceLimit
                | Self::TimedOut
        )
    }

    /// Number of times one device may fail for this reason in one rollout and still retry on its
    /// own. A bad link costs many retries and does no harm; a full disk does not empty itself.
    pub fn retry_budget(self) -> u32 {
        match self {
            Self::DownloadFailed => 12,
            Self::ChunkCorrupt | Self::MetadataExpired | Self::TimedOut => 6,
            Self::DiskFull
            | Self::ReadOnly
            | Self::StorageError
            | Self::CommandNotStarted
            | Self::HookFailed => 3,
            _ if self.retryable() => u32::MAX,
            _ => 0,
        }
    }

    /// Back-off after the first failure for this reason, in seconds; doubled with each further one.
    pub fn back_off_s(self) -> u32 {
        match self {
            Self::DiskFull
            | Self::ReadOnly
            | Self::StorageError
            | Self::CommandNotStarted
            | Self::HookFailed => 900,
            _ => 30,
        }
    }

    /// Returns whether it is about the machine at that time and says nothing about a release: no room, no
    /// quota, no right to write, a file in use, a command of its own that cannot be started. The device neither
    /// quarantines for it nor does a gate count it.
    pub fn is_of_the_place(self) -> bool {
        matches!(
            self,
            Self::DiskFull | Self::ReadOnly | Self::StorageError | Self::CommandNotStarted
        )
    }

    /// Reason of the same kind that every version of a server and an agent knows. The set is closed: who does
    /// not know a word refuses the whole message.
    #[must_use]
    pub fn known_to_all(self) -> Self {
        match self {
            Self::CommandNotStarted => Self::StorageError,
            other => other,
        }
    }

    /// Returns whether a device reports it for a failed attempt. A gate counts those that are not
    /// [of the place](Self::is_of_the_place).
    pub fn is_failure(self) -> bool {
        // By name, not by the order of the list: a reason that is added in the middle is no failure
        // until somebody says so here.
        matches!(
            self,
            Self::DownloadFailed
                | Self::ChunkCorrupt
                | Self::DeltaFailed
                | Self::ImageMismatch
                | Self::ArchiveRefused
                | Self::DiskFull
                | Self::ReadOnly
                | Self::StorageError
                | Self::CommandNotStarted
                | Self::HookFailed
                | Self::MetadataRefused
                | Self::MetadataExpired
                | Self::AssignmentRefused
                | Self::HealthFailed
                | Self::HealthTimeout
                | Self::RestartFailed
                | Self::CrashedInTrial
                | Self::NoPreviousSlot
                | Self::PreviousDamaged
        )
    }

    /// One plain sentence for a person.
    pub fn text(self) -> &'static str {
        match self {
            Self::UpToDate => "runs the newest release that its channel takes",
            Self::NoRollout => "no rollout concerns this device",
            Self::UpdateOffered => "an update is offered now",
            Self::InProgress => "an update is under way on this device",
            Self::ProbationOpen => "the rollback window is still open",
            Self::ChannelDoesNotTakeStage => "the device's channel does not take this stage",
            Self::SelectorMismatch => "no wave of the rollout selects this device",
            Self::WaveNotStarted => "the wave has not started",
            Self::BehindFrontier => "the wave has not admitted this device yet",
            Self::PaceLimit => {
                "the pace limit is reached: no more devices may update at the moment"
            }
            Self::RolloutPaused => "a person paused the rollout",
            Self::RolloutHalted => "the rollout is halted",
            Self::RolloutRollingBack => "the rollout is being rolled back",
            Self::RolloutNotStarted => "the rollout has not started",
            Self::Quarantined => "this device rolled back from this release and is blocked from it",
            Self::AttemptsExhausted => "all attempts are used up",
            Self::BackOff => "backing off before the next attempt",
            Self::NoArtifactForPlatform => "the release has no artifact for this platform",
            Self::NoPath => {
                "there is no allowed update path from the installed release to this one"
            }
            Self::ReleaseNotOffered => "the release's stage is not offered to any channel",
            Self::NewerInstalled => "a newer release is installed",
            Self::BatteryLow => "running on battery, below 20 %",
            Self::MeteredLink => "the link is metered, and the rollout does not use metered links",
            Self::Held => "a hold keeps this device from the release",
            Self::WindowClosed => "the maintenance window is closed",
            Self::PausedOnDevice => "a person at the machine has paused its updates",
            Self::DeviceNotAccepted => "the device waits for a person to accept it",
            Self::DeviceRevoked => "the device is revoked",
            Self::DeviceIsolated => "the device is isolated: its identity is in doubt",
            Self::WaveInFlight => "devices of the wave are still updating",
            Self::WaveSoaking => "the wave is soaking before the rollout continues",
            Self::WaveReachesOut => "devices of the wave are online but not updated yet",
            Self::SampleTooSmall => "too few devices have finished to judge the wave",
            Self::WaitsForWord => "the next wave waits for a person to start it",
            Self::ApprovalNeeded => "it needs approval by other people first",
            Self::GateBreached => "the gate is breached: failures, silence or the comparison",
            Self::RolloutEnded => "the rollout has ended",
            Self::ClientTooOld => "the client is older than the oldest supported version",
            Self::ClientTlsTooOld => "the client's TLS version is too old",
            Self::ClientLacksCapability => "the client lacks a required capability",
            Self::ReleaseEol => "the client's version has reached its end of life",
            Self::ReleaseWithdrawn => "the client's version was withdrawn",
            Self::RollbackOrdered => "a rollback was ordered",
            Self::CancelOrdered => "the update was cancelled",
            Self::TimedOut => "the device did not report in time",
            Self::Superseded => "another rollout took the device over",
            Self::RollbackNotAllowed => "rollback from this release is not allowed",
            Self::DownloadFailed => "the download did not complete",
            Self::ChunkCorrupt => "a chunk does not match the manifest",
            Self::DeltaFailed => "the delta did not apply",
            Self::ImageMismatch => "the result is not the signed image",
            Self::ArchiveRefused => "the archive contains an entry that is not allowed",
            Self::DiskFull => "not enough free space",
            Self::ReadOnly => "the device's storage is read-only",
            Self::CommandNotStarted => "a command cannot be started on this machine",
            Self::HookFailed => "the owner's install or switch command failed",
            Self::StorageError => "reading or writing the device's storage failed",
            Self::MetadataRefused => "signed metadata failed verification",
            Self::MetadataExpired => "signed metadata has expired",
            Self::AssignmentRefused => "the assignment failed verification",
            Self::HealthFailed => "the health check failed",
            Self::HealthTimeout => "the health check did not answer in time",
            Self::RestartFailed => "the restart command failed",
            Self::CrashedInTrial => "the device stopped too often during the trial",
            Self::NoPreviousSlot => "no previous version is kept to roll back to",
            Self::PreviousDamaged => "the previous version that was kept is damaged",
        }
    }

    /// Key of the article that explains the reason: an anchor in `docs/reference/reasons.md`.
    pub fn knowledge_key(self) -> String {
        format!("reasons#{}", self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_wrong_on_a_device_is_a_failure_and_nothing_else_is() {
        let failures: Vec<_> = Reason::ALL.iter().filter(|r| r.is_failure()).collect();
        assert_eq!(failures.first(), Some(&&Reason::DownloadFailed));
        assert!(!Reason::BatteryLow.is_failure());
        assert!(!Reason::RollbackOrdered.is_failure());
    }

    #[test]
    fn what_is_of_the_place_is_a_failure_that_is_retried() {
        let place: Vec<_> = Reason::ALL.iter().filter(|r| r.is_of_the_place()).collect();
        assert_eq!(place.len(), 4);
        assert!(place.iter().all(|r| r.is_failure() && r.retryable()));
    }

    #[test]
    fn a_newer_reason_has_an_older_one_of_the_same_kind() {
        let new = Reason::CommandNotStarted;
        let old = new.known_to_all();
        assert_ne!(old, new);
        assert!(old.is_of_the_place() && old.is_failure());
        assert_eq!(
            (old.retry_budget(), old.back_off_s()),
            (new.retry_budget(), new.back_off_s())
        );
        let others = Reason::ALL.iter().filter(|reason| **reason != new);
        assert!(others.into_iter().all(|r| r.known_to_all() == *r));
    }

    #[test]
    fn the_word_and_the_json_of_a_reason_are_the_same() {
        for reason in Reason::ALL {
            let json = serde_json::to_string(reason).unwrap();
            assert_eq!(json, format!("\"{}\"", reason.as_str()));
        }
    }
}
