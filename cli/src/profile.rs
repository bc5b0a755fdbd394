//! Profile that `tidegate login` saves.

use std::path::{Path, PathBuf};

use etcetera::{BaseStrategy as _, choose_base_strategy};
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// The saved server.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Profile {
    pub(crate) server: Option<String>,
    pub(crate) token: Option<String>,
    #[serde(default)]
    pub(crate) ca_file: Option<PathBuf>,
    /// Whether the token may go to this server over plain HTTP.
    #[serde(default)]
    pub(crate) allow_plain_http: bool,
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::Hinted(
        format!("the profile {} cannot be read: {error}", path.display()),
        "log in again: tidegate login URL --token-file FILE; or delete the file".into(),
    )
}

/// Path of the profile; `None` without a home folder.
pub(crate) fn path() -> Option<PathBuf> {
    let strategy = choose_base_strategy().ok()?;
    Some(strategy.config_dir().join("tidegate").join("profile.toml"))
}

impl Profile {
    /// Loads the profile; empty if there is none. One that cannot be read is an error: without it
    /// a command would go to another server than the one that was logged in to.
    pub(crate) fn load() -> Result<Self, CliError> {
        let Some(path) = path() else {
            return Ok(Self::default());
        };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(unreadable(&path, &error)),
        };
        // Not the error itself: it quotes the line, and the token may be on it.
        let profile: Self = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start));
            let line = before.map_or(1, |before| before.lines().count().max(1));
            unreadable(&path, &format!("line {line}: {}", error.message()))
        })?;
        if profile.server.is_none() {
            return Err(unreadable(&path, &"it names no server"));
        }
        Ok(profile)
    }

    /// Saves the profile, readable by its owner only; returns the file's path.
    pub(crate) fn save(&self) -> Result<PathBuf, CliError> {
        let path = path().ok_or_else(|| CliError::Failed("no home folder found".into()))?;
        let text = toml::to_string(self).map_err(|e| CliError::failed("the profile", &e))?;
        crate::keys::write_private(&path, text.as_bytes())?;
        Ok(path)
    }
}
