//! Rights that a decoder is left with, as it finds by trying.
//!
//! The promises of a kernel differ by its version, its build and the container around it. Only trying
//! is true of all of them.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

/// Second argument of a decoder that only tries what it could do.
pub(crate) const ARGUMENT: &str = "try";

/// Longest answer of a decoder, in bytes.
const ANSWER: u64 = 16;

/// Act that a decoder could perform and has no use for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Left {
    /// It opens files.
    Files,
    /// It opens sockets.
    Sockets,
    /// It starts programs.
    Programs,
}

impl Left {
    const ALL: [Self; 3] = [Self::Files, Self::Sockets, Self::Programs];

    /// Letter that stands for it between the two processes.
    fn letter(self) -> u8 {
        match self {
            Self::Files => b'f',
            Self::Sockets => b's',
            Self::Programs => b'p',
        }
    }

    fn succeeds(self, program: &Path) -> bool {
        match self {
            Self::Files => File::open(program).is_ok(),
            Self::Sockets => UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).is_ok(),
            Self::Programs => starts(program),
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Files => "open files",
            Self::Sockets => "open sockets",
            Self::Programs => "start programs",
        })
    }
}

/// Starts a decoder without a task, which ends at once.
fn starts(program: &Path) -> bool {
    let mut command = Command::new(program);
    command.arg(crate::ARGUMENT).stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else {
        return false;
    };
    let _ = child.wait();
    true
}

/// Gives up rights as for a payload, tries each of [`Left`], and says which succeeded.
pub(crate) fn answer() -> ExitCode {
    let program = std::env::current_exe().unwrap_or_default();
    #[cfg(target_os = "linux")]
    crate::rights::give_up();
    let left = Left::ALL.into_iter().filter(|left| left.succeeds(&program));
    let mut letters: Vec<u8> = left.map(Left::letter).collect();
    // So that no answer is not taken for a good one.
    letters.push(b'.');
    ExitCode::from(u8::from(io::stdout().write_all(&letters).is_err()))
}

/// Asks a decoder which of [`Left`] it could do.
pub(crate) fn ask(program: &Path) -> io::Result<Vec<Left>> {
    let mut child = Command::new(program)
        .args([crate::ARGUMENT, ARGUMENT])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut letters = Vec::new();
    let read = match child.stdout.take() {
        Some(out) => out.take(ANSWER).read_to_end(&mut letters),
        None => Ok(0),
    };
    let status = child.wait()?;
    read?;
    if letters.pop() != Some(b'.') {
        return Err(io::Error::other(format!("no answer: {status}")));
    }
    let all = Left::ALL.into_iter();
    Ok(all
        .filter(|left| letters.contains(&left.letter()))
        .collect())
}
