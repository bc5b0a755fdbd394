//! The agent's state machine: pure, no clock, no files, no network.
//!
//! ```text
//! Idle -> Downloading -> Staging [-> Staged] -> Trial -> Probation -> Idle (new)
//!             |             |          |          |          |
//!             +-- give up --+----------+          +----------+--> Returning -> Idle (old)
//! ```
//!
//! `Staged` waits for the maintenance window. A return remembers the image that failed.
//!
//! [`step()`] takes the record and an event and returns the new record and its effects. The driver
//! makes the record durable *before* it performs any of them: intent before act.

mod back;
mod event;
mod medium;
mod payload;
mod record;
mod start;
mod step;

pub use event::{Effect, Event};
pub use medium::{Activation, Medium};
pub use record::{Installed, Job, Phase, Record, Restarts, SlotId};
pub use step::step;

#[cfg(test)]
mod tests;
