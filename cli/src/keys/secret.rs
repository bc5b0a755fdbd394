//! Private keys at rest: PKCS#8, encrypted with a passphrase (PBES2: scrypt, AES-256-CBC), one PEM
//! block per key.

use std::path::{Path, PathBuf};

use pkcs8::der::pem::LineEnding;
use pkcs8::der::zeroize::Zeroizing;
use pkcs8::pkcs5::{pbes2, scrypt};
use pkcs8::{EncryptedPrivateKeyInfoRef, PrivateKeyInfoRef, SecretDocument};
use tidegate_trust::{MlDsaSecret, RoleSigner, SecretKey};

use crate::error::CliError;

/// Shortest passphrase, in characters.
const SHORTEST: usize = 12;
/// Cost of a guess: scrypt with N = 2^17, r = 8, p = 1 takes 128 MiB and some tenths of a second
/// (OWASP's password storage recommendations, the strongest of its settings for scrypt).
const COST: (u8, u32, u32) = (17, 8, 1);

/// Source of a passphrase: a file, the environment, or the person at the terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unlock {
    pub(crate) file: Option<PathBuf>,
    pub(crate) text: Option<String>,
    /// Whether new keys are written in the clear; only for machines that sign unattended.
    pub(crate) none: bool,
}

impl Unlock {
    /// Returns the passphrase for a new key; `None` if it is to be stored in the clear.
    pub(crate) fn new_passphrase(&self, name: &str) -> Result<Option<Zeroizing<String>>, CliError> {
        if self.none {
            return Ok(None);
        }
        if let Some(given) = self.given()? {
            return check(given).map(Some);
        }
        let first = prompt(&format!("Passphrase for the new key of {name}: "))?;
        let second = prompt("Again: ")?;
        if *first != *second {
            return Err(CliError::Failed("the two passphrases differ".into()));
        }
        check(first).map(Some)
    }

    /// Returns the passphrase of an existing key.
    fn passphrase(&self, name: &str) -> Result<Zeroizing<String>, CliError> {
        match self.given()? {
            Some(given) => Ok(given),
            None => prompt(&format!("Passphrase of {name}: ")),
        }
    }

    /// Returns a secret that a person would type, for example a token's PIN.
    pub(crate) fn secret(&self, question: &str) -> Result<Zeroizing<String>, CliError> {
        match self.given()? {
            Some(given) => Ok(given),
            None => prompt(question),
        }
    }

    fn given(&self) -> Result<Option<Zeroizing<String>>, CliError> {
        if let Some(path) = &self.file {
            let text = std::fs::read_to_string(path)
                .map_err(|e| CliError::Failed(format!("{}: {e}", path.display())))?;
            let line = text.lines().next().unwrap_or_default().to_owned();
            return Ok(Some(Zeroizing::new(line)));
        }
        Ok(self.text.clone().map(Zeroizing::new))
    }
}

fn check(passphrase: Zeroizing<String>) -> Result<Zeroizing<String>, CliError> {
    if passphrase.chars().count() < SHORTEST {
        return Err(CliError::Hinted(
            format!("the passphrase is too short: at least {SHORTEST} characters"),
            "use six random words; --no-passphrase is for a machine that signs unattended".into(),
        ));
    }
    Ok(passphrase)
}

fn prompt(question: &str) -> Result<Zeroizing<String>, CliError> {
    rpassword::prompt_password(question)
        .map(Zeroizing::new)
        .map_err(|_| {
            CliError::Hinted(
                "there is no terminal to ask for the passphrase".into(),
                "--passphrase-file FILE, TIDEGATE_KEY_PASSPHRASE, or --no-passphrase for new keys"
                    .into(),
            )
        })
}

/// Builds the text of a private key file; encrypts the keys if there is a passphrase.
pub(crate) fn seal(
    pems: &[Zeroizing<String>],
    passphrase: Option<&str>,
) -> Result<Zeroizing<String>, CliError> {
    let failed = |e: &dyn std::fmt::Display| CliError::Failed(format!("sealing the key: {e}"));
    let mut text = Zeroizing::new(String::new());
    for pem in pems {
        let Some(passphrase) = passphrase else {
            text.push_str(pem);
            continue;
        };
        let (_, plain) = SecretDocument::from_pem(pem).map_err(|e| failed(&e))?;
        let (log_n, r, p) = COST;
        let cost = scrypt::Params::new(log_n, r, p).map_err(|e| failed(&e))?;
        let (salt, iv): ([u8; 16], [u8; 16]) = (rand::random(), rand::random());
        let scheme = pbes2::Parameters::generate_scrypt_aes256cbc(cost, &salt, iv);
        let sealed = PrivateKeyInfoRef::try_from(plain.as_bytes())
            .map_err(|e| failed(&e))?
            .encrypt_with_params(scheme.map_err(|e| failed(&e))?, passphrase)
            .map_err(|e| failed(&e))?;
        let block = sealed
            .to_pem("ENCRYPTED PRIVATE KEY", LineEnding::LF)
            .map_err(|e| failed(&e))?;
        text.push_str(&block);
    }
    Ok(text)
}

/// Reads a private key file.
pub(crate) fn open(
    path: &Path,
    name: &str,
    unlock: &Unlock,
) -> Result<Vec<Box<dyn RoleSigner>>, CliError> {
    let bad = |e: &dyn std::fmt::Display| CliError::Failed(format!("{}: {e}", path.display()));
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|e| bad(&e))?);
    let mut passphrase = None;
    let mut signers: Vec<Box<dyn RoleSigner>> = Vec::new();
    for block in blocks(&text) {
        let (label, document) = SecretDocument::from_pem(block).map_err(|e| bad(&e))?;
        let plain = if label == "ENCRYPTED PRIVATE KEY" {
            if passphrase.is_none() {
                passphrase = Some(unlock.passphrase(name)?);
            }
            let sealed =
                EncryptedPrivateKeyInfoRef::try_from(document.as_bytes()).map_err(|e| bad(&e))?;
            sealed
                .decrypt(passphrase.as_ref().map_or("", |p| p.as_str()))
                .map_err(|_| CliError::Failed(format!("the passphrase of {name} is wrong")))?
        } else {
            document
        };
        let pem = plain
            .to_pem("PRIVATE KEY", LineEnding::LF)
            .map_err(|e| bad(&e))?;
        signers.push(match SecretKey::from_pem(&pem) {
            Ok(key) => Box::new(key),
            Err(_) => Box::new(MlDsaSecret::from_pem(&pem).map_err(|e| bad(&e))?),
        });
    }
    if signers.is_empty() {
        return Err(bad(&"the file contains no private key"));
    }
    Ok(signers)
}

/// Splits a text into its PEM blocks.
fn blocks(text: &str) -> impl Iterator<Item = &str> {
    const BEGIN: &str = "-----BEGIN ";
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    (0..starts.len()).map(move |n| {
        let end = starts.get(n + 1).copied().unwrap_or(text.len());
        text[starts[n]..end].trim_end()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unlock(text: &str) -> Unlock {
        Unlock {
            text: Some(text.into()),
            ..Unlock::default()
        }
    }

    #[test]
    fn a_pair_of_keys_is_sealed_and_opened_and_only_with_its_passphrase() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        let (a, b) = (
            SecretKey::from_seed([1; 32]),
            MlDsaSecret::from_seed([1; 32]),
        );
        let pems = [
            Zeroizing::new(a.to_pem().unwrap()),
            Zeroizing::new(b.to_pem().unwrap()),
        ];
        let text = seal(&pems, Some("correct horse")).unwrap();
        assert!(!text.contains("BEGIN PRIVATE KEY"));
        for block in blocks(&text) {
            let (_, sealed) = SecretDocument::from_pem(block).unwrap();
            let sealed = EncryptedPrivateKeyInfoRef::try_from(sealed.as_bytes()).unwrap();
            let scheme = sealed.encryption_algorithm.pbes2().unwrap();
            let cost = scheme.kdf.scrypt().unwrap();
            assert!(cost.cost_parameter >= 1 << 17, "{}", cost.cost_parameter);
        }
        std::fs::write(&path, text.as_str()).unwrap();
        let signers = open(&path, "x", &unlock("correct horse")).unwrap();
        let keys: Vec<_> = signers.iter().map(|s| s.role_key()).collect();
        assert_eq!(keys, [a.role_key(), b.role_key()]);
        let error = open(&path, "x", &unlock("wrong horse")).err().unwrap();
        assert!(error.to_string().contains("passphrase of x is wrong"));
    }

    #[test]
    fn a_short_passphrase_is_refused() {
        assert!(unlock("eleven char").new_passphrase("x").is_err());
        assert!(unlock("twelve chars").new_passphrase("x").is_ok());
    }
}
