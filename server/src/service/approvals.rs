//! Widening a rollout: its start, its next wave, its going on after a halt, larger limits. Each
//! may need other people's word, bound to the plan that they saw. Narrowing never does.

use std::collections::BTreeSet;

use serde::Serialize;
use tidegate_domain::approval::{ApprovalRefusal, Request};
use tidegate_domain::rollout::{RolloutEvent, RolloutState, WaveState};
use tidegate_protocol::{ChangeId, ProblemCode, RolloutId, Timestamp};

use super::ServiceError;
use super::access::Operator;
use super::rollouts::{Ordered, read, rollout_event, same_revision};
use super::widening::widens;
use crate::app::App;
use crate::random;
use crate::store::changes::{self, Change, ChangeKind, ChangeState};
use crate::store::events;
use crate::store::policy::Policy;
use crate::store::rollouts::{self, Rollout, WaveRow};
use crate::store::{Tx, products};

/// What waits for approvals.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// What was asked for.
    pub change: Change,
    /// How many must agree.
    pub needed: u32,
    /// How many more must.
    pub missing: u32,
    /// Who agreed.
    pub given_by: BTreeSet<String>,
}

/// Something that widens a rollout, as it is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What.
    pub kind: ChangeKind,
    /// The new rules, for an edit.
    pub policy: Option<Policy>,
    /// Why.
    pub reason: String,
    /// The revision that the caller looked at, where it matters to them.
    pub revision: Option<i64>,
    /// Only say what would be.
    pub dry_run: bool,
}

/// What a plan is made of: its hash is what people approve.
#[derive(Serialize)]
struct PlanText<'a> {
    rollout: String,
    product: &'a str,
    release: String,
    waves: Vec<[String; 3]>,
    policy: String,
    window_s: u32,
    max_attempts: u32,
    timeout_s: u32,
    asked: &'static str,
    wave: u32,
}

/// The hash of the plan that a change leads to.
fn plan_hash(rollout: &Rollout, waves: &[WaveRow], kind: ChangeKind, policy: &Policy) -> String {
    let text = PlanText {
        rollout: rollout.id.to_string(),
        product: rollout.product.as_str(),
        release: rollout.version.to_string(),
        waves: waves
            .iter()
            .map(|w| {
                [
                    w.wave.name.clone(),
                    w.wave.selector.to_string(),
                    w.wave.size.to_string(),
                ]
            })
            .collect(),
        policy: policy.to_column(),
        window_s: rollout.window_s,
        max_attempts: rollout.max_attempts,
        timeout_s: rollout.timeout_s,
        asked: kind.as_str(),
        wave: rollout.released,
    };
    let bytes = serde_json::to_vec(&text).unwrap_or_default();
    tidegate_delta::sha256(&bytes).to_string()
}

impl App {
    /// How many other people must approve what widens a rollout of a product.
    async fn needed(&self, tx: &mut Tx, rollout: &Rollout) -> Result<u32, ServiceError> {
        let settings = products::all_settings(tx).await?;
        let found = settings.into_iter().find(|(p, _)| *p == rollout.product);
        Ok(found.map_or(0, |(_, settings)| settings.approvals))
    }

    /// What waits for approvals, if anything does.
    pub(super) async fn asked(
        &self,
        tx: &mut Tx,
        rollout: &Rollout,
        waves: &[WaveRow],
    ) -> Result<Option<Waiting>, ServiceError> {
        let Some(change) = changes::waiting(tx, rollout.id).await? else {
            return Ok(None);
        };
        let policy = proposed(rollout, &change)?;
        // Bound to the plan as it is now: what was approved of another one does not count.
        let plan = plan_hash(rollout, waves, change.kind, &policy);
        let given_by = changes::approvals(tx, change.id, &plan).await?;
        let authors = authors(tx, rollout).await?;
        let needed = self.needed(tx, rollout).await?;
        let request = Request {
            needed,
            asked_by: &change.asked_by,
            authors: &authors,
            given_by: &given_by,
            plan: &plan,
        };
        let missing = request.missing();
        Ok(Some(Waiting {
            change: Change { plan, ..change },
            needed,
            missing,
            given_by,
        }))
    }

    /// Asks for something that widens a rollout: done at once where nobody needs to agree.
    pub async fn widen(
        &self,
        by: &Operator,
        id: RolloutId,
        wish: Wish,
    ) -> Result<Ordered, ServiceError> {
        let Wish {
            kind,
            policy,
            reason,
            revision,
            dry_run,
        } = wish;
        let now = self.now();
        let mut tx = self.db.write().await?;
        let (rollout, waves) = read(&mut tx, id).await?;
        same_revision(&rollout, revision)?;
        check(&rollout, &waves, kind)?;
        if kind == ChangeKind::Resume && rollout.state == RolloutState::Running {
            // It runs: nothing is asked for, and what somebody else asked for stays.
            let standing = self.standing(&mut tx, rollout, waves).await?;
            return Ok(Ordered { standing, dry_run });
        }
        let after = policy.as_ref().unwrap_or(&rollout.policy).clone();
        let started = !matches!(
            rollout.state,
            RolloutState::Draft | RolloutState::AwaitingApproval | RolloutState::Scheduled
        );
        let widening = match kind {
            // The plan of what has not started is approved with its start.
            ChangeKind::Edit => started && widens(&rollout.policy, &after),
            ChangeKind::Start | ChangeKind::Advance | ChangeKind::Resume => true,
        };
        let needed = if widening {
            self.needed(&mut tx, &rollout).await?
        } else {
            0
        };
        if dry_run {
            let event = match kind {
                ChangeKind::Start if needed > 0 => RolloutEvent::AskApproval,
                ChangeKind::Start => RolloutEvent::Start,
                ChangeKind::Resume if needed == 0 => RolloutEvent::Resume,
                ChangeKind::Advance | ChangeKind::Edit | ChangeKind::Resume => RolloutEvent::Edit,
            };
            let would = Rollout {
                policy: after,
                state: rollout.state.apply(event)?,
                ..rollout
            };
            let mut standing = self.standing(&mut tx, would, waves).await?;
            drop(tx);
            let plan = self.fleet.plan();
            standing.preview = Some(self.preview(&plan, &standing.rollout, &standing.waves));
            return Ok(Ordered {
                standing,
                dry_run: true,
            });
        }
        if needed == 0 {
            drop(tx);
            return self.apply(by, id, kind, policy, &reason, revision).await;
        }
        let change = Change {
            id: ChangeId::from_random(random::bytes()),
            rollout: id,
            kind,
            body: policy.as_ref().map(Policy::to_column).unwrap_or_default(),
            plan: plan_hash(&rollout, &waves, kind, &after),
            asked_by: by.name.clone(),
            asked_at: now,
            state: ChangeState::Waiting,
        };
        changes::insert(&mut tx, &change).await?;
        if kind == ChangeKind::Start {
            let state = rollout.state.apply(RolloutEvent::AskApproval)?;
            let why = tidegate_protocol::Explained::new(
                tidegate_protocol::Reason::ApprovalNeeded,
                format!("{needed} other people, asked for by {}", by.name),
            );
            if !rollouts::set_state(&mut tx, &rollout, state, &why, now).await? {
                return Err(changed_meanwhile());
            }
        }
        let text = format!(
            "{kind} asked for: {needed} other people must approve plan {}",
            change.plan
        );
        let event = rollout_event(&rollout, by.actor(), text);
        events::append(&mut tx, &self.origin, now, &event).await?;
        tx.commit().await?;
        self.fleet.reload_plan(&self.db).await?;
        Ok(Ordered {
            standing: self.rollout(id).await?,
            dry_run: false,
        })
    }

    /// Agrees to what waits; does it when enough people have.
    pub async fn approve(
        &self,
        by: &Operator,
        id: RolloutId,
        plan: &str,
    ) -> Result<Ordered, ServiceError> {
        let now = self.now();
        let mut tx = self.db.write().await?;
        let (rollout, waves) = read(&mut tx, id).await?;
        let refused = |refusal: ApprovalRefusal| {
            let code = match refusal {
                ApprovalRefusal::OwnRequest(_) => ProblemCode::Forbidden,
                ApprovalRefusal::OtherPlan { .. } => ProblemCode::PreconditionFailed,
                ApprovalRefusal::NothingAsked => ProblemCode::Conflict,
            };
            ServiceError::refuse(code, refusal.to_string())
        };
        let waiting = self
            .asked(&mut tx, &rollout, &waves)
            .await?
            .ok_or_else(|| refused(ApprovalRefusal::NothingAsked))?;
        let authors = authors(&mut tx, &rollout).await?;
        let mut given_by = waiting.given_by.clone();
        let request = |given_by: &BTreeSet<String>| {
            Request {
                needed: waiting.needed,
                asked_by: &waiting.change.asked_by,
                authors: &authors,
                given_by,
                plan: &waiting.change.plan,
            }
            .missing()
        };
        Request {
            needed: waiting.needed,
            asked_by: &waiting.change.asked_by,
            authors: &authors,
            given_by: &given_by,
            plan: &waiting.change.plan,
        }
        .may_approve(&by.name, plan)
        .map_err(refused)?;
        changes::approve(&mut tx, waiting.change.id, plan, &by.name, now).await?;
        given_by.insert(by.name.clone());
        let missing = request(&given_by);
        let text = format!("{} approved, {missing} more needed", waiting.change.kind);
        let event = rollout_event(&rollout, by.actor(), text);
        events::append(&mut tx, &self.origin, now, &event).await?;
        if missing == 0 {
            changes::end(&mut tx, waiting.change.id, ChangeState::Applied).await?;
        }
        tx.commit().await?;
        if missing > 0 {
            return Ok(Ordered {
                standing: self.rollout(id).await?,
                dry_run: false,
            });
        }
        let policy = (waiting.change.kind == ChangeKind::Edit)
            .then(|| proposed(&rollout, &waiting.change))
            .transpose()?;
        let asker = Operator {
            name: waiting.change.asked_by.clone(),
            ..by.clone()
        };
        let agreed: Vec<&str> = given_by.iter().map(String::as_str).collect();
        let reason = format!("approved by {}", agreed.join(", "));
        self.apply(&asker, id, waiting.change.kind, policy, &reason, None)
            .await
    }

    async fn apply(
        &self,
        by: &Operator,
        id: RolloutId,
        kind: ChangeKind,
        policy: Option<Policy>,
        reason: &str,
        revision: Option<i64>,
    ) -> Result<Ordered, ServiceError> {
        match (kind, policy) {
            (ChangeKind::Start, _) => {
                self.order_rollout(by, id, RolloutEvent::Start, reason, revision, false)
                    .await
            }
            (ChangeKind::Resume, _) => {
                self.order_rollout(by, id, RolloutEvent::Resume, reason, revision, false)
                    .await
            }
            (ChangeKind::Advance, _) => {
                let write = async |tx: &mut Tx, rollout: &Rollout| {
                    rollouts::release_wave(tx, rollout).await
                };
                self.edit(by, id, revision, "released the next wave".into(), write)
                    .await
            }
            (ChangeKind::Edit, Some(policy)) => {
                let name = by.name.clone();
                let text = format!("edited: {}", policy.to_column());
                let write = async |tx: &mut Tx, rollout: &Rollout| {
                    let now = self.now();
                    let state = rollout.state.apply(RolloutEvent::Edit)?;
                    if state != rollout.state {
                        let why = tidegate_protocol::Reason::RolloutNotStarted.into();
                        if !rollouts::set_state(tx, rollout, state, &why, now).await? {
                            return Ok(false);
                        }
                    }
                    let fresh = Rollout {
                        revision: rollout.revision + i64::from(state != rollout.state),
                        ..rollout.clone()
                    };
                    // Whoever edits becomes an author, and voids what was asked before.
                    note_author(tx, rollout, &name, now).await?;
                    Ok(rollouts::set_policy(tx, &fresh, &policy).await?)
                };
                self.edit_with(by, id, revision, text, write).await
            }
            (ChangeKind::Edit, None) => Err(ServiceError::invalid("name what is to be edited")),
        }
    }

    async fn edit(
        &self,
        by: &Operator,
        id: RolloutId,
        revision: Option<i64>,
        text: String,
        write: impl AsyncFnOnce(&mut Tx, &Rollout) -> Result<bool, crate::store::StoreError>,
    ) -> Result<Ordered, ServiceError> {
        let write = async |tx: &mut Tx, rollout: &Rollout| Ok(write(tx, rollout).await?);
        self.edit_with(by, id, revision, text, write).await
    }

    async fn edit_with(
        &self,
        by: &Operator,
        id: RolloutId,
        revision: Option<i64>,
        text: String,
        write: impl AsyncFnOnce(&mut Tx, &Rollout) -> Result<bool, ServiceError>,
    ) -> Result<Ordered, ServiceError> {
        let mut tx = self.db.write().await?;
        let (rollout, _) = read(&mut tx, id).await?;
        same_revision(&rollout, revision)?;
        if !write(&mut tx, &rollout).await? {
            return Err(changed_meanwhile());
        }
        let event = rollout_event(&rollout, by.actor(), text);
        events::append(&mut tx, &self.origin, self.now(), &event).await?;
        tx.commit().await?;
        self.fleet.reload_plan(&self.db).await?;
        self.wake_planner();
        Ok(Ordered {
            standing: self.rollout(id).await?,
            dry_run: false,
        })
    }
}

fn changed_meanwhile() -> ServiceError {
    ServiceError::refuse(
        ProblemCode::Conflict,
        "the rollout has just changed; try again",
    )
}

/// Refuses what makes no sense before anybody is asked to approve it.
fn check(rollout: &Rollout, waves: &[WaveRow], kind: ChangeKind) -> Result<(), ServiceError> {
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
                Err(ServiceError::refuse(
                    ProblemCode::Conflict,
                    "no wave of this rollout waits for a person's word",
                ))
            };
        }
    };
    rollout.state.apply(event)?;
    Ok(())
}

/// The policy that a change leads to.
fn proposed(rollout: &Rollout, change: &Change) -> Result<Policy, ServiceError> {
    if change.body.is_empty() {
        return Ok(rollout.policy.clone());
    }
    Ok(Policy::from_column(&change.body, 0, &rollout.policy.gate)?)
}

/// Who wrote the plan: who made the rollout, and whoever edited it.
async fn authors(tx: &mut Tx, rollout: &Rollout) -> Result<BTreeSet<String>, ServiceError> {
    let mut names = BTreeSet::from([rollout.created_by.clone()]);
    for change in changes::of_rollout(tx, rollout.id).await? {
        if change.kind == ChangeKind::Edit && change.state == ChangeState::Applied {
            names.insert(change.asked_by);
        }
    }
    Ok(names)
}

async fn note_author(
    tx: &mut Tx,
    rollout: &Rollout,
    name: &str,
    now: Timestamp,
) -> Result<(), ServiceError> {
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
