//! Operators: tokens and roles.

use std::collections::HashMap;
use std::sync::RwLock;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use tidegate_protocol::{ProblemCode, Sha256, Timestamp, TokenId};

use super::{ServiceError, event};
use crate::app::App;
use crate::random;
use crate::store::events::{self, EventKind};
use crate::store::operators::{self, OperatorToken};
use crate::store::{Db, StoreError};

/// What an operator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Halts and rolls back, and looks.
    Responder,
    /// Publishes, promotes, runs rollouts, and all of the above.
    ReleaseManager,
    /// Everything.
    Admin,
}

tidegate_protocol::words!(Role("role") {
    Viewer = "viewer",
    Responder = "responder",
    ReleaseManager = "release_manager",
    Admin = "admin",
});

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To look.
    Read,
    /// To stop or take back: narrowing.
    Respond,
    /// To publish, promote and roll out: widening.
    Release,
    /// To manage tokens and devices.
    Administer,
}

tidegate_protocol::words!(Need("need") {
    Read = "read",
    Respond = "respond",
    Release = "release",
    Administer = "administer",
});

impl Role {
    /// Whether the role is enough.
    pub fn may(self, need: Need) -> bool {
        match need {
            Need::Read => true,
            Need::Respond => self >= Role::Responder,
            Need::Release => self >= Role::ReleaseManager,
            Need::Administer => self == Role::Admin,
        }
    }
}

/// Someone who was let in.
#[derive(Debug, Clone)]
pub struct Operator {
    /// The token's name.
    pub name: String,
    /// The token's role.
    pub role: Role,
}

impl Operator {
    /// The server itself, where it does what a person has ordered for a later time.
    pub(crate) fn planner() -> Self {
        Self {
            name: "planner".into(),
            role: Role::ReleaseManager,
        }
    }

    /// How events name them.
    pub fn actor(&self) -> String {
        format!("operator {}", self.name)
    }
}

/// The tokens, in memory.
#[derive(Default)]
pub struct Access {
    tokens: RwLock<HashMap<Sha256, OperatorToken>>,
}

/// Begins every token, so that scanners recognise a leaked one.
const PREFIX: &str = "tgo_";

fn hash(secret: &str) -> Sha256 {
    Sha256::from_bytes(sha2::Sha256::digest(secret.as_bytes()).into())
}

impl Access {
    /// Reads the tokens again.
    pub async fn reload(&self, db: &Db) -> Result<(), StoreError> {
        let tokens = operators::tokens(&mut db.read().await?).await?;
        let map = tokens.into_iter().map(|t| (t.secret_sha256, t)).collect();
        *self
            .tokens
            .write()
            .unwrap_or_else(std::sync::PoisonError::into_inner) = map;
        Ok(())
    }

    /// Who bears a token. It is looked up by its hash, so the time it takes says nothing about
    /// how much of it is right.
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
        })
    }
}

/// A fresh token: what is stored of it, and the secret, which is shown once.
fn fresh(
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

/// Makes the first administrator's token when there is no token at all; gives its secret. The
/// marker is a secret of its own, so that two replicas that start together make one.
pub async fn bootstrap(
    db: &Db,
    now: Timestamp,
    keep: impl FnOnce(&str) -> std::io::Result<()>,
) -> Result<Option<String>, ServiceError> {
    let mut tx = db.write().await?;
    let (_, first) = operators::secret_or_insert(&mut tx, "bootstrapped", "yes", now).await?;
    if !first {
        return Ok(None);
    }
    let (token, secret) = fresh("admin", Role::Admin, now, None);
    operators::insert_token(&mut tx, &token).await?;
    keep(&secret)
        .map_err(|e| ServiceError::invalid(format!("cannot write the first token: {e}")))?;
    tx.commit().await?;
    Ok(Some(secret))
}

impl App {
    /// Makes a token for an operator; the secret is given once.
    pub async fn create_token(
        &self,
        by: &Operator,
        name: &str,
        role: Role,
        valid: Option<Duration>,
    ) -> Result<(OperatorToken, String), ServiceError> {
        if name.is_empty() || name.len() > 60 {
            return Err(ServiceError::invalid(
                "a token's name has 1 to 60 characters",
            ));
        }
        let now = self.now();
        let (token, secret) = fresh(name, role, now, valid);
        let mut tx = self.db.write().await?;
        operators::insert_token(&mut tx, &token).await?;
        let text = format!("token {name} made with role {role}");
        let event = event(EventKind::Access, by.actor(), text);
        events::append(&mut tx, &self.origin, now, &event).await?;
        tx.commit().await?;
        self.access.reload(&self.db).await?;
        Ok((token, secret))
    }

    /// Revokes a token. Takes effect on this replica at once, on others with the event.
    pub async fn revoke_token(&self, by: &Operator, id: TokenId) -> Result<(), ServiceError> {
        let mut tx = self.db.write().await?;
        if !operators::revoke(&mut tx, id).await? {
            return Err(ServiceError::refuse(
                ProblemCode::NotFound,
                format!("there is no token {id}"),
            ));
        }
        let event = event(EventKind::Access, by.actor(), format!("token {id} revoked"));
        events::append(&mut tx, &self.origin, self.now(), &event).await?;
        tx.commit().await?;
        self.access.reload(&self.db).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_responder_may_stop_and_nothing_more() {
        assert!(Role::Responder.may(Need::Respond));
        assert!(!Role::Responder.may(Need::Release));
        assert!(!Role::Viewer.may(Need::Respond));
        assert!(Role::ReleaseManager.may(Need::Respond));
        assert!(!Role::ReleaseManager.may(Need::Administer));
    }
}
