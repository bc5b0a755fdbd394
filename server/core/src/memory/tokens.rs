//! Rules for operators' tokens: their names, their ends, their makers, and the people they count as.

use std::time::Duration;

use tidegate_domain::access::{Role, check_name};
use tidegate_domain::event::Event;
use tidegate_domain::people::{Holder, People};
use tidegate_protocol::{ProblemCode, Timestamp, TokenId};
use tidegate_store::Tx;
use tidegate_store::operators::{self, OperatorToken};

use crate::CoreError;
use crate::memory::access::fresh;

/// Longest validity of a token. One for emergencies has no end, because it lies in a safe.
pub const LONGEST: Duration = Duration::from_hours(365 * 24);
/// Validity of a token unless another is given.
pub const USUAL: Duration = Duration::from_hours(90 * 24);

/// Token to make.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Name of its owner.
    pub name: String,
    /// Role that it grants.
    pub role: Role,
    /// Validity; [`USUAL`] if not given.
    pub valid: Option<Duration>,
    /// Whether it is for emergencies alone.
    pub break_glass: bool,
}

impl NewToken {
    /// Makes the token and its secret; refuses one that must not be.
    pub(crate) fn made(
        &self,
        now: Timestamp,
        made_by: Option<TokenId>,
    ) -> Result<(OperatorToken, String), CoreError> {
        check_name(&self.name).map_err(CoreError::invalid)?;
        let valid = match (self.break_glass, self.valid) {
            (true, Some(_)) => {
                let text = "valid_s: a token for emergencies does not expire, as it lies in a safe";
                return Err(CoreError::invalid(text));
            }
            (true, None) if self.role != Role::Responder => {
                let text =
                    "role: a token for emergencies is a responder's, which stops and rolls back";
                return Err(CoreError::invalid(text));
            }
            (true, None) => None,
            (false, valid) => Some(valid.unwrap_or(USUAL)),
        };
        if valid.is_some_and(|v| v.is_zero() || v > LONGEST) {
            let text = format!("valid_s: 1 to {}, a year", LONGEST.as_secs());
            return Err(CoreError::invalid(text));
        }
        let (token, secret) = fresh(&self.name, self.role, now, valid, made_by);
        let break_glass = self.break_glass;
        Ok((
            OperatorToken {
                break_glass,
                ..token
            },
            secret,
        ))
    }
}

/// Event of a token that was made.
pub(crate) fn token_made(token: &OperatorToken) -> Event {
    Event::TokenMade {
        token: token.id,
        role: token.role,
        break_glass: token.break_glass,
        expires_at: token.expires_at,
        name: token.name.clone(),
    }
}

/// Refuses a name that was another token's: events and approvals name people by it.
pub(crate) fn claimed(new: bool, name: &str) -> Result<(), CoreError> {
    if new {
        return Ok(());
    }
    let text = format!(
        "a token has or had the name {name} already: records name people by it, so it is never given again; \
         choose another, for example {name}-2"
    );
    Err(CoreError::refuse(ProblemCode::Conflict, text))
}

/// Reads who is behind each token.
pub(crate) async fn people(tx: &mut Tx) -> Result<People, CoreError> {
    Ok(people_of(&operators::tokens(tx).await?))
}

/// Sorts out who is behind each of these tokens, which are all there are.
pub(crate) fn people_of(tokens: &[OperatorToken]) -> People {
    let holders = tokens.iter().map(|t| Holder {
        token: t.id,
        name: t.name.clone(),
        made_by: t.made_by,
        confirmed: t.confirmed_by.is_some(),
    });
    People::new(&holders.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);
    const DAY: Duration = Duration::from_hours(24);

    #[test]
    fn every_token_ends_within_a_year_but_one_for_the_safe_which_only_responds() {
        let new = |role, valid, break_glass| {
            let name = "ann".to_owned();
            let new = NewToken {
                name,
                role,
                valid,
                break_glass,
            };
            new.made(NOW, None).map(|(token, _)| token.expires_at)
        };
        let year = 365 * DAY;
        assert_eq!(
            new(Role::Admin, None, false).unwrap(),
            Some(NOW.plus(90 * DAY))
        );
        assert_eq!(
            new(Role::Admin, Some(year), false).unwrap(),
            Some(NOW.plus(year))
        );
        let second = Duration::from_secs(1);
        for valid in [Duration::ZERO, year + second, Duration::MAX] {
            assert!(new(Role::Viewer, Some(valid), false).is_err(), "{valid:?}");
        }
        assert_eq!(new(Role::Responder, None, true).unwrap(), None);
        assert!(new(Role::Responder, Some(DAY), true).is_err());
        for role in [Role::Viewer, Role::ReleaseManager, Role::Admin] {
            assert!(new(role, None, true).is_err(), "{role}");
        }
    }
}
