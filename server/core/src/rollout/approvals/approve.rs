//! Approving a change and carrying it out, in one transaction.

use tidegate_domain::approval::{ApprovalRefusal, Request};
use tidegate_domain::event::Event;
use tidegate_domain::rollout::RolloutEvent;
use tidegate_domain::rollout::policy::Policy;
use tidegate_protocol::{ChangeId, Reason, RolloutId, Timestamp};
use tidegate_store::changes::{self, Change, ChangeKind, ChangeState};
use tidegate_store::rollouts::{self, Rollout};
use tidegate_store::{Tx, policy};

use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::rollout::approvals::{authors, check, proposed};
use crate::rollout::order::{Given, until_current};
use crate::rollout::{Ordered, read};
use crate::{CoreError, random};

/// Change applied at once, or approved.
pub(crate) struct Carried<'a> {
    pub(crate) by: &'a Operator,
    pub(crate) kind: ChangeKind,
    /// New rules of an edit.
    pub(crate) policy: Option<&'a Policy>,
    /// Author of the rules.
    pub(crate) author: &'a str,
    pub(crate) reason: &'a str,
    /// Approved change, if approvals were needed.
    pub(crate) change: Option<ChangeId>,
}

impl App {
    /// Approves the waiting change. The last approval and its effect are one transaction: no crash
    /// and no refusal between them loses what was approved.
    pub async fn approve(
        &self,
        by: &Operator,
        id: RolloutId,
        plan: &str,
    ) -> Result<Ordered, CoreError> {
        // Since the start was asked for, devices without a way back may have joined.
        let asked = self.rollout(id).await?.asked;
        if asked.is_some_and(|asked| asked.change.kind == ChangeKind::Start) {
            self.check_way_back(id, None).await?;
        }
        until_current!(self, tx => self.approve_in(tx, by, id, plan))
    }

    async fn approve_in(
        &self,
        tx: &mut Tx,
        by: &Operator,
        id: RolloutId,
        plan: &str,
    ) -> Result<Option<Done<Ordered>>, CoreError> {
        let now = self.now();
        let (rollout, waves) = read(tx, id).await?;
        let waiting = self
            .asked(tx, &rollout, &waves)
            .await?
            .ok_or(ApprovalRefusal::NothingAsked)?;
        let change = &waiting.change;
        // What has become impossible is said as such: a halt changes the plan of a resume, too.
        check(&rollout, &waves, change.kind)?;
        let authors = authors(tx, &rollout).await?;
        let mut given_by = waiting.given_by.clone();
        given_by.insert(by.name.clone());
        let request = Request {
            needed: waiting.needed,
            asked_by: &change.asked_by,
            authors: &authors,
            given_by: &given_by,
            plan: &change.plan,
            people: &waiting.people,
        };
        request.may_approve(&by.name, plan)?;
        let missing = request.missing();
        changes::approve(tx, change.id, plan, &by.name, now).await?;
        let approved = Event::Approved {
            product: rollout.product.clone(),
            rollout: id,
            change: change.id,
            asked: change.kind,
            missing,
        };
        if missing > 0 {
            let ordered = Ordered::done(self.standing_in(tx, id).await?);
            return Ok(Some(Done::by(&by.actor, ordered, [approved])));
        }
        changes::end(tx, change.id, ChangeState::Applied).await?;
        let policy = match change.kind {
            ChangeKind::Edit => Some(proposed(&rollout, change)?),
            ChangeKind::Start | ChangeKind::Advance | ChangeKind::Resume => None,
        };
        let agreed: Vec<&str> = given_by.iter().map(String::as_str).collect();
        let reason = format!(
            "requested by {}, approved by {}",
            change.asked_by,
            agreed.join(", ")
        );
        let carried = Carried {
            by,
            kind: change.kind,
            policy: policy.as_ref(),
            author: &change.asked_by,
            reason: &reason,
            change: Some(change.id),
        };
        let done = self.carry_out(tx, id, &carried).await?;
        let actor = by.actor.clone();
        Ok(done.map(|done| done.and(&actor, Some(approved))))
    }

    /// Carries out a change that needs no further approval; `None` if the rollout has just changed.
    pub(crate) async fn carry_out(
        &self,
        tx: &mut Tx,
        id: RolloutId,
        carried: &Carried<'_>,
    ) -> Result<Option<Done<Ordered>>, CoreError> {
        let Carried {
            by, reason, change, ..
        } = *carried;
        let order = match carried.kind {
            ChangeKind::Start => Some(RolloutEvent::Start),
            ChangeKind::Resume => Some(RolloutEvent::Resume),
            ChangeKind::Advance | ChangeKind::Edit => None,
        };
        if let Some(order) = order {
            let given = Given {
                by,
                order,
                reason,
                change,
            };
            return self.order_in(tx, id, &given, None).await;
        }
        let (rollout, _) = read(tx, id).await?;
        let (product, reason) = (rollout.product.clone(), reason.to_owned());
        let event = if carried.kind == ChangeKind::Advance {
            if !rollouts::release_wave(tx, &rollout).await? {
                return Ok(None);
            }
            Event::WaveReleased {
                product,
                rollout: id,
                released: rollout.released + 1,
                change,
                reason,
            }
        } else {
            let Some(policy) = carried.policy else {
                return Err(CoreError::invalid("the edit changes no rule"));
            };
            if !self.edit_in(tx, &rollout, policy, carried.author).await? {
                return Ok(None);
            }
            Event::RolloutEdited {
                product,
                rollout: id,
                policy: policy::to_column(policy)?,
                change,
                reason,
            }
        };
        let ordered = Ordered::done(self.standing_in(tx, id).await?);
        Ok(Some(Done::by(&by.actor, ordered, [event])))
    }

    /// Replaces the rules of a rollout; returns `false` if it changed in the meantime.
    async fn edit_in(
        &self,
        tx: &mut Tx,
        rollout: &Rollout,
        policy: &Policy,
        author: &str,
    ) -> Result<bool, CoreError> {
        let now = self.now();
        let state = rollout.state.apply(RolloutEvent::Edit)?;
        if state != rollout.state {
            let why = Reason::RolloutNotStarted.into();
            if !rollouts::set_state(tx, rollout, state, &why, now).await? {
                return Ok(false);
            }
        }
        let fresh = Rollout {
            revision: rollout.revision + i64::from(state != rollout.state),
            ..rollout.clone()
        };
        // Whoever edits becomes an author, and voids the change asked for before.
        note_author(tx, rollout, author, now).await?;
        Ok(rollouts::set_policy(tx, &fresh, policy).await?)
    }
}

async fn note_author(
    tx: &mut Tx,
    rollout: &Rollout,
    name: &str,
    now: Timestamp,
) -> Result<(), CoreError> {
    let change = Change {
        id: ChangeId::from_random(random::bytes()),
        rollout: rollout.id,
        kind: ChangeKind::Edit,
        body: String::new(),
        plan: String::new(),
        asked_by: name.to_owned(),
        asked_at: now,
        state: ChangeState::Waiting,
    };
    changes::insert(tx, &change).await?;
    changes::end(tx, change.id, ChangeState::Applied).await?;
    Ok(())
}
