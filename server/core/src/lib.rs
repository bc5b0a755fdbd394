#![doc = include_str!("../README.md")]

pub mod app;
pub mod blob;
pub mod clock;
pub mod device;
pub mod incident;
pub mod memory;
pub mod metrics;
pub mod operator;
pub mod public;
pub mod release;
pub mod rollout;
pub mod settings;
pub mod trust;

mod commit;
mod error;
mod events;
mod follow;
mod lists;
mod open;
mod queue;
mod random;

/// Space on the disks of a server.
pub mod room {
    pub use tidegate_store::{HeadroomStanding, Space, ballast_of};

    pub use crate::blob::NEXT_PARTS;
}

pub use app::App;
pub use blob::create_private;
pub use commit::group::run as run_writer;
pub use error::CoreError;
pub use follow::Notices;
pub use open::{Opened, claim, migrate, open, rescue};
pub use queue::Queue;
/// Random bytes for names of requests and temporary files.
pub use random::bytes as random_bytes;
pub use settings::Settings;

/// Rows that use cases return as they are stored.
pub mod rows {
    pub use tidegate_store::artifacts::{Artifact, Payload};
    pub use tidegate_store::changes::ChangeKind;
    pub use tidegate_store::deployments::Deployment;
    pub use tidegate_store::events::StoredEvent;
    pub use tidegate_store::holds::HoldRow;
    pub use tidegate_store::incidents::Incident;
    pub use tidegate_store::jobs::{Job, Outcome};
    pub use tidegate_store::join::JoinRow;
    pub use tidegate_store::operators::OperatorToken;
    pub use tidegate_store::products::{ProductSettings, Release};
    pub use tidegate_store::rollouts::Rollout;
    pub use tidegate_store::waves::WaveRow;
}
