//! Reads a bsdiff control stream, forward only, a window of the old image at a time.
//!
//! The stream is a sequence of `[add: u64][copy: u64][seek: i64 sign-magnitude]`, little-endian,
//! each followed by `add` bytes that are added to the old image's and `copy` bytes that are
//! copied; then the position in the old image moves by `seek`.

use crate::error::ApplyError;
use crate::sink::Sink;
use crate::source::ReadAt;

/// Number of bytes of the old image read at once.
const WINDOW: usize = 64 << 10;

enum State {
    Control { filled: usize },
    Add { left: u64 },
    Copy { left: u64 },
}

/// A push decoder of the control stream.
pub(crate) struct BsPatch<'a, S> {
    old: &'a dyn ReadAt,
    old_length: u64,
    /// Number of bytes of the new image still to come.
    left: u64,
    position: u64,
    control: [u8; 24],
    copy: u64,
    seek: i64,
    state: State,
    window: Vec<u8>,
    pub(crate) sink: S,
}

impl<'a, S: Sink> BsPatch<'a, S> {
    pub(crate) fn new(old: &'a dyn ReadAt, old_length: u64, new_length: u64, sink: S) -> Self {
        Self {
            old,
            old_length,
            left: new_length,
            position: 0,
            control: [0; 24],
            copy: 0,
            seek: 0,
            state: State::Control { filled: 0 },
            window: vec![0; WINDOW],
            sink,
        }
    }

    /// Decodes more of the stream.
    pub(crate) fn push(&mut self, mut input: &[u8]) -> Result<(), ApplyError> {
        while !input.is_empty() {
            match self.state {
                State::Control { filled } => {
                    let take = input.len().min(self.control.len() - filled);
                    self.control[filled..filled + take].copy_from_slice(&input[..take]);
                    input = &input[take..];
                    if filled + take < self.control.len() {
                        self.state = State::Control {
                            filled: filled + take,
                        };
                    } else {
                        self.begin_block()?;
                    }
                }
                State::Add { left } => {
                    let take = input.len().min(WINDOW).min(clamp(left));
                    self.add(&input[..take])?;
                    input = &input[take..];
                    self.state = State::Add {
                        left: left - take as u64,
                    };
                }
                State::Copy { left } => {
                    let take = input.len().min(clamp(left));
                    self.sink.bytes(&input[..take])?;
                    input = &input[take..];
                    self.state = State::Copy {
                        left: left - take as u64,
                    };
                }
            }
            self.advance()?;
        }
        Ok(())
    }

    /// Ends the stream, which may end only between two blocks.
    pub(crate) fn finish(&self) -> Result<(), ApplyError> {
        match self.state {
            State::Control { filled: 0 } => Ok(()),
            State::Control { .. } | State::Add { .. } | State::Copy { .. } => Err(
                ApplyError::Decode("the delta ends in the middle of a block".into()),
            ),
        }
    }

    fn begin_block(&mut self) -> Result<(), ApplyError> {
        let word = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.control[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        let (add, copy, seek) = (word(0), word(8), word(16));
        // Refused before a byte of the block is read: a block cannot make more than is left.
        let made = add.checked_add(copy);
        let left = made.and_then(|made| self.left.checked_sub(made));
        self.left = left.ok_or(ApplyError::TooLong)?;
        if self
            .position
            .checked_add(add)
            .is_none_or(|end| end > self.old_length)
        {
            return Err(ApplyError::Decode(
                "the delta reads past the end of the old image".into(),
            ));
        }
        let magnitude = i64::try_from(seek & !(1 << 63)).unwrap_or(i64::MAX);
        self.seek = if seek >> 63 == 1 {
            -magnitude
        } else {
            magnitude
        };
        self.copy = copy;
        self.state = State::Add { left: add };
        Ok(())
    }

    /// Moves on when a part of a block is complete.
    fn advance(&mut self) -> Result<(), ApplyError> {
        if let State::Add { left: 0 } = self.state {
            self.state = State::Copy { left: self.copy };
        }
        if let State::Copy { left: 0 } = self.state {
            self.position =
                self.position
                    .checked_add_signed(self.seek)
                    .ok_or(ApplyError::Decode(
                        "the delta seeks before the old image".into(),
                    ))?;
            self.state = State::Control { filled: 0 };
        }
        Ok(())
    }

    fn add(&mut self, diff: &[u8]) -> Result<(), ApplyError> {
        let window = &mut self.window[..diff.len()];
        self.old
            .read_exact_at(window, self.position)
            .map_err(ApplyError::ReadOld)?;
        for (byte, diff) in window.iter_mut().zip(diff) {
            *byte = byte.wrapping_add(*diff);
        }
        self.position += diff.len() as u64;
        self.sink.bytes(&self.window[..diff.len()])
    }
}

fn clamp(left: u64) -> usize {
    usize::try_from(left).unwrap_or(usize::MAX)
}
