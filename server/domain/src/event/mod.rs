//! Events: changes and who made them. Every change that people or replicas should learn of is one.
//!
//! An event has a kind, fields and a sentence. Programs read the fields, never the sentence. There
//! are two sorts of fields: `body` holds ids, numbers and words from closed sets, never the name of
//! a person or a device; `said` holds free text and such names, and can be erased without touching
//! the body.

pub mod budget;
mod field;
mod kinds;
mod sentence;

use std::fmt;

use tidegate_protocol::{DeviceId, Speaker, TokenId, bounded, said};

pub use field::{Field, Fields, Scalar};
pub use kinds::Event;

/// Version of the field format. Raised when the fields of a kind change their meaning.
pub const VERSION: u32 = 1;

/// Originator of an event.
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
    /// The leader: waves, gates, timeouts, scheduled orders.
    Planner,
    /// The job that builds payloads.
    Builder,
    /// The server's answer to a check-in: an offer, a cancellation, an order to return.
    CheckIn,
    /// The server itself: its first start.
    System,
}

impl Actor {
    /// Word for the kind of actor.
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

    /// Id of an operator's token or of a device; `None` for the others, which are unique.
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

/// Part of the system that an event belongs to. Replicas follow events by topic, even where they do
/// not know the kind: a topic must not be added before the previous version has learned to skip it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Topic {
    /// A product, release, artifact or payload.
    Release,
    /// A rollout or one of its waves.
    Rollout,
    /// Number of devices of a rollout that may be exposed.
    Pace,
    /// A device's deployment.
    Deployment,
    /// A device.
    Device,
    /// Signed metadata.
    Trust,
    /// Tokens.
    Access,
    /// A release that is rolled back.
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

/// Parts of memory that an event affects.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "parts of memory, each of which follows or does not"
)]
pub struct Touches {
    /// The fleet plan.
    pub plan: bool,
    /// The permits of rollouts.
    pub permits: bool,
    /// The operators' tokens.
    pub access: bool,
    /// The device that the event is about.
    pub device: bool,
    /// The planner has something new to look at.
    pub planner: bool,
    /// The builder has something new to look at.
    pub builder: bool,
}

impl Touches {
    /// Union of the two.
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
    /// Returns the device that it is about, if any.
    pub fn device(&self) -> Option<DeviceId> {
        match self.body().get("device") {
            Some(Scalar::Text(text)) => text.parse().ok(),
            _ => None,
        }
    }
}

/// Sentence of an event for a log, marked with whose word it is: what a device or a person says is not what
/// the server knows.
pub fn spoken(actor: &Actor, event: &Event) -> String {
    let text = format!("{actor}: {event}");
    match actor {
        Actor::Device { .. } => said(Speaker::Device, &text),
        Actor::Operator { .. } => said(Speaker::Operator, &text),
        Actor::Planner | Actor::Builder | Actor::CheckIn | Actor::System => bounded(&text),
    }
}

#[cfg(test)]
mod tests;
