//! Use cases of operators: tokens.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_domain::event::{Actor, Event};
use tidegate_protocol::{ProblemCode, Timestamp, TokenId};
use tidegate_store::operators::{self, OperatorToken};

use crate::CoreError;
use crate::app::App;
use crate::memory::access::{Operator, Role};
use crate::memory::tokens::{NewToken, claimed, people, people_of, token_made};

/// Time for which an administrator must stay when another one is revoked: long enough to make one
/// that lasts.
const HANDOVER: Duration = Duration::from_hours(7 * 24);

/// Token with the people that it has to do with, by name.
#[derive(Debug, Clone)]
pub struct TokenStanding {
    /// Stored row.
    pub token: OperatorToken,
    /// Name of its maker; absent if it was made on the server's host.
    pub made_by: Option<String>,
    /// Name of the administrator who confirmed it.
    pub confirmed_by: Option<String>,
    /// Person whose it counts as where several must agree.
    pub person: String,
}

/// Returns whether nobody could make a token any more once this one is revoked, now or before
/// somebody could have made one that lasts.
fn is_last_administrator(tokens: &[OperatorToken], id: TokenId, now: Timestamp) -> bool {
    let admins = tokens.iter().filter(|t| t.role == Role::Admin);
    let (mine, others): (Vec<_>, Vec<_>) = admins.partition(|t| t.id == id);
    let live = |list: &[&OperatorToken], at| list.iter().any(|t| t.is_live(at));
    [now, now.plus(HANDOVER)]
        .into_iter()
        .any(|at| live(&mine, at) && !live(&others, at))
}

impl App {
    /// Returns the operator of a bearer token, from memory.
    pub fn authenticate(&self, bearer: &str) -> Option<Operator> {
        self.access.authenticate(bearer, self.now())
    }

    /// Seconds until no administrator's token is valid any more; `None` if one does not expire.
    pub fn administered_for_s(&self) -> Option<i64> {
        self.access.administered_for_s(self.now())
    }

    /// Returns the operators' tokens: those that can be used, or every one that was ever made.
    pub async fn tokens(&self, all: bool) -> Result<Vec<TokenStanding>, CoreError> {
        let tokens = operators::tokens(&mut self.db.read().await?).await?;
        let people = people_of(&tokens);
        let by_id: BTreeMap<TokenId, String> =
            tokens.iter().map(|t| (t.id, t.name.clone())).collect();
        let named = |id: Option<TokenId>| id.and_then(|id| by_id.get(&id).cloned());
        let now = self.now();
        let wanted = tokens.into_iter().filter(|t| all || t.is_live(now));
        let standings = wanted.map(|token| TokenStanding {
            made_by: named(token.made_by),
            confirmed_by: named(token.confirmed_by),
            person: people.person(&token.name).to_owned(),
            token,
        });
        Ok(standings.collect())
    }

    /// Creates a token for an operator; the secret is returned once.
    pub async fn create_token(
        &self,
        by: &Operator,
        new: &NewToken,
    ) -> Result<(TokenStanding, String), CoreError> {
        let (token, secret) = new.made(self.now(), by.token())?;
        let standing = self
            .change(&by.actor, async |tx| {
                claimed(operators::insert_token(tx, &token).await?, &token.name)?;
                let made = token_made(&token);
                let person = people(tx).await?.person(&token.name).to_owned();
                let standing = TokenStanding {
                    token,
                    made_by: Some(by.name.clone()),
                    confirmed_by: None,
                    person,
                };
                Ok((standing, vec![made]))
            })
            .await?;
        Ok((standing, secret))
    }

    /// Confirms that a token belongs to a person other than its maker. Only an administrator who is
    /// another person than that maker can: else one could make up the people who agree.
    pub async fn confirm_token(&self, by: &Operator, id: TokenId) -> Result<(), CoreError> {
        let now = self.now();
        self.change(&by.actor, async |tx| {
            let tokens = operators::tokens(tx).await?;
            let token = tokens.iter().find(|t| t.id == id && t.is_live(now));
            let token = token.ok_or_else(|| CoreError::not_found(format!("token {id}")))?;
            if token.made_by.is_none() || token.confirmed_by.is_some() {
                let text = format!("{} counts as a person of its own already", token.name);
                return Err(CoreError::refuse(ProblemCode::Conflict, text));
            }
            let people = people_of(&tokens);
            let person = people.person(&token.name);
            let confirms = by.token().filter(|_| people.person(&by.name) != person);
            let Some(confirms) = confirms else {
                let text = format!(
                    "{} counts as {person}, and so do you: an administrator who is somebody else must confirm it",
                    token.name
                );
                return Err(CoreError::refuse(ProblemCode::Forbidden, text));
            };
            operators::confirm(tx, id, confirms).await?;
            let confirmed = Event::TokenConfirmed {
                token: id,
                name: token.name.clone(),
            };
            Ok(((), vec![confirmed]))
        })
        .await
    }

    /// Revokes a token. Takes effect at once on this replica, on others with the event. The last
    /// administrator's token goes only if the caller says that they mean it.
    pub async fn revoke_token(
        &self,
        by: &Operator,
        id: TokenId,
        last_admin: bool,
    ) -> Result<(), CoreError> {
        let now = self.now();
        self.change(&by.actor, async |tx| {
            let tokens = operators::tokens(tx).await?;
            let token = tokens.iter().find(|t| t.id == id && !t.revoked);
            let token = token.ok_or_else(|| CoreError::not_found(format!("token {id}")))?;
            if !last_admin && is_last_administrator(&tokens, id, now) {
                return Err(CoreError::refuse(
                    ProblemCode::Conflict,
                    "within a week no administrator's token would be left, and nobody could make one: create one \
                     first, or say that you mean it (last_admin, --last-admin). The way back in is then on the \
                     server's host: tidegate token rescue",
                ));
            }
            operators::revoke(tx, id).await?;
            let revoked = Event::TokenRevoked {
                token: id,
                name: token.name.clone(),
            };
            Ok(((), vec![revoked]))
        })
        .await
    }

    /// Raises the alarm about a token for emergencies: in the log, in the metrics and as an event.
    /// The request goes on even if the event cannot be written: a halt waits for nothing.
    pub async fn note_break_glass(&self, by: &Operator, request: &str) {
        let Actor::Operator { token, .. } = by.actor else {
            return;
        };
        self.metrics.break_glass.inc();
        tracing::error!(token = %token, name = by.name, request, "a token for emergencies was used");
        let used = Event::BreakGlassUsed {
            token,
            request: request.to_owned(),
        };
        let written = self.change(&by.actor, async |_| Ok(((), vec![used]))).await;
        if let Err(error) = written {
            let error = tidegate_protocol::error_chain(&error);
            tracing::error!(
                error,
                "the use of a token for emergencies could not be recorded"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::access::fresh;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn an_administrator_stays_who_lasts_for_longer_than_the_others() {
        let token = |role, valid| fresh("x", role, NOW, valid, None).0;
        let month = Some(30 * DAY);
        let (first, second) = (token(Role::Admin, month), token(Role::Admin, month));
        let (guest, reader) = (token(Role::Admin, Some(DAY)), token(Role::Viewer, month));
        let mut revoked = second.clone();
        revoked.revoked = true;
        let last = |tokens: &[&OperatorToken], of: &OperatorToken| {
            let tokens: Vec<OperatorToken> = tokens.iter().map(|t| (*t).clone()).collect();
            is_last_administrator(&tokens, of.id, NOW)
        };
        assert!(last(&[&first, &reader], &first));
        assert!(last(&[&first, &guest], &first));
        assert!(last(&[&first, &revoked], &first));
        assert!(!last(&[&first, &guest], &guest));
        assert!(!last(&[&first, &second, &guest], &first));
        assert!(last(&[&guest, &reader], &guest));
        assert!(!last(&[&first, &reader], &reader));
    }
}
