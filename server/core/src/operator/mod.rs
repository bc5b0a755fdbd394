//! Use cases of operators: tokens.

use std::time::Duration;

use tidegate_domain::event::Event;
use tidegate_protocol::{ProblemCode, TokenId};
use tidegate_store::operators::{self, OperatorToken};

use crate::CoreError;
use crate::app::App;
use crate::memory::access::{Operator, Role, fresh};

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
            let administers = |token: &OperatorToken| {
                token.role == Role::Admin && token.expires_at.is_none_or(|at| at > now)
            };
            if tokens.iter().any(|t| t.id == id && administers(t))
                && !tokens.iter().any(|t| t.id != id && administers(t))
            {
                return Err(CoreError::refuse(
                    ProblemCode::Conflict,
                    "this is the last administrator's token: create another one first",
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
