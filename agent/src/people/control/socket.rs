//! The socket of local control, in the agent's folder.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

use super::PATIENCE;
use crate::host::platform;

/// Binds under a random name and renames it once its mode and group are set.
pub(super) fn open(at: &Path, group: Option<&str>) -> io::Result<UnixListener> {
    let name = format!(".c{:x}", rand::random::<u32>());
    let hidden = at.with_file_name(name);
    let listener = UnixListener::bind(&hidden)?;
    let ready = || {
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(&hidden, PermissionsExt::from_mode(mode))?;
        if let Some(group) = group {
            let id = platform::group_id(group)?;
            std::os::unix::fs::chown(&hidden, None, Some(id))?;
        }
        std::fs::rename(&hidden, at)
    };
    ready().inspect_err(|_| {
        let _ = std::fs::remove_file(&hidden);
    })?;
    Ok(listener)
}

pub(super) async fn next(door: &mut UnixListener, _: &Path) -> io::Result<UnixStream> {
    door.accept().await.map(|(stream, _)| stream)
}

pub(super) fn knock(at: &Path) -> io::Result<std::os::unix::net::UnixStream> {
    let stream = std::os::unix::net::UnixStream::connect(at)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
