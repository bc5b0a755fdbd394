//! Planner's memory between rounds.

use std::collections::BTreeMap;

use tidegate_domain::rollout::Lag;
use tidegate_protocol::{RolloutId, Timestamp};

use crate::memory::fleet::Quiet;

/// State the leader keeps between rounds; a new leader starts with none.
#[derive(Debug, Default)]
pub struct Watch {
    pub(crate) quiet: BTreeMap<RolloutId, Quiet>,
    pub(crate) looked: Option<Timestamp>,
    pub(crate) lags: BTreeMap<RolloutId, Lag>,
}
