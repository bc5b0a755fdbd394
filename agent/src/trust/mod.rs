//! Trust: the signed files that the device keeps.

mod store;

pub use store::{TrustStore, TrustStoreError};
