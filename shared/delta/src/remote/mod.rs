//! Decoding in another process, over two pipes.
//!
//! A decoder is the part that a hostile payload can harm: it gets no file, no address and no key,
//! only what it asks for. It asks, and its user answers:
//!
//! ```text
//! task     encoding (u8), window (u8), old length, new length, scratch, memory (u64 each)
//! request  kind (u8), a (u64), b (u32), then b bytes where there are any
//!   input      the next piece of the payload         answer: length (u32), bytes; 0 at its end
//!   read       b bytes of the old image from a on     answer: 1, bytes; or 0 if it is unreadable
//!   bytes      b bytes of the new image
//!   kept       whether the next a bytes are there     answer: 1 or 0
//!   frame      the end of a frame
//!   done       the end
//!   failed     the reason: a is its code, b bytes are its text
//! ```
//!
//! Numbers are little-endian. Only one side speaks at a time, so that neither waits for the other.

mod child;
mod user;

pub use child::serve;
pub use user::Conversation;

use std::io;

use crate::Encoding;
use crate::decode::Task;
use crate::error::ApplyError;
use crate::sink::Sink;

/// Decoder of one payload in another process.
pub trait Remote {
    /// Decodes the next verified bytes of the payload into a sink.
    fn push(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<(), ApplyError>;
    /// Ends the payload.
    fn finish(&mut self, sink: &mut dyn Sink) -> Result<(), ApplyError>;
}

const INPUT: u8 = 1;
const READ: u8 = 2;
const BYTES: u8 = 3;
const KEPT: u8 = 4;
const FRAME: u8 = 5;
const DONE: u8 = 6;
const FAILED: u8 = 7;

/// Most bytes that one message carries.
const PIECE: usize = 64 << 10;
/// Longest text of a failure, in bytes.
const TEXT: usize = 200;
/// Length of a request without its bytes.
const REQUEST: usize = 13;
/// Length of a task.
const TASK: usize = 34;

/// Codes of failures; all others are of a payload that cannot be decoded.
mod code {
    pub(super) const DECODE: u64 = 0;
    pub(super) const DECOMPRESS: u64 = 1;
    pub(super) const TOO_LONG: u64 = 2;
    pub(super) const NO_SCRATCH: u64 = 3;
    /// The error of the operating system is above it.
    pub(super) const SCRATCH: u64 = 4;
}

fn request(kind: u8, a: u64, b: usize) -> [u8; REQUEST] {
    let mut out = [0; REQUEST];
    out[0] = kind;
    out[1..9].copy_from_slice(&a.to_le_bytes());
    // Never more than a piece.
    out[9..].copy_from_slice(&u32::try_from(b).unwrap_or(u32::MAX).to_le_bytes());
    out
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn nonsense() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the other side is not understood",
    )
}

impl Task {
    fn to_bytes(self) -> [u8; TASK] {
        let mut out = [0; TASK];
        let place = Encoding::ALL.iter().position(|e| *e == self.encoding);
        out[0] = place
            .and_then(|place| place.try_into().ok())
            .unwrap_or(u8::MAX);
        out[1] = self.max_window_log.try_into().unwrap_or(u8::MAX);
        let numbers = [
            self.old_length,
            self.new_length,
            self.scratch,
            self.max_memory,
        ];
        for (to, number) in out[2..].chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_le_bytes());
        }
        out
    }

    fn from_bytes(bytes: &[u8; TASK]) -> Option<Self> {
        Some(Self {
            encoding: *Encoding::ALL.get(usize::from(bytes[0]))?,
            max_window_log: bytes[1].into(),
            old_length: u64_at(bytes, 2),
            new_length: u64_at(bytes, 10),
            scratch: u64_at(bytes, 18),
            max_memory: u64_at(bytes, 26),
        })
    }
}

#[cfg(test)]
mod tests;
