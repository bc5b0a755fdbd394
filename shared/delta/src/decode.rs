//! Decoding of a payload, apart from all checks of what goes in and what comes out.

use std::fs::File;
use std::io::{self, Write};

use crate::bspatch::BsPatch;
use crate::engine::opened::{Engine, Ground};
use crate::error::ApplyError;
use crate::sink::Sink;
use crate::source::ReadAt;
use crate::{Encoding, Limits, Manifest};

/// Everything that a decoder has to know of a payload, and its bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    pub(crate) encoding: Encoding,
    /// Length of the old image in bytes; 0 without one.
    pub(crate) old_length: u64,
    pub(crate) new_length: u64,
    /// Size of the scratch file in bytes; 0 if none is needed.
    pub(crate) scratch: u64,
    pub(crate) max_window_log: u32,
    pub(crate) max_memory: u64,
}

impl Task {
    /// Takes the task from a manifest, which is checked against the limits first.
    pub fn new(manifest: &Manifest, limits: &Limits) -> Result<Self, ApplyError> {
        manifest.check(limits)?;
        Ok(Self {
            encoding: manifest.encoding,
            old_length: manifest.from.map_or(0, |from| from.length),
            new_length: manifest.to.length,
            scratch: manifest.scratch,
            max_window_log: limits.max_window_log,
            max_memory: limits.max_memory,
        })
    }

    /// Size of the scratch file, in bytes.
    pub fn scratch(&self) -> u64 {
        self.scratch
    }

    /// Upper bound of the memory for decoding, in bytes.
    pub fn memory(&self) -> u64 {
        self.max_memory.max(1 << self.max_window_log.min(40))
    }
}

enum Way<'a, S> {
    Plain(S),
    Patch(Box<BsPatch<'a, S>>),
    Engine(Box<Engine<'a>>, S),
}

impl<S: Sink> Way<'_, S> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        match self {
            Self::Plain(sink) => sink.bytes(bytes),
            Self::Patch(patch) => patch.push(bytes),
            Self::Engine(engine, sink) => engine.push(bytes, sink),
        }
    }

    fn sink(&mut self) -> &mut S {
        match self {
            Self::Plain(sink) | Self::Engine(_, sink) => sink,
            Self::Patch(patch) => &mut patch.sink,
        }
    }
}

/// Lets zstd write into a decoder; keeps its error, which `io::Error` cannot carry.
struct Guard<'a, S> {
    way: Way<'a, S>,
    error: Option<ApplyError>,
}

impl<S: Sink> Write for Guard<'_, S> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self.way.push(buf) {
            Ok(()) => Ok(buf.len()),
            Err(error) => {
                self.error = Some(error);
                Err(io::ErrorKind::Other.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Stream<'a, S: Sink> {
    Plain(Way<'a, S>),
    Zstd(zstd::stream::write::Decoder<'a, Guard<'a, S>>),
}

/// Decoder of one payload: its bytes in, in pieces of any length, and those of the new image out,
/// to a sink.
pub struct Decoder<'a, S: Sink> {
    stream: Stream<'a, S>,
}

impl<'a, S: Sink> Decoder<'a, S> {
    /// Creates a decoder; `old` is the image that a delta starts from.
    pub fn new(task: &Task, old: Option<&'a dyn ReadAt>, sink: S) -> Result<Self, ApplyError> {
        let zstd = |way| {
            let guard = Guard { way, error: None };
            let made = zstd::stream::write::Decoder::new(guard);
            let mut decoder = made.map_err(ApplyError::Decompress)?;
            decoder
                .window_log_max(task.max_window_log)
                .map_err(ApplyError::Decompress)?;
            Ok::<_, ApplyError>(Stream::Zstd(decoder))
        };
        let stream = match task.encoding {
            Encoding::Raw => Stream::Plain(Way::Plain(sink)),
            Encoding::Full => zstd(Way::Plain(sink))?,
            Encoding::Bsdiff => {
                let old = old.ok_or(ApplyError::NoOldImage)?;
                let patch = BsPatch::new(old, task.old_length, task.new_length, sink);
                zstd(Way::Patch(Box::new(patch)))?
            }
            Encoding::Quick | Encoding::Dense => {
                let engine = Engine::new(Ground {
                    old: old.ok_or(ApplyError::NoOldImage)?,
                    old_length: task.old_length,
                    new_length: task.new_length,
                    memory: task.max_memory,
                    scratch: task.scratch,
                })?;
                Stream::Plain(Way::Engine(Box::new(engine), sink))
            }
        };
        Ok(Self { stream })
    }

    /// Sets a file for [`Manifest::scratch`] bytes, which is overwritten.
    pub fn set_scratch(&mut self, file: &'a File) {
        if let Stream::Plain(Way::Engine(engine, _)) = &mut self.stream {
            engine.set_file(file);
        }
    }

    /// Decodes the next bytes of the payload.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        match &mut self.stream {
            Stream::Plain(way) => way.push(bytes),
            Stream::Zstd(decoder) => {
                let pushed = decoder.write_all(bytes);
                pushed.map_err(|e| cause(decoder, e))
            }
        }
    }

    /// Ends the payload: everything of it is decoded. Returns whether it ended where it may.
    pub fn finish(&mut self) -> Result<(), ApplyError> {
        let way = match &mut self.stream {
            Stream::Plain(way) => way,
            Stream::Zstd(decoder) => {
                let flushed = decoder.flush();
                flushed.map_err(|e| cause(decoder, e))?;
                &mut decoder.get_mut().way
            }
        };
        match way {
            Way::Plain(_) => Ok(()),
            Way::Patch(patch) => patch.finish(),
            Way::Engine(engine, _) => engine.finish(),
        }
    }

    /// Returns the sink.
    pub fn sink(&mut self) -> &mut S {
        match &mut self.stream {
            Stream::Plain(way) => way.sink(),
            Stream::Zstd(decoder) => decoder.get_mut().way.sink(),
        }
    }

    /// Ends decoding and returns the sink.
    pub fn into_sink(self) -> S {
        let way = match self.stream {
            Stream::Plain(way) => way,
            Stream::Zstd(decoder) => decoder.into_inner().way,
        };
        match way {
            Way::Plain(sink) | Way::Engine(_, sink) => sink,
            Way::Patch(patch) => patch.sink,
        }
    }
}

fn cause<S: Sink>(
    decoder: &mut zstd::stream::write::Decoder<'_, Guard<'_, S>>,
    error: io::Error,
) -> ApplyError {
    let kept = decoder.get_mut().error.take();
    kept.unwrap_or(ApplyError::Decompress(error))
}
