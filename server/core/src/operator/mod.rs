//! Use cases of operators: tokens.

use std::time::Duration;

use tidegate_domain::event::Event;
use tidegate_protocol::{ProblemCode, Timestamp, TokenId};
use tidegate_store::operators::{self, OperatorToken};

use crate::CoreError;
use crate::app::App;
use crate::memory::access::{Operator, Role, fresh};

/// Returns whether nobody could make a token any more, now or later, once this one is revoked. One
/// that expires is no help for long.
fn is_last_administrator(tokens: &[OperatorToken], id: TokenId, now: Timestamp) -> bool {
    let admins = tokens.iter().filter(|t| t.role == Role::Admin);
    let (mine, others): (Vec<_>, Vec<_>) = admins.partition(|t| t.id == id);
    let lasts = |list: &[&OperatorToken]| list.iter().any(|t| t.expires_at.is_none());
    let valid = |list: &[&OperatorToken]| {
        list.iter()
            .any(|t| t.expires_at.is_none_or(|expiry| expiry > now))
    };
    (lasts(&mine) && !lasts(&others)) || (valid(&mine) && !valid(&others))
}

impl App {
    /// Returns the operator of a bearer token, from memory.
    pub fn authenticate(&self, bearer: &str) -> Option<Operator> {
        self.access.authenticate(bearer, self.now())
    }

    /// Creates a token for an operator; the secret is returned once.
    pub async fn create_token(
        &self,
        by: &Operator,
        name: &str,
        role: Role,
        valid: Option<Duration>,
    ) -> Result<(OperatorToken, String), CoreError> {
        if name.is_empty() || name.len() > 60 {
            return Err(CoreError::invalid("a token's name has 1 to 60 characters"));
        }
        if valid.is_some_and(|valid| valid.is_zero()) {
            return Err(CoreError::invalid("valid_s: at least 1"));
        }
        let now = self.now();
        let (token, secret) = fresh(name, role, now, valid);
        self.change(&by.actor, async |tx| {
            operators::insert_token(tx, &token).await?;
            let made = Event::TokenMade {
                token: token.id,
                role,
                name: name.to_owned(),
            };
            Ok(((), vec![made]))
        })
        .await?;
        Ok((token, secret))
    }

    /// Revokes a token. Takes effect at once on this replica, on others with the event. The last
    /// administrator stays: nobody could make another.
    pub async fn revoke_token(&self, by: &Operator, id: TokenId) -> Result<(), CoreError> {
        let now = self.now();
        self.change(&by.actor, async |tx| {
            let tokens = operators::tokens(tx).await?;
            if is_last_administrator(&tokens, id, now) {
                return Err(CoreError::refuse(
                    ProblemCode::Conflict,
                    "no administrator's token that does not expire would be left: create one first",
                ));
            }
            if !operators::revoke(tx, id).await? {
                return Err(CoreError::not_found(format!("token {id}")));
            }
            Ok(((), vec![Event::TokenRevoked { token: id }]))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_administrator_who_lasts_stays_whoever_else_is_there_for_a_while() {
        let now = Timestamp::from_secs(1_000);
        let token = |role, valid| fresh("x", role, now, valid).0;
        let day = Some(Duration::from_hours(24));
        let (first, second) = (token(Role::Admin, None), token(Role::Admin, None));
        let (guest, reader) = (token(Role::Admin, day), token(Role::Viewer, None));
        let last = |tokens: &[&OperatorToken], of: &OperatorToken| {
            let tokens: Vec<OperatorToken> = tokens.iter().map(|t| (*t).clone()).collect();
            is_last_administrator(&tokens, of.id, now)
        };
        assert!(last(&[&first, &reader], &first));
        assert!(last(&[&first, &guest], &first));
        assert!(!last(&[&first, &guest], &guest));
        assert!(!last(&[&first, &second, &guest], &first));
        assert!(last(&[&guest, &reader], &guest));
        assert!(!last(&[&first, &reader], &reader));
    }
}
