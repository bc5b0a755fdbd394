//! Memory of this replica, which answers without asking the database: the fleet, the plan, permits,
//! tokens and secrets. Nothing here writes.

pub mod access;
pub(crate) mod applied;
pub mod device;
pub mod fleet;
pub(crate) mod permits;
pub mod plan;
pub mod secrets;
pub(crate) mod tickets;
pub mod tokens;
pub mod trust;
pub mod watch;
