//! File system of the agent, so that a power cut can be tried between any two operations.
//!
//! [`Real`] is the machine's. In a debug build it can be told to kill the process before the N-th
//! operation ([`system`]). Tests use a simulated one, which models what a power cut may leave of
//! unsynced data, and one that stops at an operation.

mod aside;
#[cfg(unix)]
mod attributes;
mod crashing;
mod held;
pub mod journal;
mod mend;
mod real;
#[cfg(test)]
pub(crate) mod sim;
mod tree;

use std::io::{self, Read, Write};
use std::sync::Arc;

pub(crate) use aside::Aside;
#[cfg(any(test, debug_assertions))]
pub(crate) use crashing::Crashing;
pub(crate) use held::is_held;
pub(crate) use mend::Mended;
pub use real::Real;
pub use tidegate_machine::fs::{Fs, FsFile, Kind, Mode, Open, io_reason, is_momentary, no_file};
pub(crate) use tree::{Compared, TreeAt};

/// The machine's file system. In a debug build, `TIDEGATE_CRASH_AT=N` kills the process with
/// SIGKILL before its N-th operation that changes something: no destructor runs, no buffer is
/// flushed. A release build has no such code.
pub fn system() -> Arc<dyn Fs> {
    #[cfg(all(debug_assertions, unix))]
    if let Some(at) = std::env::var("TIDEGATE_CRASH_AT")
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
    {
        return Arc::new(Crashing::new(Real, move |number, what, path| {
            if number == at {
                crashing::kill(at, what, path);
            }
            Ok(true)
        }));
    }
    Arc::new(Real)
}

/// Sequential reader of a file from an offset.
pub(crate) struct Sequential<'a> {
    pub(crate) file: &'a dyn FsFile,
    pub(crate) at: u64,
    pub(crate) end: u64,
}

impl<'a> Sequential<'a> {
    /// Reads a file from its start to its end.
    pub(crate) fn whole(file: &'a dyn FsFile, length: u64) -> Self {
        Self {
            file,
            at: 0,
            end: length,
        }
    }
}

impl Read for Sequential<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        let take = buf.len().min(left);
        self.file.read_exact_at(&mut buf[..take], self.at)?;
        self.at += take as u64;
        Ok(take)
    }
}

/// Sequential writer to a file; [`Write::flush`] makes what was written durable.
pub(crate) struct Appending<'a> {
    pub(crate) file: &'a dyn FsFile,
    pub(crate) at: u64,
}

impl Write for Appending<'_> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file.append(buf, self.at)?;
        self.at += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.sync()
    }
}
