//! Tokens made on the server's host, straight in the database: the first one, and the way back in
//! when nobody has one. No operator asks for them, so they have no maker.

use tidegate_domain::access::Role;
use tidegate_domain::event::Actor;
use tidegate_protocol::{ProblemCode, Timestamp};
use tidegate_store::operators::{self, OperatorToken};
use tidegate_store::{Db, events};

use crate::CoreError;
use crate::memory::access::fresh;
use crate::memory::tokens::{LONGEST, claimed, token_made};

/// Name of the secret that says that the first token was made.
const BOOTSTRAPPED: &str = "bootstrapped";

/// Creates the first administrator's token and returns its secret; `None` if that was done before.
/// The marker is a secret of its own, so that two replicas starting together create one token.
/// `keep` stores the secret before the commit: a token that nobody can read would lock everybody
/// out.
pub(crate) async fn first_token(
    db: &Db,
    origin: &str,
    now: Timestamp,
    keep: impl FnOnce(&str) -> std::io::Result<()>,
) -> Result<Option<String>, CoreError> {
    let mut tx = db.begin_write().await?;
    let (_, first) = operators::secret_or_insert(&mut tx, BOOTSTRAPPED, "yes", now).await?;
    if !first {
        return Ok(None);
    }
    let (token, secret) = fresh("admin", Role::Admin, now, Some(LONGEST), None);
    operators::insert_token(&mut tx, &token).await?;
    keep(&secret).map_err(|e| CoreError::invalid(format!("cannot write the first token: {e}")))?;
    let made = [(Actor::System, token_made(&token))];
    events::append(&mut tx, origin, now, &made).await?;
    tx.commit().await?;
    Ok(Some(secret))
}

/// Stores a token beside running servers, which take it over with its event. Whoever calls this can
/// write the database, so it asks for no right.
pub(crate) async fn host_token(
    db: &Db,
    token: &OperatorToken,
    now: Timestamp,
) -> Result<(), CoreError> {
    let mut tx = db.begin_write().await?;
    let secrets = operators::secrets(&mut tx).await?;
    if !secrets.iter().any(|(name, _)| name == BOOTSTRAPPED) {
        let text = "no server has been started on this database: is it the right one?";
        return Err(CoreError::refuse(ProblemCode::NotFound, text));
    }
    claimed(operators::insert_token(&mut tx, token).await?, &token.name)?;
    let made = [(Actor::System, token_made(token))];
    events::append(&mut tx, "host", now, &made).await?;
    tx.commit().await?;
    Ok(())
}
