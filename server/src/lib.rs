//! The control plane: `http/` -> `service/` -> `store/`, with `jobs/` beside it.
//!
//! A handler parses the request, calls one service and builds the response; a service decides
//! through `tidegate-domain` and acts in one transaction; all SQL is in the store. Device facts and
//! the fleet plan live in memory ([`service::fleet`]), so that a check-in with nothing new costs no
//! statement; the database is authoritative, and replicas follow its events.

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

pub use app::{Running, StartError, create_private, start};
