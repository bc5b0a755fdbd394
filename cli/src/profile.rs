//! Profile that `tidegate login` saves.

use std::path::PathBuf;

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
}

fn path() -> Option<PathBuf> {
    let strategy = choose_base_strategy().ok()?;
    Some(strategy.config_dir().join("tidegate").join("profile.toml"))
}

impl Profile {
    /// Loads the profile; empty if there is none or it cannot be read.
    pub(crate) fn load() -> Self {
        path()
            .and_then(|path| std::fs::read_to_string(path).ok())
            .and_then(|text| toml::from_str(&text).ok())
            .unwrap_or_default()
    }

    /// Saves the profile, readable by its owner only; returns the file's path.
    pub(crate) fn save(&self) -> Result<PathBuf, CliError> {
        let path = path().ok_or_else(|| CliError::Failed("no home folder found".into()))?;
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let text = toml::to_string(self).map_err(|e| CliError::failed("the profile", &e))?;
        crate::keys::write_private(&path, text.as_bytes())?;
        Ok(path)
    }
}
