//! Deltas as their users see them: a delta that was made applies, anywhere and ever after, and
//! nothing else does.

#[cfg(feature = "make")]
mod engine;
#[cfg(feature = "make")]
mod opened;
mod roundtrip;
mod vectors;
