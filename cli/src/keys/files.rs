//! Reading and writing the files of a keys folder.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::error::CliError;

/// Writes a file atomically, readable by its owner only; creates its folder.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let failed = |e: std::io::Error| CliError::Failed(format!("{}: {e}", path.display()));
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    make_private_dir(dir)?;
    // Temporary files are private from the start.
    let mut file = tempfile::NamedTempFile::new_in(dir).map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.as_file().sync_all())
        .map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

/// Creates a folder, and those above it that are missing, accessible to their owner only.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), CliError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::DirBuilderExt as _;
        builder.mode(0o700);
    }
    builder
        .create(path)
        .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))
}

/// Returns the mode of a file that other users of this machine may read or write; `None` for a
/// private one, and on systems without modes.
pub(crate) fn open_mode(path: &Path) -> Option<u32> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = fs::metadata(path).ok()?.permissions().mode() & 0o777;
        (mode & 0o077 != 0).then_some(mode)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

pub(crate) fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, CliError> {
    match read_bounded(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(CliError::Failed(format!("{}: {e}", path.display()))),
    }
}

/// Largest file of keys, drafts or reports that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// Reads a file that others may have sent; refuses one larger than any that is exchanged, and what has no
/// end or keeps its reader waiting, like a device or a pipe.
pub(crate) fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, Read as _};
    if !fs::metadata(path)?.is_file() {
        return Err(Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(LARGEST + 1)
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(Error::other("too large: more than 1 MiB"));
    }
    Ok(bytes)
}

/// Deletes a draft; returns whether there was one.
pub(crate) fn drop_draft(dir: &Path, role: &str) -> Result<bool, CliError> {
    let path = dir.join("drafts").join(format!("{role}.json"));
    let mut gone = false;
    for path in [path.with_extension("txt"), path] {
        match fs::remove_file(&path) {
            Ok(()) => gone = true,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(gone)
}
