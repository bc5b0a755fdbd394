//! Events: what was changed, by whom. Every change that people or replicas should hear of is one.
//!
//! An event has a kind, fields and a sentence. Programs read the fields, never the sentence. The fields
//! are of two sorts: `body` holds ids, numbers and closed words and never a name of a person or a
//! device; `said` holds free text and such names, and can be erased without touching the body.

mod field;
mod kinds;
mod sentence;

use std::fmt;

use tidegate_protocol::{DeviceId, TokenId};

pub use field::{Field, Fields, Scalar};
pub use kinds::Event;

/// Version of the form of the fields. A kind whose fields change their meaning raises it.
pub const VERSION: u32 = 1;

/// Who caused an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A person or a pipeline, by token.
    Operator {
        /// The token.
        token: TokenId,
        /// Its name, for people.
        name: String,
    },
    /// A device, by its report or its request.
    Device {
        /// The device.
        device: DeviceId,
        /// Its name, for people.
        name: String,
    },
    /// The leader: waves, gates, time-outs, what was ordered for a later time.
    Planner,
    /// The job that makes payloads.
    Builder,
    /// The server's answer to a check-in: an offer, a cancellation, an order to return.
    CheckIn,
    /// The server itself: its first start.
    System,
}

impl Actor {
    /// The word for the kind of actor.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Operator { .. } => "operator",
            Self::Device { .. } => "device",
            Self::Planner => "planner",
            Self::Builder => "builder",
            Self::CheckIn => "check_in",
            Self::System => "system",
        }
    }

    /// The id of an operator's token or of a device; the others are one of a kind.
    pub fn id(&self) -> Option<String> {
        match self {
            Self::Operator { token, .. } => Some(token.to_string()),
            Self::Device { device, .. } => Some(device.to_string()),
            Self::Planner | Self::Builder | Self::CheckIn | Self::System => None,
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator { name, .. } => write!(f, "operator {name}"),
            Self::Device { name, .. } => write!(f, "device {name}"),
            Self::Planner => f.write_str("planner"),
            Self::Builder => f.write_str("builder"),
            Self::CheckIn => f.write_str("check-in"),
            Self::System => f.write_str("server"),
        }
    }
}

/// The part of the system that an event belongs to. Replicas follow by it, also where they do not know
/// the kind: a topic is never added without teaching the version before to pass over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A product, release, artifact or payload.
    Release,
    /// A rollout or one of its waves.
    Rollout,
    /// How many devices of a rollout may be exposed.
    Pace,
    /// A device's deployment.
    Deployment,
    /// A device.
    Device,
    /// Signed metadata.
    Trust,
    /// Tokens.
    Access,
    /// A release that is taken back.
    Incident,
}

tidegate_protocol::words!(Topic("topic") {
    Release = "release",
    Rollout = "rollout",
    Pace = "pace",
    Deployment = "deployment",
    Device = "device",
    Trust = "trust",
    Access = "access",
    Incident = "incident",
});

/// What in memory follows from an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Touches {
    /// The fleet plan.
    pub plan: bool,
    /// The permits of rollouts.
    pub permits: bool,
    /// The operators' tokens.
    pub access: bool,
    /// The device that the event is of.
    pub device: bool,
    /// The planner has something new to look at.
    pub planner: bool,
    /// The builder has.
    pub builder: bool,
}

impl Touches {
    /// What follows from either.
    pub fn and(self, other: Self) -> Self {
        Self {
            plan: self.plan || other.plan,
            permits: self.permits || other.permits,
            access: self.access || other.access,
            device: self.device || other.device,
            planner: self.planner || other.planner,
            builder: self.builder || other.builder,
        }
    }
}

impl Event {
    /// The device that it is of.
    pub fn device(&self) -> Option<DeviceId> {
        match self.body().get("device") {
            Some(Scalar::Text(text)) => text.parse().ok(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
