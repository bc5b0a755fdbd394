//! Operators: tokens and roles.

use std::collections::HashMap;
use std::sync::RwLock;
use std::time::Duration;

use sha2::Digest as _;
use tidegate_domain::event::Actor;
use tidegate_protocol::{Sha256, Timestamp, TokenId};
use tidegate_store::operators::{self, OperatorToken};
use tidegate_store::{Db, StoreError};

use crate::random;

pub use tidegate_domain::access::{Need, Role};

/// Authenticated operator.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The token's name.
    pub name: String,
    /// The token's role.
    pub role: Role,
    /// Time the token expires; `None` if never.
    pub expires_at: Option<Timestamp>,
    /// Whether the token is for emergencies alone.
    pub break_glass: bool,
    /// Actor that names them in events.
    pub actor: Actor,
}

impl Operator {
    /// The token; `None` for the server itself.
    pub(crate) fn token(&self) -> Option<TokenId> {
        match self.actor {
            Actor::Operator { token, .. } => Some(token),
            _ => None,
        }
    }

    /// The server itself, when it carries out what a person ordered for a later time.
    pub(crate) fn planner() -> Self {
        Self {
            name: "planner".into(),
            role: Role::ReleaseManager,
            expires_at: None,
            break_glass: false,
            actor: Actor::Planner,
        }
    }
}

/// Operator tokens, in memory.
#[derive(Default)]
pub struct Access {
    tokens: RwLock<HashMap<Sha256, OperatorToken>>,
}

/// Prefix of every token, so that scanners recognise a leaked one.
const PREFIX: &str = "tgo_";

fn hash(secret: &str) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(secret.as_bytes()).into())
}

impl Access {
    /// Reloads the tokens.
    pub async fn reload(&self, db: &Db) -> Result<(), StoreError> {
        let tokens = operators::tokens(&mut db.read().await?).await?;
        let valid = tokens.into_iter().filter(|t| !t.revoked);
        let map = valid.map(|t| (t.secret_sha256, t)).collect();
        *self
            .tokens
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = map;
        Ok(())
    }

    /// Returns the operator of a token. The token is looked up by its hash, so the time this takes
    /// does not reveal how much of it is right.
    pub fn authenticate(&self, bearer: &str, now: Timestamp) -> Option<Operator> {
        if !bearer.starts_with(PREFIX) || bearer.len() > 200 {
            return None;
        }
        let tokens = self
            .tokens
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let token = tokens.get(&hash(bearer))?;
        if !token.is_live(now) {
            return None;
        }
        Some(Operator {
            name: token.name.clone(),
            role: token.role,
            expires_at: token.expires_at,
            break_glass: token.break_glass,
            actor: Actor::Operator {
                token: token.id,
                name: token.name.clone(),
            },
        })
    }

    /// Seconds until no administrator's token is valid any more; `None` if one does not expire.
    pub fn administered_for_s(&self, now: Timestamp) -> Option<i64> {
        let tokens = self
            .tokens
            .read()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let admins = tokens
            .values()
            .filter(|t| t.role == Role::Admin && t.is_live(now));
        let ends: Option<Vec<Timestamp>> = admins.map(|t| t.expires_at).collect();
        let last = ends?.into_iter().max().unwrap_or(now);
        Some(last.as_secs().saturating_sub(now.as_secs()))
    }
}

/// Creates a token: its row, and the secret, which is shown once.
pub(crate) fn fresh(
    name: &str,
    role: Role,
    now: Timestamp,
    valid: Option<Duration>,
    made_by: Option<TokenId>,
) -> (OperatorToken, String) {
    let secret = format!("{PREFIX}{}", hex::encode(random::bytes::<32>()));
    let token = OperatorToken {
        id: TokenId::from_random(random::bytes()),
        name: name.to_owned(),
        role,
        secret_sha256: hash(&secret),
        created_at: now,
        expires_at: valid.map(|d| now.plus(d)),
        made_by,
        confirmed_by: None,
        break_glass: false,
        revoked: false,
    };
    (token, secret)
}
