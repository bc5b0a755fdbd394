//! Lock that lets one command at a time use a keys folder.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::error::CliError;

const NAME: &str = ".lock";

/// Locks that this process holds. A command opens its folder several times, even nested: the lock
/// only excludes other processes.
static HELD: Mutex<BTreeMap<PathBuf, Weak<File>>> = Mutex::new(BTreeMap::new());

/// Waits until no other process uses the folder, and locks it until the last handle is dropped.
/// `None` where nothing can be written: the folder does not exist yet, or is read-only.
pub(super) fn hold(dir: &Path) -> Result<Option<Arc<File>>, CliError> {
    let Ok(dir) = dir.canonicalize() else {
        return Ok(None);
    };
    let mut held = HELD.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(lock) = held.get(&dir).and_then(Weak::upgrade) {
        return Ok(Some(lock));
    }
    let lock = take(&dir)?.map(Arc::new);
    if let Some(lock) = &lock {
        held.insert(dir, Arc::downgrade(lock));
    }
    Ok(lock)
}

fn take(dir: &Path) -> Result<Option<File>, CliError> {
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = match options.open(dir.join(NAME)) {
        Ok(file) => file,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            return Ok(None);
        }
        Err(error) => {
            let text = format!("{}: {error}", dir.join(NAME).display());
            return Err(CliError::Failed(text));
        }
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            crate::output::complain(&format!(
                "waiting for another tidegate command that uses {}",
                dir.display()
            ));
            file.lock()
                .map_err(|e| CliError::failed("locking the keys folder", &e))?;
            Ok(Some(file))
        }
        // The file system has no locks: go on without one.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_opens_its_folder_as_often_as_it_likes_and_others_are_kept_out() {
        let dir = tempfile::tempdir().unwrap();
        let first = hold(dir.path()).unwrap().unwrap();
        let second = hold(dir.path()).unwrap().unwrap();
        let other = File::open(dir.path().join(NAME)).unwrap();
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(first);
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(second);
        other.try_lock().unwrap();
    }

    #[test]
    fn a_folder_that_is_not_there_needs_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        assert!(hold(&dir.path().join("none")).unwrap().is_none());
    }
}
