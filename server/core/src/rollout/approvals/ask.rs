//! Asking for the approvals of a change.

use tidegate_domain::event::{Actor, Event};
use tidegate_domain::rollout::RolloutEvent;
use tidegate_domain::rollout::policy::Policy;
use tidegate_protocol::{ChangeId, Explained, Reason};
use tidegate_store::changes::{self, Change, ChangeKind, ChangeState};
use tidegate_store::rollouts::{self, Rollout};
use tidegate_store::waves::WaveRow;
use tidegate_store::{Tx, policy};

use super::plan::plan_hash;
use crate::app::App;
use crate::commit::Done;
use crate::rollout::Ordered;
use crate::{CoreError, random};

/// Change to record, that waits for approvals.
pub(crate) struct Asking<'a> {
    pub(crate) actor: &'a Actor,
    /// Name of the person whose request it is: others must approve it.
    pub(crate) asked_by: &'a str,
    pub(crate) kind: ChangeKind,
    /// New rules of an edit.
    pub(crate) policy: Option<&'a Policy>,
    pub(crate) needed: u32,
    /// Explanation of the wait, shown with the rollout.
    pub(crate) why: String,
    pub(crate) reason: &'a str,
}

/// Says how many others must approve.
pub(crate) fn others(needed: u32) -> String {
    match needed {
        1 => "1 other person".to_owned(),
        more => format!("{more} other people"),
    }
}

impl App {
    /// Records a change that waits for approvals; `None` if the rollout has just changed.
    pub(crate) async fn ask_in(
        &self,
        tx: &mut Tx,
        rollout: &Rollout,
        waves: &[WaveRow],
        asking: Asking<'_>,
    ) -> Result<Option<Done<Ordered>>, CoreError> {
        let now = self.now();
        let Asking { kind, policy, .. } = asking;
        let change = Change {
            id: ChangeId::from_random(random::bytes()),
            rollout: rollout.id,
            kind,
            body: policy.map_or(Ok(String::new()), policy::to_column)?,
            plan: plan_hash(rollout, waves, kind, policy.unwrap_or(&rollout.policy))?,
            asked_by: asking.asked_by.to_owned(),
            asked_at: now,
            state: ChangeState::Waiting,
        };
        changes::insert(tx, &change).await?;
        // Whoever lowers the product's rule later does not lower what this was asked under.
        rollouts::require(tx, rollout.id, asking.needed).await?;
        if kind == ChangeKind::Start {
            let state = rollout.state.apply(RolloutEvent::AskApproval)?;
            let why = Explained::new(Reason::ApprovalNeeded, asking.why);
            if !rollouts::set_state(tx, rollout, state, &why, now).await? {
                return Ok(None);
            }
        }
        let asked = Event::ApprovalAsked {
            product: rollout.product.clone(),
            rollout: rollout.id,
            change: change.id,
            asked: kind,
            needed: asking.needed,
            plan: change.plan,
            reason: asking.reason.to_owned(),
        };
        let ordered = Ordered::done(self.standing_in(tx, rollout.id).await?);
        Ok(Some(Done::by(asking.actor, ordered, [asked])))
    }
}
