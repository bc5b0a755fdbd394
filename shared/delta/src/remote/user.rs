//! The side of a decoder's user, which believes nothing.

use std::io::{self, Read, Write};

use tidegate_protocol::plain;

use super::{
    BYTES, DONE, FAILED, FRAME, INPUT, KEPT, PIECE, READ, REQUEST, Remote, TEXT, code, nonsense,
    u32_at, u64_at,
};
use crate::decode::Task;
use crate::error::ApplyError;
use crate::sink::Sink;
use crate::source::ReadAt;

/// Conversation with a decoder over two pipes.
pub struct Conversation<'a, R, W> {
    from: R,
    to: W,
    old: Option<&'a dyn ReadAt>,
    /// Whether the decoder waits for the next bytes of the payload.
    waits: bool,
    buffer: Vec<u8>,
}

impl<'a, R: Read, W: Write> Conversation<'a, R, W> {
    /// Gives the decoder its task.
    pub fn begin(from: R, mut to: W, task: &Task, old: Option<&'a dyn ReadAt>) -> io::Result<Self> {
        to.write_all(&task.to_bytes())?;
        Ok(Self {
            from,
            to,
            old,
            waits: false,
            buffer: vec![0; 5 + PIECE],
        })
    }

    /// Answers the decoder until it asks for the next bytes of the payload, or is done.
    fn answer(&mut self, sink: &mut dyn Sink) -> Result<Asked, ApplyError> {
        loop {
            let mut head = [0; REQUEST];
            self.from.read_exact(&mut head).map_err(lost)?;
            let (kind, a, b) = (head[0], u64_at(&head, 1), u32_at(&head, 9) as usize);
            if b > PIECE {
                return Err(lost(nonsense()));
            }
            match kind {
                INPUT => return Ok(Asked::Input),
                DONE => return Ok(Asked::Done),
                READ => self.read(a, b)?,
                BYTES => {
                    let bytes = &mut self.buffer[..b];
                    self.from.read_exact(bytes).map_err(lost)?;
                    sink.bytes(bytes)?;
                }
                KEPT => {
                    let kept = sink.kept(a)?;
                    self.to.write_all(&[kept.into()]).map_err(lost)?;
                }
                FRAME => sink.frame_done()?,
                FAILED => return Err(self.failure(a, b)),
                _ => return Err(lost(nonsense())),
            }
        }
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<(), ApplyError> {
        let old = self.old.ok_or(ApplyError::NoOldImage)?;
        // One write for the answer and its bytes: each write may wake the decoder.
        let (answer, _) = self.buffer.split_at_mut(1 + length);
        answer[0] = 1;
        let read = old.read_exact_at(&mut answer[1..], offset);
        read.map_err(ApplyError::ReadOld)?;
        self.to.write_all(answer).map_err(lost)
    }

    fn failure(&mut self, told: u64, length: usize) -> ApplyError {
        let text = &mut self.buffer[..length.min(TEXT)];
        if let Err(error) = self.from.read_exact(text) {
            return lost(error);
        }
        let text = plain(&String::from_utf8_lossy(text));
        match told & 0xFF {
            code::DECOMPRESS => ApplyError::Decompress(io::Error::other(text)),
            code::TOO_LONG => ApplyError::TooLong,
            code::NO_SCRATCH => ApplyError::NoScratch,
            code::SCRATCH => ApplyError::Scratch(match i32::try_from(told >> 8) {
                Ok(os) if os != 0 => io::Error::from_raw_os_error(os),
                _ => io::Error::other(text),
            }),
            _ => ApplyError::Decode(text.into()),
        }
    }

    fn give(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        let (answer, _) = self.buffer.split_at_mut(4 + bytes.len());
        // A piece is never longer than its bound.
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        answer[..4].copy_from_slice(&length.to_le_bytes());
        answer[4..].copy_from_slice(bytes);
        self.waits = false;
        self.to.write_all(answer).map_err(lost)
    }

    fn wait(&mut self, sink: &mut dyn Sink) -> Result<(), ApplyError> {
        if !self.waits {
            match self.answer(sink)? {
                Asked::Input => self.waits = true,
                Asked::Done => return Err(lost(nonsense())),
            }
        }
        Ok(())
    }
}

enum Asked {
    Input,
    Done,
}

/// Error of a decoder that no longer speaks.
fn lost(error: io::Error) -> ApplyError {
    ApplyError::NoDecoder(error)
}

impl<R: Read, W: Write> Remote for Conversation<'_, R, W> {
    fn push(&mut self, bytes: &[u8], sink: &mut dyn Sink) -> Result<(), ApplyError> {
        for piece in bytes.chunks(PIECE) {
            self.wait(sink)?;
            self.give(piece)?;
        }
        // What these bytes decode to belongs to them.
        self.wait(sink)
    }

    fn finish(&mut self, sink: &mut dyn Sink) -> Result<(), ApplyError> {
        self.wait(sink)?;
        self.give(&[])?;
        match self.answer(sink)? {
            Asked::Done => Ok(()),
            Asked::Input => Err(lost(nonsense())),
        }
    }
}
