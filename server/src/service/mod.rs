//! Use cases, one file per subject; each call is one transaction.

pub mod access;
pub mod aggregate;
pub mod approvals;
mod assign;
pub mod bundles;
mod checkin;
pub mod devices;
pub mod drafts;
mod events;
pub mod execute;
pub mod fleet;
mod garbage;
mod heartbeat;
pub mod holds;
pub mod incidents;
mod lifecycle;
mod lists;
pub mod permits;
pub mod plan;
pub mod population;
pub mod releases;
pub mod reports;
pub mod rollouts;
pub mod schedule;
pub mod secrets;
pub mod session;
pub mod trust;
mod widening;

mod error;

pub use error::ServiceError;
