//! The device's key: the one in use, the next one, and those of before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tidegate_trust::SecretKey;

use super::config::{ConfigError, io_at};
use crate::fs::{Fs, Mode};

const IDENTITY: &str = "identity.pem";
const NEXT_IDENTITY: &str = "identity.next.pem";
/// Number of keys of before that are kept at a time. With all places taken the key is not changed: a
/// stolen server must not flush the key that the true one knows.
const OLD_KEYS: u8 = 4;
/// Time for which a key of before is kept.
const KEPT_FOR: Duration = Duration::from_hours(30 * 24);

/// Returns the device's key, generated on first use. It never leaves the device.
pub(crate) fn identity(state: &Path) -> Result<SecretKey, ConfigError> {
    let path = state.join(IDENTITY);
    // Never a new key in its place: the server would not know it, and nobody would see why.
    read_key(&path)?.ok_or(ConfigError::NoIdentity(path))
}

/// Returns the device's key for enrolling it, generated if there is none yet.
pub(crate) fn new_identity(fs: &dyn Fs, state: &Path) -> Result<SecretKey, ConfigError> {
    read_or_make(fs, &state.join(IDENTITY))
}

fn malformed(path: &Path) -> impl FnOnce(tidegate_trust::KeyError) -> ConfigError + '_ {
    move |e| ConfigError::Malformed {
        path: path.to_owned(),
        what: e.to_string(),
    }
}

fn read_key(path: &Path) -> Result<Option<SecretKey>, ConfigError> {
    match std::fs::read_to_string(path) {
        Ok(pem) => SecretKey::from_pem(&pem).map(Some).map_err(malformed(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io_at(path)(e)),
    }
}

fn read_or_make(fs: &dyn Fs, path: &Path) -> Result<SecretKey, ConfigError> {
    if let Some(key) = read_key(path)? {
        return Ok(key);
    }
    let key = SecretKey::from_seed(rand::random());
    write_key(fs, path, &key)?;
    Ok(key)
}

/// Returns the key that will replace the identity, generated if there is none yet.
pub(crate) fn next_identity(fs: &dyn Fs, state: &Path) -> Result<SecretKey, ConfigError> {
    read_or_make(fs, &state.join(NEXT_IDENTITY))
}

/// Returns whether a key rotation is in progress.
pub(crate) fn has_next_identity(state: &Path) -> bool {
    state.join(NEXT_IDENTITY).exists()
}

/// Replaces the identity with the next key, which the server knows already. The key of before is kept:
/// who took the change may not have been the true server, or may lose it with its database.
pub(crate) fn take_next_identity(fs: &dyn Fs, state: &Path) -> Result<(), ConfigError> {
    let (path, now) = (state.join(NEXT_IDENTITY), state.join(IDENTITY));
    keep_identity(fs, state)?;
    fs.rename(&path, &now)
        .and_then(|()| fs.sync_dir(state))
        .map_err(io_at(&path))
}

/// Goes back to a key of before, and makes the present one the next, to be announced again.
pub(crate) fn put_back_identity(
    fs: &dyn Fs,
    state: &Path,
    old: &SecretKey,
) -> Result<(), ConfigError> {
    let (path, next) = (state.join(IDENTITY), state.join(NEXT_IDENTITY));
    if !next.exists() {
        write_key(fs, &next, &identity(state)?)?;
    }
    write_key(fs, &path, old)
}

/// Removes the next key: it is the present one.
pub(crate) fn drop_next_identity(fs: &dyn Fs, state: &Path) -> Result<(), ConfigError> {
    let path = state.join(NEXT_IDENTITY);
    fs.remove_if_there(&path).map_err(io_at(&path))
}

/// Keys of before that the device still has, oldest first.
pub(crate) fn old_identities(state: &Path) -> Vec<SecretKey> {
    let kept = kept_keys(state).filter(|(path, _)| !is_over(path));
    let mut kept: Vec<_> = kept
        .filter_map(|(path, at)| Some((at?, read_key(&path).ok()??)))
        .collect();
    kept.sort_by_key(|(at, _)| *at);
    kept.into_iter().map(|(_, key)| key).collect()
}

/// Returns whether the key may be changed now: the one in use can be kept beside those of before.
pub(crate) fn may_change_identity(state: &Path) -> bool {
    kept_keys(state).any(|(path, at)| at.is_none() || is_over(&path))
}

fn kept_keys(state: &Path) -> impl Iterator<Item = (PathBuf, Option<SystemTime>)> + '_ {
    (1..=OLD_KEYS).map(|n| {
        let path = state.join(format!("identity.was.{n}.pem"));
        let at = fs::metadata(&path).and_then(|found| found.modified()).ok();
        (path, at)
    })
}

/// Returns whether a key of before has been kept for long enough. A clock that was set back does not
/// end it.
fn is_over(path: &Path) -> bool {
    let at = fs::metadata(path).and_then(|found| found.modified());
    at.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > KEPT_FOR))
}

fn keep_identity(fs: &dyn Fs, state: &Path) -> Result<(), ConfigError> {
    let key = identity(state)?;
    if old_identities(state)
        .iter()
        .any(|old| old.public() == key.public())
    {
        return Ok(());
    }
    let free = kept_keys(state).find(|(path, at)| at.is_none() || is_over(path));
    // The caller has asked whether there is a place.
    free.map_or(Ok(()), |(path, _)| write_key(fs, &path, &key))
}

fn write_key(fs: &dyn Fs, path: &Path, key: &SecretKey) -> Result<(), ConfigError> {
    let pem = key.to_pem().map_err(malformed(path))?;
    fs.replace(path, pem.as_bytes(), Mode::Private)
        .map_err(io_at(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_that_is_gone_is_an_error_and_no_new_one_takes_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let gone = identity(dir.path()).unwrap_err();
        assert!(matches!(gone, ConfigError::NoIdentity(_)), "{gone}");
        assert!(!dir.path().join(IDENTITY).exists());
        let system = crate::fs::system();
        let made = new_identity(&*system, dir.path()).unwrap();
        assert_eq!(identity(dir.path()).unwrap().public(), made.public());
    }

    #[test]
    fn a102_a_key_that_was_changed_is_kept_for_a_month_and_cannot_be_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let (system, state) = (crate::fs::system(), dir.path());
        let first = new_identity(&*system, state).unwrap().public();
        let mut changes = 0;
        while may_change_identity(state) && changes < 20 {
            next_identity(&*system, state).unwrap();
            take_next_identity(&*system, state).unwrap();
            changes += 1;
        }
        assert_eq!(changes, usize::from(OLD_KEYS));
        let kept = old_identities(state);
        assert_eq!(kept.len(), usize::from(OLD_KEYS));
        assert_eq!(kept.iter().filter(|key| key.public() == first).count(), 1);
        // Back to the first: the present one becomes the next, to be announced again.
        let present = identity(state).unwrap().public();
        let old = kept.iter().find(|key| key.public() == first).unwrap();
        put_back_identity(&*system, state, old).unwrap();
        assert_eq!(identity(state).unwrap().public(), first);
        assert_eq!(next_identity(&*system, state).unwrap().public(), present);
        // After a month a place is free again.
        let long_ago = SystemTime::now() - KEPT_FOR - Duration::from_secs(1);
        let path = state.join("identity.was.1.pem");
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(long_ago).unwrap();
        assert!(may_change_identity(state));
        assert_eq!(old_identities(state).len(), usize::from(OLD_KEYS) - 1);
    }
}
