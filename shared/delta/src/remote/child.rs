//! The decoder's side.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use super::{
    BYTES, DONE, FAILED, FRAME, INPUT, KEPT, PIECE, READ, TASK, TEXT, code, nonsense, request,
    u32_at,
};
use crate::decode::{Decoder, Task};
use crate::error::ApplyError;
use crate::sink::Sink;
use crate::source::ReadAt;

/// Pipes to the decoder's user.
struct Wire<R, W: Write> {
    from: R,
    to: BufWriter<W>,
}

impl<R: Read, W: Write> Wire<R, W> {
    fn say(&mut self, kind: u8, a: u64, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(&request(kind, a, bytes.len()))?;
        self.to.write_all(bytes)
    }

    fn hear(&mut self, buf: &mut [u8]) -> io::Result<()> {
        self.to.flush()?;
        self.from.read_exact(buf)
    }

    /// Reads the next piece of the payload; it is empty at its end.
    fn input(&mut self, piece: &mut Vec<u8>) -> io::Result<()> {
        self.say(INPUT, 0, &[])?;
        let mut length = [0; 4];
        self.hear(&mut length)?;
        let length = u32_at(&length, 0) as usize;
        if length > PIECE {
            return Err(nonsense());
        }
        piece.resize(length, 0);
        self.from.read_exact(piece)
    }

    fn read(&mut self, buf: &mut [u8], mut offset: u64) -> io::Result<()> {
        for part in buf.chunks_mut(PIECE) {
            let length = part.len();
            self.to.write_all(&request(READ, offset, length))?;
            let mut readable = [0];
            self.hear(&mut readable)?;
            if readable != [1] {
                return Err(io::Error::other("the old image cannot be read"));
            }
            self.from.read_exact(part)?;
            offset += length as u64;
        }
        Ok(())
    }

    fn fail(&mut self, error: &ApplyError) -> io::Result<()> {
        let (code, text) = match error {
            ApplyError::Decompress(error) => (code::DECOMPRESS, error.to_string()),
            ApplyError::TooLong => (code::TOO_LONG, String::new()),
            ApplyError::NoScratch => (code::NO_SCRATCH, String::new()),
            ApplyError::Scratch(error) => {
                let os = error.raw_os_error().and_then(|os| u32::try_from(os).ok());
                (
                    code::SCRATCH | u64::from(os.unwrap_or(0)) << 8,
                    error.to_string(),
                )
            }
            ApplyError::Decode(what) => (code::DECODE, what.to_string()),
            other => (code::DECODE, other.to_string()),
        };
        let text = text.as_bytes();
        self.say(FAILED, code, &text[..text.len().min(TEXT)])?;
        self.to.flush()
    }
}

/// Old image, read from the decoder's user.
struct Old<'w, R, W: Write> {
    wire: &'w RefCell<Wire<R, W>>,
    length: u64,
    ahead: RefCell<Ahead>,
}

/// Bytes read ahead where an image is read from front to back, and their offset.
#[derive(Default)]
struct Ahead {
    bytes: Vec<u8>,
    offset: u64,
}

impl<R: Read, W: Write> ReadAt for Old<'_, R, W> {
    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).ok_or_else(nonsense)?;
        if end > self.length {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let ahead = &mut *self.ahead.borrow_mut();
        let held = ahead.offset + ahead.bytes.len() as u64;
        if offset < ahead.offset || end > held {
            let follows = offset >= ahead.offset && offset <= held && held > 0;
            let more = if follows { PIECE as u64 } else { 0 };
            let count = more.max(buf.len() as u64).min(self.length - offset);
            ahead
                .bytes
                .resize(usize::try_from(count).map_err(|_| nonsense())?, 0);
            ahead.offset = offset;
            let read = self.wire.borrow_mut().read(&mut ahead.bytes, offset);
            read.inspect_err(|_| ahead.bytes.clear())?;
        }
        let from = usize::try_from(offset - ahead.offset).map_err(|_| nonsense())?;
        buf.copy_from_slice(&ahead.bytes[from..from + buf.len()]);
        Ok(())
    }
}

/// Sink that passes everything on to the decoder's user.
struct Out<'w, R, W: Write> {
    wire: &'w RefCell<Wire<R, W>>,
}

impl<R: Read, W: Write> Sink for Out<'_, R, W> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        for part in bytes.chunks(PIECE) {
            let said = self.wire.borrow_mut().say(BYTES, 0, part);
            said.map_err(ApplyError::Write)?;
        }
        Ok(())
    }

    fn kept(&mut self, length: u64) -> Result<bool, ApplyError> {
        let mut wire = self.wire.borrow_mut();
        let mut answer = [0];
        let asked = wire.say(KEPT, length, &[]);
        asked
            .and_then(|()| wire.hear(&mut answer))
            .map_err(ApplyError::Write)?;
        Ok(answer == [1])
    }

    fn frame_done(&mut self) -> Result<(), ApplyError> {
        let said = self.wire.borrow_mut().say(FRAME, 0, &[]);
        said.map_err(ApplyError::Write)
    }
}

/// Decodes one payload for the process at the other ends of two pipes. `bound` is called with the
/// task before anything of the payload is read, to give up what the decoder does not need. A payload
/// that cannot be decoded is told to the other side, and is no error here.
pub fn serve(
    mut from: impl Read,
    to: impl Write,
    scratch: Option<&File>,
    bound: impl FnOnce(&Task) -> io::Result<()>,
) -> io::Result<()> {
    let mut task = [0; TASK];
    from.read_exact(&mut task)?;
    let task = Task::from_bytes(&task).ok_or_else(nonsense)?;
    bound(&task)?;
    let wire = RefCell::new(Wire {
        from,
        to: BufWriter::with_capacity(PIECE, to),
    });
    let done = decode(&task, &wire, scratch);
    let mut wire = wire.borrow_mut();
    match done {
        // The other side is gone.
        Err(ApplyError::Write(error)) => Err(error),
        Err(error) => wire.fail(&error),
        Ok(()) => wire.say(DONE, 0, &[]).and_then(|()| wire.to.flush()),
    }
}

fn decode<R: Read, W: Write>(
    task: &Task,
    wire: &RefCell<Wire<R, W>>,
    scratch: Option<&File>,
) -> Result<(), ApplyError> {
    let old = Old {
        wire,
        length: task.old_length,
        ahead: RefCell::default(),
    };
    let mut decoder = Decoder::new(task, Some(&old), Out { wire })?;
    if let Some(file) = scratch {
        decoder.set_scratch(file);
    }
    let mut piece = Vec::new();
    loop {
        let input = wire.borrow_mut().input(&mut piece);
        input.map_err(ApplyError::Write)?;
        if piece.is_empty() {
            return decoder.finish();
        }
        decoder.push(&piece)?;
    }
}
