//! Rollouts: what they are made of, their states, their planner.
//!
//! | module | holds |
//! | --- | --- |
//! | [`evidence`] | tests that stay valid however often one looks |
//! | `state`, `wave` | where a rollout and its waves stand |
//! | `tally` | what became of the exposed devices |
//! | `lag` | what was known a while ago |
//! | `gate` | whether that lets the rollout go on |
//! | `pace` | how many devices may be in flight |
//! | `planner` | what to do now, and why no more |
//! | `checker` | what must hold of every plan |
//! | `forecast` | when it will be finished |
//! | `cluster` | which devices carry the failures |

mod checker;
mod cluster;
pub mod evidence;
mod forecast;
mod gate;
mod lag;
mod pace;
mod planner;
mod state;
mod tally;
mod wave;

pub use checker::check;
pub use cluster::{Cluster, Sample, find_cluster};
pub use evidence::{Evidence, Stratum};
pub use forecast::{Forecast, forecast};
pub use gate::{Breach, FALSE_HALT_ONE_IN, Gate, OnBreach};
pub use lag::Lag;
pub use pace::{Limits, NO_LIMIT, Pace, Progress};
pub use planner::{Action, Plan, Population, RolloutView, WaveView, plan};
pub use state::{RolloutEvent, RolloutRefusal, RolloutState};
pub use tally::{Outcome, Tally};
pub use wave::{Wave, WaveProgress, WaveSize, WaveSizeError, WaveState};
