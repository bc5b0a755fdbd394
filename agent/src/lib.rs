#![doc = include_str!("../README.md")]

pub mod client;
pub mod config;
pub mod download;
pub mod driver;
pub mod fs;
pub mod health;
pub mod install;
pub mod platform;
pub mod tls;
pub mod trust_store;

mod address;
mod cli;
mod control;
mod core;
mod doctor;
mod enroll;
mod log;
pub mod power;
#[cfg(test)]
mod power_loss;
mod proxy;
mod service;
mod service_files;
mod settings;
mod standing;
mod stop;
#[cfg(any(windows, test))]
mod supervise;

pub use cli::{ExitCode, main};
pub use stop::asked_to_stop;

/// The agent's own version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
