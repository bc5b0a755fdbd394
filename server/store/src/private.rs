//! Access rights of SQLite's files: they hold the private online keys.

use std::io;
use std::path::Path;

/// Creates the database file, readable by its owner only, if it is not there. SQLite gives its
/// journal and its shared memory the mode of this file.
pub(super) fn create(path: &Path) -> io::Result<()> {
    if path.as_os_str() == ":memory:" {
        return Ok(());
    }
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    options.open(path).map(drop)
}

/// Restricts the files of an opened database to their owner.
pub(super) fn restrict(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        if path.as_os_str() == ":memory:" {
            return Ok(());
        }
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
