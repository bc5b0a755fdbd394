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
    /// Actor that names them in events.
    pub actor: Actor,
}

impl Operator {
    /// The server itself, when it carries out what a person ordered for a later time.
    pub(crate) fn planner() -> Self {
        Self {
            name: "planner".into(),
            role: Role::ReleaseManager,
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
        let map = tokens.into_iter().map(|t| (t.secret_sha256, t)).collect();
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
        if token.expires_at.is_some_and(|at| at <= now) {
            return None;
        }
        Some(Operator {
            name: token.name.clone(),
            role: token.role,
            actor: Actor::Operator {
                token: token.id,
                name: token.name.clone(),
            },
        })
    }
}

/// Creates a token: its row, and the secret, which is shown once.
pub(crate) fn fresh(
    name: &str,
    role: Role,
    now: Timestamp,
    valid: Option<Duration>,
) -> (OperatorToken, String) {
    let secret = format!("{PREFIX}{}", hex::encode(random::bytes::<32>()));
    let token = OperatorToken {
        id: TokenId::from_random(random::bytes()),
        name: name.to_owned(),
        role,
        secret_sha256: hash(&secret),
        created_at: now,
        expires_at: valid.map(|d| now.plus(d)),
    };
    (token, secret)
}
