//! Consumer of a decoded image.

use crate::error::ApplyError;

/// Consumer of the bytes that a payload decodes to, in order.
pub trait Sink {
    /// Takes bytes.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ApplyError>;
    /// Takes a frame's bytes from where they are kept already, so that they need not be made.
    /// Returns `false` if they are not kept.
    fn kept(&mut self, length: u64) -> Result<bool, ApplyError>;
    /// Called at the end of a frame: the bytes taken so far should be made durable.
    fn frame_done(&mut self) -> Result<(), ApplyError>;
}
