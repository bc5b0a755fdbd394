#![doc = include_str!("../README.md")]

mod bounds;
mod process;
#[cfg(target_os = "linux")]
mod rights;
mod tried;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use tidegate_delta::{Applier, ApplyError, Encoding, Kept, Limits, Manifest, ReadAt, Task, serve};

use process::Process;
pub use tried::Left;

/// First argument of a program that is started as a decoder. The program calls [`decode`] then, and
/// does nothing else before.
pub const ARGUMENT: &str = "decode-payload";

/// Program that is started to decode payloads.
#[derive(Debug, Clone)]
pub struct Program {
    path: PathBuf,
}

/// Images around a payload.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    /// Image that a delta starts from.
    pub old: Option<&'a dyn ReadAt>,
    /// Beginning of the new image, as an earlier apply has left it.
    pub kept: Option<Kept<'a>>,
    /// File for [`Manifest::scratch`] bytes, which is overwritten.
    pub scratch: Option<&'a File>,
}

impl<'a> Around<'a> {
    /// Prepares to apply a payload with a decoder in this process: for payloads of one's own, and for
    /// tests.
    pub fn applier<W: io::Write>(
        self,
        manifest: &'a Manifest,
        out: W,
        limits: &Limits,
    ) -> Result<Applier<'a, W>, ApplyError> {
        let applier = Applier::resuming(manifest, self.old, self.kept, out, limits)?;
        Ok(match self.scratch {
            Some(file) => applier.with_scratch(file),
            None => applier,
        })
    }
}

impl Program {
    /// Chooses a program by its path.
    pub fn at(path: PathBuf) -> Self {
        Self { path }
    }

    /// Chooses this very program, on Linux even if another has taken its place on the disk by now.
    pub fn this() -> Self {
        let running = PathBuf::from("/proc/self/exe");
        if cfg!(target_os = "linux") && running.exists() {
            return Self::at(running);
        }
        // Where the system does not tell, starting it will fail.
        Self::at(std::env::current_exe().unwrap_or_default())
    }

    /// Prepares to apply a payload with a decoder in a process of its own, which ends with the
    /// applier. A payload that needs no decoding gets none.
    pub fn applier<'a, W: io::Write>(
        &self,
        manifest: &'a Manifest,
        around: Around<'a>,
        out: W,
        limits: &Limits,
    ) -> Result<Applier<'a, W>, ApplyError> {
        if manifest.encoding == Encoding::Raw {
            return around.applier(manifest, out, limits);
        }
        let task = Task::new(manifest, limits)?;
        let decoder = Process::start(&self.path, &task, around.old, around.scratch)?;
        Ok(Applier::apart(
            manifest,
            around.kept,
            out,
            Box::new(decoder),
        ))
    }
}

impl Program {
    /// Starts a decoder that tries what no decoder has to do, and returns what it could do: nothing,
    /// where the system can take all rights away.
    pub fn left(&self) -> io::Result<Vec<Left>> {
        tried::ask(&self.path)
    }
}

/// Returns whether these arguments, without the program's name, ask for a decoder.
pub fn is_decoder(mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.next().is_some_and(|first| first == ARGUMENT)
}

/// Decodes one payload: the task and the payload come by standard input, requests and the image go
/// to standard output, and standard error is the scratch file. With [`tried::ARGUMENT`] it only tries
/// what it could do besides.
pub fn decode() -> ExitCode {
    if std::env::args_os()
        .nth(2)
        .is_some_and(|second| second == tried::ARGUMENT)
    {
        return tried::answer();
    }
    let files = || -> io::Result<_> {
        Ok((
            file(&io::stdin())?,
            file(&io::stdout())?,
            file(&io::stderr())?,
        ))
    };
    let decoded =
        files().and_then(|(from, to, scratch)| serve(from, to, Some(&scratch), bounds::set));
    // Nobody is left to be told.
    ExitCode::from(u8::from(decoded.is_err()))
}

#[cfg(unix)]
fn file(stream: &impl std::os::fd::AsFd) -> io::Result<File> {
    stream.as_fd().try_clone_to_owned().map(File::from)
}

#[cfg(windows)]
fn file(stream: &impl std::os::windows::io::AsHandle) -> io::Result<File> {
    stream.as_handle().try_clone_to_owned().map(File::from)
}
