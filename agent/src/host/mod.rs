//! The machine: facts about it, its power, its commands, and its service manager.

pub(crate) mod command;
mod family;
pub mod health;
#[cfg(target_os = "linux")]
pub(crate) mod orphans;
pub mod platform;
pub mod power;
pub(crate) mod program;
pub mod rights;
pub(crate) mod service;
pub(crate) mod spare;
pub(crate) mod stop;
#[cfg(any(windows, test))]
pub(crate) mod supervise;
pub(crate) mod threads;
