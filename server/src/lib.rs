#![doc = include_str!("../README.md")]

pub mod blob;
pub mod clock;
pub mod config;
pub mod http;
pub mod service;
pub mod store;
pub mod tls;

mod app;
mod commit;
mod descriptors;
mod jobs;
mod metrics;
mod random;
mod start;

pub use start::{Running, StartError, create_private, start};
