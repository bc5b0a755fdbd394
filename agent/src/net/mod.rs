//! The network: one connection to the control plane, and downloads from it and its mirrors.

pub(crate) mod address;
pub mod client;
pub mod download;
mod error;
pub(crate) mod line;
pub mod part;
pub(crate) mod proxy;
pub(crate) mod rate;
pub(crate) mod signed;
pub mod tls;

pub use error::TransportError;
