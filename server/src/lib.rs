#![doc = include_str!("../README.md")]

pub mod config;
pub mod tls;

mod descriptors;
mod health;
mod listen;
mod query;
mod router;
mod start;
mod strangers;

pub use router::openapi;
pub use tidegate_core::{create_private, migrate, rescue, room};

pub use start::{Running, StartError, start};
