//! The network: one connection to the control plane, and downloads from it and its mirrors.

pub(crate) mod address;
pub mod client;
pub mod download;
pub(crate) mod proxy;
pub(crate) mod rate;
pub mod tls;
