//! The device's key: the one in use, the next one, and those of before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate_protocol::Timestamp;
use tidegate_trust::SecretKey;

use super::config::{ConfigError, io_at};
use crate::fs::{Fs, Mode};

const IDENTITY: &str = "identity.pem";
const NEXT_IDENTITY: &str = "identity.next.pem";
/// Start of the name of a key of before; the time follows.
const WAS: &str = "identity.was.";
/// Number of keys of before that are kept for [`KEPT_FOR`]. With all of them young the key is not
/// changed again: a stolen server must not flush the key that the true one knows.
const OLD_KEYS: usize = 4;
/// Time for which a key of before is kept at least.
const KEPT_FOR: Duration = Duration::from_hours(30 * 24);

/// Returns the device's key. It never leaves the device.
pub(crate) fn identity(state: &Path) -> Result<SecretKey, ConfigError> {
    let path = state.join(IDENTITY);
    // Never a new key in its place: the server would not know it, and nobody would see why.
    read_key(&path)?.ok_or(ConfigError::NoIdentity(path))
}

/// Closes keys that others than the agent's user can read, as a copy or a backup may have left them, and
/// says so.
pub(crate) fn close_keys(fs: &dyn Fs, state: &Path) {
    let present = [IDENTITY, NEXT_IDENTITY].map(|name| state.join(name));
    let before = old_keys(state).into_iter().map(|(_, path)| path);
    for path in present.into_iter().chain(before) {
        let mode = fs.mode(&path).ok().flatten();
        let Some(mode) = mode.filter(|mode| mode & 0o077 != 0) else {
            continue;
        };
        let closed = match fs.set_mode(&path, 0o600) {
            Ok(()) => "closed now".to_owned(),
            Err(error) => format!("it cannot be closed: {error}"),
        };
        crate::log::line(&format!(
            "{}: others could read this key of the device (mode {:o}); {closed}. If somebody may have, \
             change it: tidegate-agent new-key",
            path.display(),
            mode & 0o777
        ));
    }
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

/// Returns the key that will replace the identity, generated if there is none yet and the present one
/// can be kept beside those of before.
pub(crate) fn next_identity(
    fs: &dyn Fs,
    state: &Path,
    now: Timestamp,
) -> Result<SecretKey, ConfigError> {
    if !has_next_identity(state) && !has_room(state, now) {
        return Err(ConfigError::KeyChanges);
    }
    read_or_make(fs, &state.join(NEXT_IDENTITY))
}

/// Returns whether a key rotation is in progress.
pub(crate) fn has_next_identity(state: &Path) -> bool {
    state.join(NEXT_IDENTITY).exists()
}

/// Replaces the identity with the next key, which the server knows already. The present key is kept
/// first: who took the change may not have been the true server, or may lose it with its database.
pub(crate) fn take_next_identity(
    fs: &dyn Fs,
    state: &Path,
    now: Timestamp,
) -> Result<(), ConfigError> {
    let key = identity(state)?;
    for (at, path) in old_keys(state) {
        if is_over(at, now) {
            fs.remove_if_there(&path).map_err(io_at(&path))?;
        }
    }
    let is_kept = |old: SecretKey| old.public() == key.public();
    if !old_identities(state).into_iter().any(is_kept) {
        let kept = old_keys(state);
        let mut at = Timestamp::from_secs(now.as_secs());
        while kept.iter().any(|(other, _)| *other == at) {
            at = at.plus(Duration::from_secs(1));
        }
        write_key(fs, &state.join(format!("{WAS}{}.pem", at.as_secs())), &key)?;
    }
    let path = state.join(NEXT_IDENTITY);
    fs.rename(&path, &state.join(IDENTITY))
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

/// Returns the keys of before that the device still has, oldest first.
pub(crate) fn old_identities(state: &Path) -> Vec<SecretKey> {
    let kept = old_keys(state).into_iter();
    kept.filter_map(|(_, path)| read_key(&path).ok()?).collect()
}

/// Returns whether the key in use can be kept beside those of before.
pub(crate) fn has_room(state: &Path, now: Timestamp) -> bool {
    let kept = old_keys(state);
    kept.iter().filter(|(at, _)| !is_over(*at, now)).count() < OLD_KEYS
}

/// Lists the keys of before with the time at which they were replaced. It is part of the name: a
/// copy or a backup would change the time of the file.
fn old_keys(state: &Path) -> Vec<(Timestamp, PathBuf)> {
    let found = fs::read_dir(state).into_iter().flatten().flatten();
    let mut kept: Vec<_> = found
        .filter_map(|file| {
            let name = file.file_name();
            let at = name.to_str()?.strip_prefix(WAS)?.strip_suffix(".pem")?;
            Some((Timestamp::from_secs(at.parse().ok()?), file.path()))
        })
        .collect();
    kept.sort();
    kept
}

/// Returns whether a key of before was kept for long enough. A clock that was set back ends nothing.
fn is_over(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) > KEPT_FOR
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
        let start = Timestamp::from_secs(1_800_000_000);
        let mut changes = 0;
        // In one second: none takes the place of another.
        while next_identity(&*system, state, start).is_ok() {
            take_next_identity(&*system, state, start).unwrap();
            changes += 1;
        }
        assert_eq!(changes, OLD_KEYS);
        let refused = next_identity(&*system, state, start).unwrap_err();
        assert!(refused.to_string().contains("30 days"), "{refused}");
        let kept = old_identities(state);
        assert_eq!(kept.len(), OLD_KEYS);
        assert_eq!(kept[0].public(), first);
        // Back to the first: the present one becomes the next, to be announced again, though there is
        // no room for one more.
        let present = identity(state).unwrap().public();
        put_back_identity(&*system, state, &kept[0]).unwrap();
        assert_eq!(identity(state).unwrap().public(), first);
        let next = next_identity(&*system, state, start).unwrap();
        assert_eq!(next.public(), present);
        take_next_identity(&*system, state, start).unwrap();
        assert_eq!(old_identities(state).len(), OLD_KEYS);
        // A clock that was set back ends nothing; after a month there is room again.
        assert!(!has_room(state, Timestamp::from_secs(0)));
        let later = start.plus(KEPT_FOR + Duration::from_secs(OLD_KEYS as u64));
        assert!(has_room(state, later));
        next_identity(&*system, state, later).unwrap();
        take_next_identity(&*system, state, later).unwrap();
        assert!(
            old_identities(state)
                .iter()
                .all(|key| key.public() != first)
        );
    }
}
