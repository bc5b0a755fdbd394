//! A key that lives in a PKCS#11 token and never leaves it.
//!
//! Today's tokens sign with Ed25519 but not with ML-DSA: of a hybrid pair the token holds the first
//! key, and the second is stored encrypted beside it.

use std::path::PathBuf;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::types::AuthPin;
use serde::{Deserialize, Serialize};
use tidegate_trust::{KeyError, PublicKey, RoleKey, RoleSigner};

use super::secret::Unlock;
use crate::error::CliError;

/// Location of a key, stored in `private/<name>.token.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TokenPlace {
    /// The PKCS#11 library.
    pub(crate) module: PathBuf,
    /// The token's label.
    pub(crate) token: String,
    /// The key's label in the token.
    pub(crate) label: String,
    /// A file with the PIN, for unattended machines.
    #[serde(default)]
    pub(crate) pin_file: Option<PathBuf>,
    /// The public key, in hexadecimal.
    #[serde(default)]
    pub(crate) public: String,
}

/// `edwards25519` as the printable string that PKCS#11 2.40 tokens accept as the curve's name.
const CURVE: [u8; 14] = *b"\x13\x0cedwards25519";

fn failed(what: &str) -> impl FnOnce(cryptoki::error::Error) -> CliError + '_ {
    move |e| CliError::Failed(format!("{what}: {e}"))
}

impl TokenPlace {
    fn session(&self) -> Result<Session, CliError> {
        let module = self.module.display().to_string();
        let context = Pkcs11::new(&self.module).map_err(failed(&module))?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            Ok(())
            | Err(cryptoki::error::Error::Pkcs11(
                cryptoki::error::RvError::CryptokiAlreadyInitialized,
                _,
            )) => {}
            Err(e) => return Err(failed(&module)(e)),
        }
        for slot in context.get_slots_with_token().map_err(failed(&module))? {
            let info = context.get_token_info(slot).map_err(failed(&module))?;
            if info.label() == self.token {
                let session = context.open_rw_session(slot).map_err(failed(&self.token))?;
                let unlock = Unlock {
                    file: self.pin_file.clone(),
                    ..Unlock::default()
                };
                let pin = unlock.secret(&format!("PIN of the token {}: ", self.token))?;
                session
                    .login(
                        UserType::User,
                        Some(&AuthPin::new(pin.as_str().to_owned().into())),
                    )
                    .map_err(failed(&self.token))?;
                return Ok(session);
            }
        }
        Err(CliError::Hinted(
            format!("{module} has no token {}", self.token),
            "list the tokens with softhsm2-util --show-slots or pkcs11-tool --list-token-slots"
                .into(),
        ))
    }

    /// Generates the key in the token.
    pub(crate) fn make(mut self) -> Result<Self, CliError> {
        let session = self.session()?;
        let label = self.label.as_bytes().to_vec();
        if find(&session, ObjectClass::PRIVATE_KEY, &label)?.is_some() {
            return Err(CliError::Failed(format!(
                "the token {} already holds a key {}",
                self.token, self.label
            )));
        }
        let public = [
            Attribute::Token(true),
            Attribute::Verify(true),
            Attribute::Label(label.clone()),
            Attribute::KeyType(KeyType::EC_EDWARDS),
            Attribute::EcParams(CURVE.to_vec()),
        ];
        let private = [
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
            Attribute::Label(label),
        ];
        let (public, _) = session
            .generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private)
            .map_err(failed("making the key in the token"))?;
        let point = session
            .get_attributes(public, &[AttributeType::EcPoint])
            .map_err(failed("reading the public key"))?
            .into_iter()
            .find_map(|a| match a {
                Attribute::EcPoint(bytes) => Some(bytes),
                _ => None,
            })
            .unwrap_or_default();
        // A DER octet string around the 32 bytes.
        let key = point.strip_prefix(&[0x04, 0x20]).unwrap_or(&point);
        let key: PublicKey = hex::encode(key)
            .parse()
            .map_err(|e: KeyError| CliError::Failed(format!("the token's public key: {e}")))?;
        self.public = key.to_string();
        Ok(self)
    }

    /// Opens the token for signing.
    pub(crate) fn open(&self) -> Result<TokenKey, CliError> {
        let session = self.session()?;
        let key = find(&session, ObjectClass::PRIVATE_KEY, self.label.as_bytes())?;
        let key = key.ok_or_else(|| {
            CliError::Failed(format!(
                "the token {} holds no key {}",
                self.token, self.label
            ))
        })?;
        let public = self
            .public
            .parse()
            .map_err(|e: KeyError| CliError::Failed(format!("the token's public key: {e}")))?;
        Ok(TokenKey {
            session,
            key,
            public,
        })
    }
}

fn find(
    session: &Session,
    class: ObjectClass,
    label: &[u8],
) -> Result<Option<ObjectHandle>, CliError> {
    let wanted = [Attribute::Class(class), Attribute::Label(label.to_vec())];
    let found = session
        .find_objects(&wanted)
        .map_err(failed("reading the token"))?;
    Ok(found.into_iter().next())
}

/// A key in an open token.
pub(crate) struct TokenKey {
    session: Session,
    key: ObjectHandle,
    public: PublicKey,
}

impl RoleSigner for TokenKey {
    fn role_key(&self) -> RoleKey {
        self.public.into()
    }

    fn sign_role(&self, canonical: &[u8]) -> Result<Vec<u8>, KeyError> {
        let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Pure));
        let signature = self
            .session
            .sign(&mechanism, self.key, canonical)
            .map_err(|e| KeyError::Keeper(e.to_string()))?;
        // Catches a token that signs with a key other than the one it showed here, not on a device.
        self.public.verify(canonical, &signature)?;
        Ok(signature)
    }
}
