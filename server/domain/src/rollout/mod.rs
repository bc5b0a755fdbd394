//! Rollouts: what they are made of, their states, and the planner.

mod gate;
mod planner;
mod state;
mod wave;

pub use gate::{Gate, GateVerdict, OnBreach, Tally};
pub use planner::{Action, Census, Plan, RolloutView, WaveView, plan};
pub use state::{RolloutEvent, RolloutRefusal, RolloutState};
pub use wave::{Pace, Wave, WaveSize, WaveSizeError, WaveState};
