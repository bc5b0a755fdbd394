#![doc = include_str!("../README.md")]

pub mod driver;
pub mod fs;
pub mod host;
pub mod install;
pub mod net;
pub mod people;
pub mod trust;

mod cli;
mod log;
#[cfg(test)]
mod power_loss;

pub use cli::{ExitCode, main};
pub use host::rights::keep_others_from_writing;
pub use host::stop::asked_to_stop;

/// The agent's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
