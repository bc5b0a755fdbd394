//! One command at a time in a folder of keys.

use std::fs::{File, TryLockError};
use std::io::ErrorKind;
use std::path::Path;

use crate::error::CliError;

const NAME: &str = ".lock";

/// Waits until no other command uses the folder, and keeps the others out until the file is dropped.
/// `None` where nothing can be written: a folder that is not there yet, or a medium that is only read.
pub(super) fn hold(dir: &Path) -> Result<Option<File>, CliError> {
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
                "waits for another tidegate command that uses {}",
                dir.display()
            ));
            file.lock()
                .map_err(|e| CliError::failed("locking the keys folder", &e))?;
            Ok(Some(file))
        }
        // A file system that knows no locks: as before there were any.
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_command_waits_until_the_first_one_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let first = hold(dir.path()).unwrap().unwrap();
        let path = dir.path().to_owned();
        let (done, waits) = std::sync::mpsc::channel();
        let second = std::thread::spawn(move || {
            let held = hold(&path).unwrap();
            done.send(()).unwrap();
            held.is_some()
        });
        // Nothing to be told by here: it must not have it while we do.
        assert!(waits.try_recv().is_err());
        drop(first);
        waits.recv().unwrap();
        assert!(second.join().unwrap());
    }

    #[test]
    fn a_folder_that_is_not_there_needs_no_lock() {
        let dir = tempfile::tempdir().unwrap();
        assert!(hold(&dir.path().join("none")).unwrap().is_none());
    }
}
