//! The named pipe of local control.

use std::fs::File;
use std::io;
use std::path::Path;

use tokio::net::windows::named_pipe::{NamedPipeServer, ServerOptions};

/// Derives a name from the path: pipes do not live in folders.
fn name(at: &Path) -> String {
    let id = tidegate_delta::sha256(at.to_string_lossy().to_lowercase().as_bytes());
    format!(r"\\.\pipe\tidegate-agent-{id}")
}

fn make(at: &Path, first: bool) -> io::Result<NamedPipeServer> {
    ServerOptions::new()
        .first_pipe_instance(first)
        .reject_remote_clients(true)
        .create(name(at))
}

/// The default rights of a pipe let administrators and its owner write, everybody else read.
pub(super) fn open(at: &Path, _: Option<&str>) -> io::Result<NamedPipeServer> {
    make(at, true)
}

pub(super) async fn next(door: &mut NamedPipeServer, at: &Path) -> io::Result<NamedPipeServer> {
    door.connect().await?;
    Ok(std::mem::replace(door, make(at, false)?))
}

pub(super) fn knock(at: &Path) -> io::Result<File> {
    File::options().read(true).write(true).open(name(at))
}
