//! The kinds of events. A new kind needs a line here, a sentence in `sentence.rs`, and a caller
//! that commits it.

use tidegate_protocol::{
    ChangeId, Channel, DeploymentId, DeploymentState, DeviceId, Encoding, HoldId, IncidentId,
    JoinTokenId, Platform, ProductName, Reason, Region, RolloutId, Sha256, Stage, Timestamp,
    TokenId, Version,
};

use super::field::{Field, Fields};
use super::{Topic, Touches};
use crate::access::Role;
use crate::approval::ChangeKind;
use crate::rollout::{RolloutEvent, RolloutState};

/// Defines the enum and its accessors. `body` and `said` are lists of fields.
macro_rules! events {
    ($(
        $(#[$doc:meta])*
        $name:ident = $kind:literal in $topic:ident touches($($touch:ident),*)
            { $($(#[$bdoc:meta])* $body:ident: $btype:ty),* $(,)? }
            said { $($(#[$sdoc:meta])* $said:ident: $stype:ty),* $(,)? };
    )*) => {
        /// Something that happened.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[expect(missing_docs, reason = "a field's name says it, the kind's comment the rest")]
        pub enum Event {
            $(
                $(#[$doc])*
                $name {
                    $($(#[$bdoc])* $body: $btype,)*
                    $($(#[$sdoc])* $said: $stype,)*
                },
            )*
        }

        impl Event {
            /// Every kind.
            pub const KINDS: &'static [&'static str] = &[$($kind),*];

            /// Word for the kind of event.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$name { .. } => $kind,)* }
            }

            /// Part of the system that it belongs to.
            pub fn topic(&self) -> Topic {
                match self { $(Self::$name { .. } => Topic::$topic,)* }
            }

            /// Parts of memory that it affects.
            pub fn touches(&self) -> Touches {
                match self {
                    $(Self::$name { .. } => Touches {
                        $($touch: true,)*
                        ..Touches::default()
                    },)*
                }
            }

            /// Ids, numbers and words from closed sets.
            pub fn body(&self) -> Fields {
                let mut fields = Fields::new();
                match self {
                    $(Self::$name { $($body,)* .. } => {
                        $(put(&mut fields, stringify!($body), $body);)*
                    })*
                }
                fields
            }

            /// Free text, and names of people and devices.
            pub fn said(&self) -> Fields {
                let mut fields = Fields::new();
                match self {
                    $(Self::$name { $($said,)* .. } => {
                        $(put(&mut fields, stringify!($said), $said);)*
                    })*
                }
                fields
            }
        }
    };
}

fn put(fields: &mut Fields, name: &'static str, value: &impl Field) {
    if let Some(scalar) = value.scalar() {
        fields.insert(name, scalar);
    }
}

events! {
    // Products and releases.

    /// A product was created.
    ProductMade = "product_made" in Release touches(plan)
        { product: ProductName } said {};
    /// A release was drafted.
    ReleaseDrafted = "release_drafted" in Release touches(plan)
        { product: ProductName, release: Version } said {};
    /// The bytes of a release for one platform were added.
    ArtifactAdded = "artifact_added" in Release touches(plan, builder)
        { product: ProductName, release: Version, platform: Platform, image: Sha256 } said {};
    /// A release moved to another stage.
    ReleasePromoted = "release_promoted" in Release touches(plan, planner)
        { product: ProductName, release: Version, from: Stage, to: Stage }
        said { reason: Option<String> };
    /// The end of a release's life was announced.
    EolAnnounced = "eol_announced" in Release touches(plan)
        { product: ProductName, release: Version, at: Timestamp } said { notice: String };
    /// A product's settings were changed; they are their canonical JSON text.
    SettingsChanged = "settings_changed" in Release touches(plan)
        { product: ProductName, settings: String, change: Option<ChangeId> } said {};
    /// Settings that need fewer approvals wait for those that were needed so far.
    SettingsAsked = "settings_asked" in Release touches()
        { product: ProductName, change: ChangeId, settings: String, needed: u32, plan: String }
        said {};
    /// A person approved such settings.
    SettingsApproved = "settings_approved" in Release touches()
        { product: ProductName, change: ChangeId, missing: u32 } said {};
    /// A payload is ready.
    PayloadMade = "payload_made" in Release touches(plan)
        { encoding: Encoding, image: Sha256, from: Option<Sha256>, bytes: u64, image_bytes: u64 }
        said {};
    /// Deltas that nobody can use any more were deleted.
    DeltasDeleted = "deltas_deleted" in Release touches(plan)
        { count: u64, bytes: u64 } said {};
    /// Devices are held back from a release, or from every release.
    HoldMade = "hold_made" in Release touches(plan, planner)
        { hold: HoldId, product: ProductName, release: Option<Version>, selector: String }
        said { reason: String };
    /// A hold was lifted.
    HoldLifted = "hold_lifted" in Release touches(plan, planner)
        { hold: HoldId } said { reason: String };

    // Rollouts.

    /// A rollout was drafted.
    RolloutMade = "rollout_made" in Rollout touches(plan)
        { product: ProductName, rollout: RolloutId, release: Version, waves: u32 } said {};
    /// A rollout changed its state. `change` is the approved change that led to it.
    RolloutMoved = "rollout_moved" in Rollout touches(plan, planner)
        { product: ProductName, rollout: RolloutId, order: RolloutEvent, from: RolloutState,
          to: RolloutState, change: Option<ChangeId> }
        said { reason: String };
    /// A start accepted up to this number of devices that cannot be ordered back.
    NoWayBackAccepted = "no_way_back_accepted" in Rollout touches(plan)
        { product: ProductName, rollout: RolloutId, devices: u64 } said {};
    /// A widening waits for other people's approval.
    ApprovalAsked = "approval_asked" in Rollout touches(plan)
        { product: ProductName, rollout: RolloutId, change: ChangeId, asked: ChangeKind,
          needed: u32, plan: String }
        said { reason: String };
    /// A person approved a widening.
    Approved = "approved" in Rollout touches(plan)
        { product: ProductName, rollout: RolloutId, change: ChangeId, asked: ChangeKind,
          missing: u32 }
        said {};
    /// A person let the next wave start.
    WaveReleased = "wave_released" in Rollout touches(plan, planner)
        { product: ProductName, rollout: RolloutId, released: u32, change: Option<ChangeId> }
        said { reason: String };
    /// A rollout's rules were edited; `policy` is their canonical JSON text.
    RolloutEdited = "rollout_edited" in Rollout touches(plan, planner)
        { product: ProductName, rollout: RolloutId, policy: String, change: Option<ChangeId> }
        said { reason: String };
    /// A wave selects nobody.
    WaveSkipped = "wave_skipped" in Rollout touches(plan, planner)
        { product: ProductName, rollout: RolloutId, wave: u32 } said { name: String };
    /// A wave admits devices.
    WaveStarted = "wave_started" in Rollout touches(plan, planner)
        { product: ProductName, rollout: RolloutId, wave: u32, devices: u64 }
        said { name: String };
    /// A wave has enough results and soaks.
    WaveSoaks = "wave_soaks" in Rollout touches(plan, planner)
        { product: ProductName, rollout: RolloutId, wave: u32 } said { name: String };
    /// A wave passed its gate.
    WavePassed = "wave_passed" in Rollout touches(plan, planner)
        { product: ProductName, rollout: RolloutId, wave: u32 } said { name: String };
    /// A gate stopped the rollout.
    GateDecided = "gate_decided" in Rollout touches(plan, planner)
        { product: ProductName, rollout: RolloutId, wave: u32, from: RolloutState,
          to: RolloutState, code: Reason }
        said { detail: String };
    /// Rollback windows were extended, or pruning was frozen or unfrozen.
    WindowsKept = "windows_kept" in Rollout touches(plan)
        { product: ProductName, rollout: RolloutId, seconds: u32, frozen: Option<bool> }
        said { reason: String };
    /// More devices may be exposed: `granted` of them since the start, `permits` more from now on.
    Granted = "granted" in Pace touches(permits)
        { product: ProductName, rollout: RolloutId, granted: u64, permits: u64 } said {};

    // Incidents.

    /// A release is being rolled back.
    IncidentOpened = "incident_opened" in Incident touches()
        { incident: IncidentId, product: ProductName, rollout: Option<RolloutId>,
          release: Version, selector: String, rollouts: Vec<RolloutId> }
        said { reason: String };
    /// The last device of an incident is back, or cannot come back.
    IncidentClosed = "incident_closed" in Incident touches()
        { incident: IncidentId, product: ProductName, rollout: Option<RolloutId> } said {};

    // Deployments.

    /// A device was offered a leg of its path.
    DeploymentOffered = "deployment_offered" in Deployment touches(device, planner)
        { rollout: RolloutId, device: DeviceId, deployment: DeploymentId, leg: Version,
          wave: u32 }
        said { name: String };
    /// The server moved a deployment, by an order or a timeout.
    DeploymentMoved = "deployment_moved" in Deployment touches(device, planner)
        { rollout: RolloutId, device: DeviceId, deployment: DeploymentId, leg: Version,
          from: DeploymentState, to: DeploymentState, code: Reason }
        said { detail: String };
    /// A device reported on a deployment. `taken` says whether the report moved it.
    DeploymentReported = "deployment_reported" in Deployment touches(device, planner)
        { rollout: RolloutId, device: DeviceId, deployment: DeploymentId, report: u64,
          leg: Version, state: DeploymentState, was: DeploymentState, taken: bool,
          code: Option<Reason> }
        said { detail: String };

    // Devices.

    /// A device joined.
    DeviceJoined = "device_joined" in Device touches(device, planner)
        { product: ProductName, device: DeviceId, region: Region, channel: Channel }
        said { name: String };
    /// A device joined and waits for a person to accept it. `key` is the fingerprint of its key.
    DeviceWaits = "device_waits" in Device touches(device)
        { product: ProductName, device: DeviceId, region: Region, channel: Channel, key: Sha256 }
        said { name: String };
    /// A person accepted a device that waited.
    DeviceAccepted = "device_accepted" in Device touches(device, planner)
        { device: DeviceId } said { reason: String };
    /// A person rejected a device that waited.
    DeviceRejected = "device_rejected" in Device touches(device)
        { device: DeviceId } said { reason: String };
    /// A device is let in again.
    DeviceReadmitted = "device_readmitted" in Device touches(device, planner)
        { device: DeviceId } said { reason: String };
    /// A device is shut out.
    DeviceRevoked = "device_revoked" in Device touches(device, planner)
        { device: DeviceId } said { reason: String };
    /// A device is isolated: it gets nothing but the way back. `request` is the number that was
    /// used twice, if the server detected that itself.
    DeviceIsolated = "device_isolated" in Device touches(device, planner)
        { device: DeviceId, request: Option<u64> } said { reason: String };
    /// A device was asked to make a new key.
    KeyAsked = "key_asked" in Device touches(device, planner)
        { device: DeviceId } said { reason: String };
    /// A device has a new key.
    KeyChanged = "key_changed" in Device touches(device)
        { device: DeviceId } said {};
    /// A release that failed on a device is allowed there again.
    QuarantineLifted = "quarantine_lifted" in Device touches(device, planner)
        { device: DeviceId, release: Version } said { reason: String };
    /// A device runs another release or image than before.
    DeviceRuns = "device_runs" in Device touches(device, planner)
        { device: DeviceId, release: Option<Version>, image: Option<Sha256> } said {};
    /// A device reported on a deployment that the server does not know.
    ReportUnknown = "report_unknown" in Device touches(device, planner)
        { device: DeviceId, deployment: DeploymentId, report: u64 } said {};
    /// A device refuses the server's answers, or reports what is wrong with it.
    DeviceRefused = "device_refused" in Device touches()
        { device: DeviceId, code: Reason } said { detail: String };
    /// A device diagnosed why it could not reach the server.
    DeviceDiagnosed = "device_diagnosed" in Device touches()
        { device: DeviceId, cut_off_s: u64 } said { summary: String };
    /// A device keeps data aside that somebody wrote into a version whose slot was used again.
    DataLeft = "data_left" in Device touches()
        { device: DeviceId, files: u64, bytes: u64 } said { folder: String };
    /// A device caused more events in an hour than are kept; the rest was counted.
    EventsWithheld = "events_withheld" in Device touches(device)
        { device: DeviceId, count: u64, since: Timestamp } said {};
    /// Orders for devices without a network were packed.
    BundleMade = "bundle_made" in Device touches()
        { product: ProductName, rollout: RolloutId, devices: u64, days: u64 } said {};
    /// Reports of a device without a network were brought back.
    ReportsCarried = "reports_carried" in Device touches()
        { device: DeviceId, reports: u64 } said {};

    // Trust.

    /// Signed files came into force, each named by role and version.
    MetadataTaken = "metadata_taken" in Trust touches(plan)
        { files: Vec<String> } said {};
    /// The server signed its own files again.
    OnlineSigned = "online_signed" in Trust touches(plan)
        {} said {};
    /// A draft received another signature.
    DraftSigned = "draft_signed" in Trust touches()
        { role: String, version: u64, signed: u64, people: u32 } said { signers: String };
    /// The server made new online keys.
    OnlineKeysMade = "online_keys_made" in Trust touches(plan)
        {} said { reason: String };

    // Access.

    /// A join token was made. `approve` says whether devices that join with it wait for a person,
    /// `keys` how many keys are named that alone may join.
    JoinTokenMade = "join_token_made" in Access touches()
        { product: ProductName, token: JoinTokenId, uses: u64, approve: bool, keys: u64 } said {};
    /// A join token was revoked.
    JoinTokenRevoked = "join_token_revoked" in Access touches()
        { token: JoinTokenId } said { reason: String };
    /// Every join token that could be used was revoked, of one product or of all.
    JoinTokensRevoked = "join_tokens_revoked" in Access touches()
        { product: Option<ProductName>, count: u64 } said { reason: String };
    /// An operator's token was made.
    TokenMade = "token_made" in Access touches(access)
        { token: TokenId, role: Role, break_glass: bool, expires_at: Option<Timestamp> }
        said { name: String };
    /// An administrator confirmed that a token belongs to a person other than its maker.
    TokenConfirmed = "token_confirmed" in Access touches(access)
        { token: TokenId } said { name: String };
    /// An operator's token was revoked.
    TokenRevoked = "token_revoked" in Access touches(access)
        { token: TokenId } said { name: String };
    /// A token for emergencies was used; `request` is the method and the route.
    BreakGlassUsed = "break_glass_used" in Access touches()
        { token: TokenId, request: String } said {};
}
