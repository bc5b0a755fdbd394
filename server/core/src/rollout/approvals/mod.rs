//! Widening a rollout: starting it, releasing its next wave, resuming it after a halt, raising
//! limits. Each may need the approval of other people, bound to the plan that they saw. Narrowing
//! never does.

mod approve;
mod ask;
mod plan;

use std::collections::BTreeSet;

use tidegate_api::EditBody;
use tidegate_domain::approval::Request;
use tidegate_domain::people::People;
use tidegate_domain::rollout::policy::Policy;
use tidegate_domain::rollout::{RolloutEvent, RolloutState, WaveState};
use tidegate_protocol::{ProblemCode, ProductName, RolloutId};
use tidegate_store::changes::{self, Change, ChangeKind, ChangeState};
use tidegate_store::rollouts::Rollout;
use tidegate_store::waves::WaveRow;
use tidegate_store::{Tx, products};

use self::approve::Carried;
pub(crate) use self::ask::{Asking, others};
pub(crate) use self::plan::asked_plan;
use self::plan::proposed;
use crate::CoreError;
use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::memory::tokens::people;
use crate::rollout::accept::note_accepted;
use crate::rollout::order::until_current;
use crate::rollout::{Ordered, read, same_revision};

/// Change that waits for approvals.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The change asked for.
    pub change: Change,
    /// Number of people who must approve.
    pub needed: u32,
    /// Number of approvals still missing.
    pub missing: u32,
    /// Names of those who have approved.
    pub given_by: BTreeSet<String>,
    /// Person behind each name.
    pub(crate) people: People,
}

/// Requested change that widens a rollout.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Kind of change.
    pub kind: ChangeKind,
    /// The rules to change, for an edit. They are applied to those that the transaction reads, so
    /// that two edits at once both count.
    pub edit: Option<EditBody>,
    /// The reason.
    pub reason: String,
    /// Revision that the caller saw; `None` if it does not matter to them.
    pub revision: Option<i64>,
    /// Number of devices without a way back that a start accepts.
    pub accept_no_way_back: Option<u64>,
    /// Only preview the result.
    pub dry_run: bool,
}

impl Wish {
    /// Rules that an edit leads to; `None` for other kinds.
    fn policy(&self, rollout: &Rollout) -> Result<Option<Policy>, CoreError> {
        let edit = self.edit.clone();
        Ok(edit.map(|e| e.edited(&rollout.policy)).transpose()?)
    }
}

impl App {
    /// Number of other people who must approve a change that widens this rollout: by the rule now, or
    /// by the one under which it was planned where that was stricter.
    pub(crate) async fn needed(&self, tx: &mut Tx, rollout: &Rollout) -> Result<u32, CoreError> {
        let now = approvals_of(tx, &rollout.product).await?;
        Ok(now.max(rollout.approvals))
    }

    /// Returns the change that waits for approvals, if there is one.
    pub(crate) async fn asked(
        &self,
        tx: &mut Tx,
        rollout: &Rollout,
        waves: &[WaveRow],
    ) -> Result<Option<Waiting>, CoreError> {
        let Some(change) = changes::waiting(tx, rollout.id).await? else {
            return Ok(None);
        };
        let plan = asked_plan(rollout, waves, &change)?;
        let given_by = changes::approvals(tx, change.id, &plan).await?;
        let authors = authors(tx, rollout).await?;
        let needed = self.needed(tx, rollout).await?;
        let people = people(tx).await?;
        Ok(Some(waiting(
            change, plan, &authors, given_by, needed, people,
        )))
    }

    /// Requests a change that widens a rollout: applied at once if nobody needs to approve.
    pub async fn widen(
        &self,
        by: &Operator,
        id: RolloutId,
        wish: Wish,
    ) -> Result<Ordered, CoreError> {
        if wish.dry_run {
            return self.try_to_widen(id, wish).await;
        }
        let accepted = match wish.kind {
            ChangeKind::Start => self.check_way_back(id, wish.accept_no_way_back).await?,
            ChangeKind::Advance | ChangeKind::Edit | ChangeKind::Resume => None,
        };
        until_current!(self, tx => self.widen_in(tx, by, id, &wish, accepted))
    }

    /// Previews a widening change.
    async fn try_to_widen(&self, id: RolloutId, wish: Wish) -> Result<Ordered, CoreError> {
        let mut tx = self.db.read().await?;
        let (rollout, waves) = read(&mut tx, id).await?;
        same_revision(&rollout, wish.revision)?;
        check(&rollout, &waves, wish.kind)?;
        let after = wish.policy(&rollout)?;
        let needed = self
            .needed_for(&mut tx, &rollout, wish.kind, after.as_ref())
            .await?;
        let event = match wish.kind {
            ChangeKind::Start if needed > 0 => RolloutEvent::AskApproval,
            ChangeKind::Start => RolloutEvent::Start,
            ChangeKind::Resume if needed == 0 => RolloutEvent::Resume,
            ChangeKind::Advance | ChangeKind::Edit | ChangeKind::Resume => RolloutEvent::Edit,
        };
        let would = Rollout {
            state: rollout.state.apply(event)?,
            policy: after.unwrap_or_else(|| rollout.policy.clone()),
            ..rollout
        };
        let mut standing = self.standing(&mut tx, would, waves).await?;
        drop(tx);
        let plan = self.fleet.plan();
        standing.preview = Some(self.preview(&plan, &standing.rollout, &standing.waves));
        Ok(Ordered {
            standing,
            dry_run: true,
        })
    }

    /// Number of other people who must approve this request.
    async fn needed_for(
        &self,
        tx: &mut Tx,
        rollout: &Rollout,
        kind: ChangeKind,
        after: Option<&Policy>,
    ) -> Result<u32, CoreError> {
        let started = !matches!(
            rollout.state,
            RolloutState::Draft | RolloutState::AwaitingApproval | RolloutState::Scheduled
        );
        let widening = match (kind, after) {
            // A rollout that has not started has its plan approved with its start.
            (ChangeKind::Edit, Some(after)) => started && rollout.policy.is_widened_by(after),
            (ChangeKind::Edit, None) => false,
            (ChangeKind::Start | ChangeKind::Advance | ChangeKind::Resume, _) => true,
        };
        if widening {
            self.needed(tx, rollout).await
        } else {
            Ok(0)
        }
    }

    /// Notes what a start accepts together with the start.
    async fn widen_in(
        &self,
        tx: &mut Tx,
        by: &Operator,
        id: RolloutId,
        wish: &Wish,
        accepted: Option<u64>,
    ) -> Result<Option<Done<Ordered>>, CoreError> {
        let noted = note_accepted(tx, id, accepted).await?;
        let done = self.grant_wish(tx, by, id, wish).await?;
        Ok(done.map(|done| done.and(&by.actor, noted)))
    }

    async fn grant_wish(
        &self,
        tx: &mut Tx,
        by: &Operator,
        id: RolloutId,
        wish: &Wish,
    ) -> Result<Option<Done<Ordered>>, CoreError> {
        let (rollout, waves) = read(tx, id).await?;
        same_revision(&rollout, wish.revision)?;
        check(&rollout, &waves, wish.kind)?;
        if wish.kind == ChangeKind::Resume && rollout.state == RolloutState::Running {
            // Already running: nothing is asked for, and a change asked for by somebody else stays.
            let standing = self.standing(tx, rollout, waves).await?;
            return Ok(Some(Done::Leave(Ordered::done(standing))));
        }
        let policy = wish.policy(&rollout)?;
        let needed = self
            .needed_for(tx, &rollout, wish.kind, policy.as_ref())
            .await?;
        if needed == 0 {
            let carried = Carried {
                by,
                kind: wish.kind,
                policy: policy.as_ref(),
                author: &by.name,
                reason: &wish.reason,
                change: None,
            };
            return self.carry_out(tx, id, &carried).await;
        }
        let asking = Asking {
            actor: &by.actor,
            asked_by: &by.name,
            kind: wish.kind,
            policy: policy.as_ref(),
            needed,
            why: format!("by {}, requested by {}", others(needed), by.name),
            reason: &wish.reason,
        };
        self.ask_in(tx, &rollout, &waves, asking).await
    }
}

/// Number of approvals that a product's rollouts need now.
pub(crate) async fn approvals_of(tx: &mut Tx, product: &ProductName) -> Result<u32, CoreError> {
    let settings = products::all_settings(tx).await?;
    let found = settings.into_iter().find(|(p, _)| p == product);
    Ok(found.map_or(0, |(_, settings)| settings.approvals))
}

/// Refuses an impossible change before anybody is asked to approve it.
fn check(rollout: &Rollout, waves: &[WaveRow], kind: ChangeKind) -> Result<(), CoreError> {
    let event = match kind {
        ChangeKind::Start => RolloutEvent::Start,
        ChangeKind::Resume => RolloutEvent::Resume,
        ChangeKind::Edit => RolloutEvent::Edit,
        ChangeKind::Advance => {
            let waits = rollout.policy.by_hand
                && !rollout.state.is_final()
                && waves.iter().enumerate().any(|(i, w)| {
                    w.progress.state == WaveState::Pending && i > rollout.released as usize
                });
            return if waits {
                Ok(())
            } else {
                Err(CoreError::refuse(
                    ProblemCode::Conflict,
                    "no wave of this rollout is waiting for a person to release it",
                ))
            };
        }
    };
    rollout.state.apply(event)?;
    Ok(())
}

/// Counts the approvals that a change still waits for.
pub(crate) fn waiting(
    change: Change,
    plan: String,
    authors: &BTreeSet<String>,
    given_by: BTreeSet<String>,
    needed: u32,
    people: People,
) -> Waiting {
    let request = Request {
        needed,
        asked_by: &change.asked_by,
        authors,
        given_by: &given_by,
        plan: &plan,
        people: &people,
    };
    let missing = request.missing();
    Waiting {
        change: Change { plan, ..change },
        needed,
        missing,
        given_by,
        people,
    }
}

/// Names of the plan's authors: who created the rollout, and everyone who edited it.
pub(crate) fn authors_of(rollout: &Rollout, changes: &[Change]) -> BTreeSet<String> {
    let edits = changes
        .iter()
        .filter(|c| c.kind == ChangeKind::Edit && c.state == ChangeState::Applied);
    std::iter::once(rollout.created_by.clone())
        .chain(edits.map(|change| change.asked_by.clone()))
        .collect()
}

async fn authors(tx: &mut Tx, rollout: &Rollout) -> Result<BTreeSet<String>, CoreError> {
    let changes = changes::of_rollout(tx, rollout.id).await?;
    Ok(authors_of(rollout, &changes))
}
