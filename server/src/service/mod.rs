//! What can be done: one file a concern, each call one transaction.

pub mod access;
pub mod aggregate;
pub mod approvals;
mod assign;
pub mod bundles;
mod checkin;
pub mod devices;
pub mod drafts;
pub mod execute;
pub mod fleet;
mod garbage;
mod heartbeat;
pub mod holds;
pub mod incidents;
mod lifecycle;
pub mod plan;
pub mod population;
pub mod presets;
pub mod releases;
pub mod reports;
pub mod rollouts;
pub mod room;
pub mod schedule;
pub mod secrets;
pub mod session;
pub mod trust;
mod widening;
pub mod writer;

mod error;

pub use error::ServiceError;

use crate::store::events::{EventKind, NewEvent};

/// An event with nothing but a kind, an actor and a text.
fn event(kind: EventKind, actor: impl Into<String>, text: impl Into<String>) -> NewEvent {
    NewEvent {
        kind,
        actor: actor.into(),
        product: None,
        rollout: None,
        device: None,
        text: text.into(),
    }
}
