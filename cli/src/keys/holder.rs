//! Holders: people with their private keys, and the public files that they hand on.

use std::fs;
use std::path::{Path, PathBuf};

use pkcs8::der::zeroize::Zeroizing;
use tidegate_trust::{Holder, KeyError, MlDsaSecret, RoleSigner, SecretKey};

use super::files::make_private_dir;
use super::secret::{self, Unlock};
use super::token::TokenPlace;
use super::{trust, write_private};
use crate::error::CliError;

/// Algorithms that a new holder signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Profile {
    /// Ed25519 and ML-DSA-65: a forger has to break both.
    #[default]
    Hybrid,
    /// Ed25519 alone, for clients that cannot read ML-DSA.
    Ed25519,
}

/// A holder whose private keys are unlocked.
pub(crate) struct Keyring {
    pub(crate) holder: Holder,
    signers: Vec<Box<dyn RoleSigner>>,
}

impl Keyring {
    pub(crate) fn signers(&self) -> Vec<&dyn RoleSigner> {
        self.signers.iter().map(AsRef::as_ref).collect()
    }
}

fn key_error(error: &KeyError) -> CliError {
    CliError::Failed(error.to_string())
}

fn private_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("private").join(format!("{name}.pem"))
}

fn token_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("private").join(format!("{name}.token.json"))
}

/// Path of a holder's public file.
pub(crate) fn public_path(dir: &Path, name: &str) -> PathBuf {
    dir.join("holders").join(format!("{name}.json"))
}

/// Creates a holder's keys and public file; never overwrites existing ones.
pub(crate) fn make(
    dir: &Path,
    name: &str,
    profile: Profile,
    token: Option<TokenPlace>,
    unlock: &Unlock,
) -> Result<Holder, CliError> {
    if public_path(dir, name).exists() || is_here(dir, name) {
        return Err(CliError::Hinted(
            format!("{} already holds keys of {name}", dir.display()),
            "choose another name; replace an old key with ".into(),
        ));
    }
    // A bad name is refused before anything is created.
    let probe = SecretKey::from_seed(rand::random());
    Holder::new(name, vec![probe.role_key()]).map_err(|e| trust(&e))?;
    for sub in ["private", "holders"] {
        make_private_dir(&dir.join(sub))?;
    }
    let mut signers: Vec<Box<dyn RoleSigner>> = Vec::new();
    let mut pems = Vec::new();
    if let Some(place) = token {
        let place = place.make()?;
        let text = serde_json::to_vec_pretty(&place)
            .map_err(|e| CliError::failed("writing the token's location", &e))?;
        write_private(&token_path(dir, name), &text)?;
        signers.push(Box::new(place.open()?));
    } else {
        let key = SecretKey::from_seed(rand::random());
        pems.push(Zeroizing::new(key.to_pem().map_err(|e| key_error(&e))?));
        signers.push(Box::new(key));
    }
    if profile == Profile::Hybrid {
        let key = MlDsaSecret::from_seed(rand::random());
        pems.push(Zeroizing::new(key.to_pem().map_err(|e| key_error(&e))?));
        signers.push(Box::new(key));
    }
    if !pems.is_empty() {
        let passphrase = unlock.new_passphrase(name)?;
        let text = secret::seal(&pems, passphrase.as_ref().map(|p| p.as_str()))?;
        write_private(&private_path(dir, name), text.as_bytes())?;
    }
    let keys = signers.iter().map(|s| s.role_key()).collect();
    let holder = Holder::new(name, keys).map_err(|e| trust(&e))?;
    let open: Vec<&dyn RoleSigner> = signers.iter().map(AsRef::as_ref).collect();
    let file = holder.to_file(&open).map_err(|e| trust(&e))?;
    write_private(&public_path(dir, name), &file)?;
    Ok(holder)
}

/// Returns whether a holder's private keys are in this folder, or in a token that it names.
pub(crate) fn is_here(dir: &Path, name: &str) -> bool {
    private_path(dir, name).exists() || token_path(dir, name).exists()
}

/// Returns whether a holder's private keys are written in the clear.
pub(crate) fn lies_open(dir: &Path, name: &str) -> Result<bool, CliError> {
    let text = super::read_if_there(&private_path(dir, name))?.unwrap_or_default();
    Ok(String::from_utf8_lossy(&text).contains("BEGIN PRIVATE KEY"))
}

/// Returns whether others on this machine may read a holder's private keys.
pub(crate) fn others_may_read(dir: &Path, name: &str) -> bool {
    super::open_mode(&private_path(dir, name)).is_some()
}

/// Returns the names of the holders whose private keys are here.
pub(crate) fn all_here(dir: &Path) -> Result<Vec<String>, CliError> {
    let entries = match fs::read_dir(dir.join("private")) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry?.file_name().to_string_lossy().into_owned();
        let name = file
            .strip_suffix(".token.json")
            .or_else(|| file.strip_suffix(".pem"));
        names.extend(name.map(str::to_owned));
    }
    names.sort();
    names.dedup();
    Ok(names)
}

/// Reads a public file.
pub(crate) fn read_public(path: &Path) -> Result<Holder, CliError> {
    let bytes = super::read_bounded(path)
        .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?;
    Holder::from_file(&bytes).map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))
}

/// Unlocks a holder's private keys.
pub(crate) fn open(dir: &Path, name: &str, unlock: &Unlock) -> Result<Keyring, CliError> {
    let mut signers: Vec<Box<dyn RoleSigner>> = Vec::new();
    let token = token_path(dir, name);
    if token.exists() {
        let text = fs::read_to_string(&token)?;
        let place: TokenPlace = serde_json::from_str(&text)
            .map_err(|e| CliError::Failed(format!("{}: {e}", token.display())))?;
        signers.push(Box::new(place.open()?));
    }
    let path = private_path(dir, name);
    if path.exists() {
        signers.extend(secret::open(&path, name, unlock)?);
    }
    if signers.is_empty() {
        return Err(CliError::Hinted(
            format!("{} holds no private key of {name}", dir.display()),
            "run this on their machine, or name another holder with --as".into(),
        ));
    }
    let keys = signers.iter().map(|s| s.role_key()).collect();
    let holder = Holder::new(name, keys).map_err(|e| trust(&e))?;
    Ok(Keyring { holder, signers })
}
