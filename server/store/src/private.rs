//! Access rights of SQLite's files.

use std::path::Path;

/// Restricts SQLite's files to their owner: they hold the private online keys. The journal and the
/// shared memory file get the mode of the database file.
pub(super) fn make_private(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
        if path.as_os_str() == ":memory:" {
            return Ok(());
        }
        let mut options = std::fs::File::options();
        options.write(true).create(true).truncate(false).mode(0o600);
        options.open(path)?;
        for suffix in ["", "-wal", "-shm"] {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            let Ok(meta) = std::fs::metadata(&name) else {
                continue;
            };
            let mode = meta.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                let private = std::fs::Permissions::from_mode(mode & 0o700);
                std::fs::set_permissions(&name, private)?;
                tracing::warn!(
                    file = %Path::new(&name).display(),
                    mode = format!("{mode:o}"),
                    "other users could read the database and the keys in it; its mode has been corrected"
                );
            }
        }
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}
