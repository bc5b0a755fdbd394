//! The sentence of each event, for people.

use std::fmt;

use tidegate_protocol::{DeploymentState, Explained, Left, Reason};

use super::Event;
use crate::rollout::RolloutEvent;

/// Number of permits above which there is no limit at all.
const UNLIMITED: u64 = 1_000_000_000;

/// Displays `: reason`, or nothing when it is empty.
struct Why<'a>(&'a str);

impl fmt::Display for Why<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            Ok(())
        } else {
            write!(f, ": {}", self.0)
        }
    }
}

fn explained(code: Reason, detail: &str) -> Explained {
    Explained {
        code,
        detail: detail.to_owned(),
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ProductMade { product } => write!(f, "product {product} created"),
            Self::ReleaseDrafted { release, .. } => write!(f, "release {release} drafted"),
            Self::ArtifactAdded {
                release,
                platform,
                image,
                ..
            } => {
                write!(f, "artifact {} of {release} for {platform}", image.short())
            }
            Self::ReleasePromoted {
                release,
                from,
                to,
                reason,
                ..
            } => {
                let why = Why(reason.as_deref().unwrap_or_default());
                write!(f, "release {release} {from} -> {to}{why}")
            }
            Self::EolAnnounced {
                release,
                at,
                notice,
                ..
            } => {
                write!(
                    f,
                    "release {release} reaches its end of life at {at}: {notice}"
                )
            }
            Self::SettingsChanged { settings, .. } => write!(f, "settings: {settings}"),
            Self::SettingsAsked {
                settings,
                needed,
                plan,
                ..
            } => write!(
                f,
                "settings with fewer approvals requested: {needed} other people must approve plan {plan}: {settings}"
            ),
            Self::SettingsApproved { missing, .. } => {
                write!(f, "settings approved, {missing} more approvals needed")
            }
            Self::PayloadMade {
                encoding,
                image,
                bytes,
                image_bytes,
                ..
            } => {
                let image = image.short();
                write!(
                    f,
                    "{encoding} payload of {image} made: {bytes} of {image_bytes} bytes"
                )
            }
            Self::DeltasDeleted { count, bytes } => write!(
                f,
                "{count} deltas of {bytes} bytes deleted: what they make is not offered any more, \
                 or nothing runs what they start from"
            ),
            Self::HoldMade {
                hold,
                release,
                selector,
                reason,
                ..
            } => match release {
                Some(release) => write!(f, "{hold} holds {release} from {selector:?}: {reason}"),
                None => write!(f, "{hold} holds every release from {selector:?}: {reason}"),
            },
            Self::HoldLifted { hold, reason } => write!(f, "{hold} lifted: {reason}"),
            Self::RolloutMade { release, waves, .. } => {
                write!(f, "rollout of {release} made with {waves} waves")
            }
            Self::RolloutMoved {
                order: RolloutEvent::Complete,
                ..
            } => f.write_str("completed"),
            Self::RolloutMoved {
                order: RolloutEvent::CompletePartly,
                reason,
                ..
            } => write!(f, "completed partly{}", Why(reason)),
            Self::RolloutMoved {
                order: RolloutEvent::DoNothing,
                ..
            } => f.write_str("completed: there was nothing to do"),
            Self::RolloutMoved {
                order: RolloutEvent::Returned,
                ..
            } => f.write_str("rolled back: the last device is back"),
            Self::RolloutMoved {
                order: RolloutEvent::ReturnedPartly,
                ..
            } => f.write_str("rolled back partly: the other devices cannot go back"),
            Self::RolloutMoved {
                order,
                from,
                to,
                reason,
                ..
            } => {
                write!(f, "{order}: {from} -> {to}{}", Why(reason))
            }
            Self::NoWayBackAccepted { devices, .. } => {
                write!(f, "accepted that {devices} devices cannot be ordered back")
            }
            Self::ApprovalAsked {
                asked,
                needed,
                plan,
                reason,
                ..
            } => {
                let why = Why(reason);
                write!(
                    f,
                    "{asked} requested: {needed} other people must approve plan {plan}{why}"
                )
            }
            Self::Approved { asked, missing, .. } => {
                write!(f, "{asked} approved, {missing} more needed")
            }
            Self::WaveReleased { reason, .. } => {
                write!(f, "released the next wave{}", Why(reason))
            }
            Self::RolloutEdited { policy, reason, .. } => {
                write!(f, "edited: {policy}{}", Why(reason))
            }
            Self::WaveSkipped { name, .. } => write!(f, "wave {name} selects nobody: skipped"),
            Self::WaveStarted { name, devices, .. } => {
                write!(f, "wave {name} starts with {devices} devices")
            }
            Self::WaveSoaks { name, .. } => write!(f, "wave {name} soaks"),
            Self::WavePassed { name, .. } => write!(f, "wave {name} passed"),
            Self::GateDecided { code, detail, .. } => {
                write!(f, "stopped by the gate: {}", explained(*code, detail))
            }
            Self::WindowsKept {
                frozen: Some(true),
                reason,
                ..
            } => {
                write!(f, "pruning frozen: {reason}")
            }
            Self::WindowsKept {
                frozen: Some(false),
                reason,
                ..
            } => {
                write!(f, "pruning unfrozen: {reason}")
            }
            Self::WindowsKept {
                seconds, reason, ..
            } => {
                write!(f, "rollback windows extended by {seconds} s: {reason}")
            }
            Self::Granted { permits, .. } if *permits > UNLIMITED => {
                f.write_str("devices may be exposed without a limit")
            }
            Self::Granted { permits, .. } => write!(f, "{permits} more devices may be exposed"),
            Self::IncidentOpened {
                incident,
                release,
                rollouts,
                reason,
                ..
            } => {
                let count = rollouts.len();
                write!(
                    f,
                    "{incident} opened: {release} is rolled back in {count} rollouts: {reason}"
                )
            }
            Self::IncidentClosed { incident, .. } => write!(f, "{incident} closed"),
            Self::DeploymentOffered { leg, name, .. } => write!(f, "{name} offered {leg}"),
            Self::DeploymentMoved {
                leg,
                to,
                code,
                detail,
                ..
            } => {
                write!(f, "{leg} is {to}: {}", explained(*code, detail))
            }
            Self::DeploymentReported {
                leg,
                state,
                was,
                taken,
                code,
                detail,
                ..
            } => {
                write!(f, "{leg} {state}")?;
                if let Some(code) = code {
                    write!(f, ": {}", explained(*code, detail))?;
                }
                match (taken, was) {
                    (true, _) => Ok(()),
                    (false, DeploymentState::RollingBack) => f.write_str(" (on the way back)"),
                    (false, was) => write!(f, " (ignored: it is {was})"),
                }
            }
            Self::DeviceJoined {
                region,
                channel,
                name,
                ..
            } => {
                write!(f, "{name} joined in {region}, channel {channel}")
            }
            Self::DeviceWaits {
                region, key, name, ..
            } => write!(
                f,
                "{name} wants to join in {region} and waits to be accepted; its key is {key}"
            ),
            Self::DeviceAccepted { reason, .. } => write!(f, "accepted: {reason}"),
            Self::DeviceRejected { reason, .. } => write!(f, "rejected: {reason}"),
            Self::DeviceReadmitted { reason, .. } => write!(f, "readmitted: {reason}"),
            Self::DeviceRevoked { reason, .. } => write!(f, "revoked: {reason}"),
            Self::DeviceIsolated { reason, .. } => write!(f, "isolated: {reason}"),
            Self::KeyAsked { reason, .. } => write!(f, "asked for a new key: {reason}"),
            Self::KeyChanged { .. } => f.write_str("has a new key; its sessions have ended"),
            Self::QuarantineLifted {
                release, reason, ..
            } => {
                write!(f, "quarantine for {release} lifted: {reason}")
            }
            Self::DeviceRuns {
                release: Some(release),
                ..
            } => write!(f, "claims to run {release}"),
            Self::DeviceRuns { release: None, .. } => f.write_str("claims to run nothing"),
            Self::ReportUnknown { .. } => f.write_str("reported on an unknown deployment"),
            Self::DeviceRefused { code, detail, .. } => {
                let refuses = matches!(
                    code,
                    Reason::MetadataRefused | Reason::MetadataExpired | Reason::AssignmentRefused
                );
                let verb = if refuses {
                    "refuses what it is told"
                } else {
                    "says"
                };
                write!(f, "{verb}: {}", explained(*code, detail))
            }
            Self::DeviceDiagnosed {
                cut_off_s, summary, ..
            } => {
                write!(f, "was cut off for {cut_off_s} s: {summary}")
            }
            Self::DataLeft {
                files,
                bytes,
                folder,
                ..
            } => {
                let left = Left {
                    files: *files,
                    bytes: *bytes,
                    folder: folder.clone(),
                };
                write!(f, "{left}")
            }
            Self::EventsWithheld { count, since, .. } => write!(
                f,
                "{count} more events of this device since {since} were counted and not kept"
            ),
            Self::BundleMade { devices, days, .. } => {
                write!(
                    f,
                    "site bundle created for {devices} devices, valid for {days} days"
                )
            }
            Self::ReportsCarried { device, reports } => {
                write!(f, "{reports} reports of device {device} were carried back")
            }
            Self::MetadataTaken { files } => {
                write!(f, "signed metadata accepted: {}", files.join(", "))
            }
            Self::OnlineSigned {} => f.write_str("snapshot and timestamp signed again"),
            Self::DraftSigned {
                role,
                version,
                signed,
                people,
                signers,
            } => write!(
                f,
                "draft {role} v{version}: signed by {signed} of {people} people ({signers})"
            ),
            Self::OnlineKeysMade { reason } => write!(
                f,
                "new online keys and a new ticket key are made: {reason}; the keys sign once root \
                 and targets name them"
            ),
            Self::JoinTokenMade {
                token,
                uses,
                approve,
                keys,
                ..
            } => {
                write!(f, "join token {token} made for {uses} devices")?;
                if *keys > 0 {
                    f.write_str(" whose keys it names")?;
                }
                if *approve {
                    f.write_str(", each to be accepted")?;
                }
                Ok(())
            }
            Self::JoinTokenRevoked { token, reason } => {
                write!(f, "join token {token} revoked: {reason}")
            }
            Self::JoinTokensRevoked {
                product: Some(product),
                count,
                reason,
            } => write!(f, "{count} join tokens of {product} revoked: {reason}"),
            Self::JoinTokensRevoked { count, reason, .. } => {
                write!(f, "{count} join tokens revoked: {reason}")
            }
            Self::TokenMade {
                role,
                break_glass,
                name,
                ..
            } => {
                write!(f, "token {name} made with role {role}")?;
                if *break_glass {
                    f.write_str(", for emergencies")?;
                }
                Ok(())
            }
            Self::TokenConfirmed { name, .. } => {
                write!(
                    f,
                    "token {name} confirmed: it belongs to a person of its own"
                )
            }
            Self::TokenRevoked { name, .. } => write!(f, "token {name} revoked"),
            Self::BreakGlassUsed { request, .. } => {
                write!(f, "token for emergencies used: {request}")
            }
        }
    }
}
