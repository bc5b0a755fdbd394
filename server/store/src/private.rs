//! Access rights of SQLite's files: they hold the private online keys.
//!
//! Nothing is left to the umask: the file is created with its mode, and SQLite gives its journal and
//! its shared memory the mode of the file. So the file has to be private *before* SQLite opens it.

use std::io;
use std::path::{Path, PathBuf};

/// First bytes of every database of SQLite.
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Creates the database file, readable by its owner only, if it is not there; restricts one that
/// others may read. A file that is no database keeps its mode.
pub(super) fn prepare(path: &Path) -> io::Result<()> {
    if path.as_os_str() == ":memory:" {
        return Ok(());
    }
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_file() => {
            return Err(io::Error::other("it is not a regular file"));
        }
        Ok(_) if is_database(path)? => return restrict(path),
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

/// Claims a SQLite database for one server, until the returned file is dropped; `None` for other engines.
/// Fails with [`io::ErrorKind::WouldBlock`] while another server has it.
pub fn claim(url: &str) -> io::Result<Option<std::fs::File>> {
    let path = url
        .strip_prefix("sqlite:")
        .filter(|path| *path != ":memory:");
    let Some(path) = path else {
        return Ok(None);
    };
    // Not the database itself: SQLite has locks of its own on it.
    let path = path.split('?').next().unwrap_or_default();
    let mut options = std::fs::File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let file = options.open(format!("{path}.lock"))?;
    file.try_lock()?;
    Ok(Some(file))
}

/// Returns whether a file is a database, or still empty as SQLite makes it.
fn is_database(path: &Path) -> io::Result<bool> {
    use std::io::Read as _;
    let mut head = Vec::new();
    std::fs::File::open(path)?
        .take(MAGIC.len() as u64)
        .read_to_end(&mut head)?;
    Ok(head.is_empty() || head == MAGIC)
}

/// Restricts the files of a database to their owner.
fn restrict(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        for name in files(path) {
            let Ok(meta) = std::fs::metadata(&name) else {
                continue;
            };
            let mode = meta.permissions().mode() & 0o777;
            if mode & 0o077 != 0 {
                let private = std::fs::Permissions::from_mode(mode & 0o700);
                std::fs::set_permissions(&name, private).map_err(|e| {
                    let text = format!(
                        "other users can read the keys in {} (mode {mode:o}), and this user cannot correct that",
                        name.display()
                    );
                    io::Error::new(e.kind(), text)
                })?;
                tracing::warn!(
                    file = %name.display(),
                    mode = format!("{mode:o}"),
                    "other users could read the database and the keys in it; its mode has been corrected. If one of them \
                     may have read it, see docs/how-to/recovery.md"
                );
            }
        }
    }
    #[cfg(not(unix))]
    let _ = files(path);
    Ok(())
}

/// Names of the file and of what SQLite keeps beside it.
fn files(path: &Path) -> impl Iterator<Item = PathBuf> {
    ["", "-wal", "-shm", "-journal"].into_iter().map(|suffix| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    })
}
