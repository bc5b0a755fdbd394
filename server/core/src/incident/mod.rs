//! Incidents: one order rolls back a release; the answer is the blast-radius sheet.

mod each;
pub mod holds;
mod open;
mod sheet;

use tidegate_domain::event::{Actor, Event};
use tidegate_domain::incident::Sheet;
use tidegate_domain::rollout::{RolloutEvent, RolloutState};
use tidegate_domain::selector::Selector;
use tidegate_protocol::{IncidentId, ProblemCode, ProductName, RolloutId, Version, error_chain};
use tidegate_store::Tx;
use tidegate_store::incidents::{self, Incident};
use tidegate_store::rollouts::{self, Rollout};

use self::each::Which;
use self::open::{open_one, opened_event};
use crate::app::App;
use crate::commit::Done;
use crate::memory::access::Operator;
use crate::rollout::{Ordered, read};
use crate::{CoreError, random};

pub use self::sheet::{Worst, standing_word};

/// Target of a rollback.
#[derive(Debug, Clone)]
pub enum ReturnOf {
    /// One rollout.
    Rollout(RolloutId),
    /// Every rollout of a release.
    Release(ProductName, Version),
}

/// Incident with the current position of its devices.
#[derive(Debug, Clone)]
pub struct IncidentStanding {
    /// Stored row, or the one a dry run would create.
    pub incident: Incident,
    /// Counts of its devices by position.
    pub sheet: Sheet,
    /// Devices that are not back yet, worst first: at most 100.
    pub worst: Vec<Worst>,
    /// Results of the order for its rollouts.
    pub rollouts: Vec<Ordered>,
    /// Rollouts that did not take the order, and the reason: somebody must look after each of them.
    pub failed: Vec<(RolloutId, String)>,
    /// Whether this was a dry run.
    pub dry_run: bool,
}

/// Number of incidents looked at when those that are over are closed.
const RECENT: i64 = 500;

impl App {
    /// Rolls back a release: stops offers, calls off devices that have not switched, sends the
    /// others back. Needs one person, no approval, no revision. With a selector only its devices
    /// are sent back, and the rollout is halted.
    pub async fn order_return(
        &self,
        by: &Operator,
        what: ReturnOf,
        selector: &Selector,
        reason: &str,
        dry_run: bool,
    ) -> Result<IncidentStanding, CoreError> {
        let order = if selector == &Selector::default() {
            RolloutEvent::RollBack
        } else {
            RolloutEvent::Halt
        };
        let found = {
            let mut tx = self.db.read().await?;
            match &what {
                ReturnOf::Rollout(id) => vec![read(&mut tx, *id).await?.0],
                ReturnOf::Release(product, version) => {
                    rollouts::of_release(&mut tx, product, version).await?
                }
            }
        };
        let Some(first) = found.first().cloned() else {
            let (product, version) = match what {
                ReturnOf::Release(product, version) => (product, version),
                ReturnOf::Rollout(id) => return Err(CoreError::not_found(id)),
            };
            return Err(CoreError::not_found(format!(
                "rollout of {product} {version}"
            )));
        };
        let single = found.len() == 1;
        let concerned: Vec<&Rollout> = found
            .iter()
            .filter(|r| r.state.apply(order).is_ok() || selective(r, order))
            .collect();
        if concerned.is_empty() {
            // The refusal names the state that rules it out.
            first.state.apply(order)?;
        }
        if order == RolloutEvent::Halt {
            let would = Incident {
                id: IncidentId::from_random([0; 16]),
                product: first.product.clone(),
                release: first.release.clone(),
                selector: selector.clone(),
                rollouts: concerned.iter().map(|r| r.id).collect(),
                reason: String::new(),
                opened_at: self.now(),
                opened_by: String::new(),
                closed_at: None,
            };
            // A selector that matches no device is a typing error, and would halt the rollout for
            // everybody.
            if self.sheet(&would).0.exposed == 0 {
                return Err(CoreError::refuse(
                    ProblemCode::Conflict,
                    format!("no exposed device matches {selector}; nothing was ordered"),
                ));
            }
        }
        let mut incident = Incident {
            id: IncidentId::from_random(random::bytes()),
            product: first.product.clone(),
            release: first.release.clone(),
            selector: selector.clone(),
            rollouts: concerned.iter().map(|r| r.id).collect(),
            reason: reason.to_owned(),
            opened_at: self.now(),
            opened_by: by.name.clone(),
            closed_at: None,
        };
        let (mut ordered, mut failed) = (Vec::new(), Vec::new());
        // Each order is one short transaction, and the first one opens the incident as well: after a
        // crash no release is on its way back without somebody who looks after it.
        for rollout in &concerned {
            // Before the rollout moves: a rollback under way with nobody left to bring back is over at once.
            let again = if dry_run || order != RolloutEvent::RollBack {
                0
            } else {
                self.return_each(by, &incident, rollout.id, Which::LeftBehind)
                    .await?
            };
            let over = rollout.state == RolloutState::RolledBackPartly && again == 0 && !dry_run;
            let result = if selective(rollout, order) || over {
                Ok(Ordered {
                    standing: self.rollout(rollout.id).await?,
                    dry_run,
                })
            } else {
                self.order_for_incident(by, rollout.id, order, &incident, dry_run)
                    .await
            };
            match result {
                Ok(done) => ordered.push(done),
                Err(error) if single => return Err(error),
                Err(error) => {
                    let why = error_chain(&error);
                    tracing::warn!(rollout = %rollout.id, why, "the rollout was not rolled back");
                    // An internal failure is reported to the caller without details, as everywhere
                    // else.
                    failed.push((rollout.id, error.problem().detail));
                }
            }
        }
        if !dry_run {
            let opened = incident.clone();
            incident = self
                .change_or_leave(async |tx| match open_one(tx, &opened).await? {
                    Some(open) => Ok(Done::Leave(open)),
                    None => Ok(Done::by(&by.actor, opened.clone(), [opened_event(&opened)])),
                })
                .await?;
            if order == RolloutEvent::Halt {
                for rollout in &incident.rollouts {
                    self.return_each(by, &incident, *rollout, Which::Selected)
                        .await?;
                }
                self.fleet.wake_held();
            }
        }
        let (sheet, worst) = self.sheet_for(&incident, dry_run);
        Ok(IncidentStanding {
            incident,
            sheet,
            worst,
            rollouts: ordered,
            failed,
            dry_run,
        })
    }

    /// Opens an incident for a rollout that the gate rolls back, in the gate's own transaction.
    pub(crate) async fn open_incident(
        &self,
        tx: &mut Tx,
        rollout: &Rollout,
        reason: &str,
    ) -> Result<Option<Event>, CoreError> {
        if incidents::open_of(tx, rollout.id).await?.is_some() {
            return Ok(None);
        }
        let incident = Incident {
            id: IncidentId::from_random(random::bytes()),
            product: rollout.product.clone(),
            release: rollout.release.clone(),
            selector: Selector::default(),
            rollouts: vec![rollout.id],
            reason: reason.to_owned(),
            opened_at: self.now(),
            opened_by: Actor::Planner.to_string(),
            closed_at: None,
        };
        incidents::insert(tx, &incident).await?;
        Ok(Some(opened_event(&incident)))
    }

    /// Returns an incident with the current position of its devices.
    pub async fn incident(&self, id: IncidentId) -> Result<IncidentStanding, CoreError> {
        let mut tx = self.db.read().await?;
        let incident = incidents::one(&mut tx, id)
            .await?
            .ok_or_else(|| CoreError::not_found(format!("incident {id}")))?;
        drop(tx);
        let mut rollouts = Vec::new();
        for id in &incident.rollouts {
            rollouts.push(Ordered {
                standing: self.rollout(*id).await?,
                dry_run: false,
            });
        }
        let (sheet, worst) = self.sheet(&incident);
        Ok(IncidentStanding {
            incident,
            sheet,
            worst,
            rollouts,
            failed: Vec::new(),
            dry_run: false,
        })
    }

    /// Closes incidents that are over. Called only by the leader.
    pub async fn close_incidents(&self) -> Result<(), CoreError> {
        let now = self.now();
        let recent = incidents::page(
            &mut self.db.read().await?,
            tidegate_protocol::Timestamp::from_micros(i64::MAX),
            "",
            RECENT,
        )
        .await?;
        let plan = self.fleet.plan();
        for incident in recent.into_iter().filter(|i| i.closed_at.is_none()) {
            let under_way = incident.rollouts.iter().any(|id| {
                plan.rollouts
                    .get(id)
                    .is_some_and(|(r, _)| r.state == RolloutState::RollingBack)
            });
            let (sheet, _) = self.sheet(&incident);
            let left = sheet.still_on_it() - sheet.cannot_return.values().sum::<u64>();
            if under_way || left + sheet.before_switch > 0 {
                continue;
            }
            self.change_or_leave(async |tx| {
                if !incidents::close(tx, incident.id, now).await? {
                    return Ok(Done::Leave(()));
                }
                let closed = Event::IncidentClosed {
                    incident: incident.id,
                    product: incident.product.clone(),
                    rollout: incident.rollouts.first().copied(),
                };
                Ok(Done::by(&Actor::Planner, (), [closed]))
            })
            .await?;
        }
        Ok(())
    }

    /// Extends the rollback window: devices of the rollout that are in it keep the previous version
    /// this many seconds longer, or until they are told otherwise.
    pub async fn keep_longer(
        &self,
        by: &Operator,
        id: RolloutId,
        seconds: u32,
        frozen: Option<bool>,
        reason: &str,
    ) -> Result<Ordered, CoreError> {
        const MOST: u32 = 30 * 86_400;
        self.change(&by.actor, async |tx| {
            let (rollout, _) = read(tx, id).await?;
            if seconds > MOST || rollout.extended_s.saturating_add(seconds) > MOST {
                let text = "a rollback window can be extended by at most 30 days in total";
                return Err(CoreError::refuse(ProblemCode::InvalidRequest, text));
            }
            let frozen_now = frozen.unwrap_or(rollout.frozen);
            rollouts::keep_longer(tx, id, seconds, frozen_now).await?;
            let kept = Event::WindowsKept {
                product: rollout.product,
                rollout: id,
                seconds,
                frozen,
                reason: reason.to_owned(),
            };
            let standing = self.standing_in(tx, id).await?;
            Ok((Ordered::done(standing), vec![kept]))
        })
        .await
    }
}

/// Returns whether the rollout no longer offers anything, so that single devices can be sent back without
/// halting it.
fn selective(rollout: &Rollout, order: RolloutEvent) -> bool {
    order == RolloutEvent::Halt
        && matches!(
            rollout.state,
            RolloutState::Cancelled
                | RolloutState::RollingBack
                | RolloutState::RolledBack
                | RolloutState::RolledBackPartly
        )
}
