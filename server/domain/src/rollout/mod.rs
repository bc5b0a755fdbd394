//! Rollouts: their parts, their states, their planner.
//!
//! | module | holds |
//! | --- | --- |
//! | [`evidence`] | tests that stay valid however often one looks |
//! | `state`, `wave` | states of a rollout and its waves |
//! | `tally` | outcomes of the exposed devices |
//! | `lag` | counts of a while ago |
//! | `gate` | whether the outcomes let the rollout go on |
//! | `grace` | how much longer than the window a device keeps the old version |
//! | `pace` | how many devices may be in flight |
//! | [`policy`] | its settings beyond its waves |
//! | [`preset`] | named ways to roll out |
//! | `planner` | the next actions, and the reason there are no more |
//! | `checker` | invariants of every plan |
//! | `forecast` | the expected finish |
//! | `cluster` | which devices carry the failures |

mod checker;
mod cluster;
pub mod evidence;
mod forecast;
mod gate;
mod grace;
mod lag;
mod pace;
mod planner;
pub mod policy;
pub mod preset;
mod state;
mod tally;
mod wave;

pub use checker::check;
pub use cluster::{Cluster, Sample, find_cluster};
pub use evidence::{Evidence, Stratum};
pub use forecast::{Forecast, forecast};
pub use gate::{Breach, FALSE_HALT_ONE_IN, Gate, OnBreach};
pub use grace::kept_for;
pub use lag::Lag;
pub use pace::{Limits, NO_LIMIT, Pace, Progress};
pub use planner::{Action, Plan, Population, RolloutView, WaveView, plan};
pub use state::{RolloutEvent, RolloutRefusal, RolloutState};
pub use tally::{Outcome, Tally};
pub use wave::{Wave, WaveProgress, WaveSize, WaveSizeError, WaveState};
