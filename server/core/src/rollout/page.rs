//! Pages of rollouts, each with its current counts.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_protocol::Timestamp;
use tidegate_store::changes::ChangeState;
use tidegate_store::pages::{self, PageRows, RolloutPage};
use tidegate_store::products;

use super::RolloutStanding;
use super::aggregate::by_rollout;
use super::approvals::{asked_plan, authors_of, waiting};
use crate::CoreError;
use crate::app::App;
use crate::memory::tokens::people;

impl App {
    /// Returns rollouts older than a position, newest first; an empty `product` selects all. Costs
    /// a fixed number of statements.
    pub async fn rollouts(
        &self,
        (before, before_id): (Timestamp, &str),
        product: &str,
        limit: i64,
    ) -> Result<Vec<RolloutStanding>, CoreError> {
        let page = RolloutPage {
            before,
            before_id,
            product,
            limit,
        };
        let mut tx = self.db.read().await?;
        let rows = pages::rollouts(&mut tx, &page).await?;
        let settings = products::all_settings(&mut tx).await?;
        let people = people(&mut tx).await?;
        drop(tx);
        let needed: BTreeMap<_, u32> = settings
            .into_iter()
            .map(|(product, settings)| (product, settings.approvals))
            .collect();
        let PageRows {
            rollouts,
            mut waves,
            tallies,
            progress,
            mut strata,
            changes,
            approvals,
        } = rows;
        let mut tallies = by_rollout(&tallies);
        let silent = rollouts
            .iter()
            .map(|rollout| (rollout.id, self.silent_before(rollout)))
            .collect();
        let mut quiet = self.fleet.quiet(&silent);
        let mut standings = Vec::with_capacity(rollouts.len());
        for rollout in rollouts {
            let id = rollout.id;
            let waves = waves.remove(&id).unwrap_or_default();
            let compared = strata
                .remove(&id)
                .filter(|_| rollout.policy.gate.compare)
                .unwrap_or_default();
            let view = self.view(
                &rollout,
                &waves,
                &tallies.remove(&id).unwrap_or_default(),
                &quiet.remove(&id).unwrap_or_default(),
                progress.get(&id).copied().unwrap_or_default(),
                compared,
            );
            let changes = changes.get(&id).map(Vec::as_slice).unwrap_or_default();
            let change = changes.iter().find(|c| c.state == ChangeState::Waiting);
            let asked = match change {
                None => None,
                Some(change) => {
                    let plan = asked_plan(&rollout, &waves, change)?;
                    let given_by: BTreeSet<String> = approvals
                        .iter()
                        .filter(|(of, seen, _)| *of == change.id && *seen == plan)
                        .map(|(.., by)| by.clone())
                        .collect();
                    let authors = authors_of(&rollout, changes);
                    let now = needed.get(&rollout.product).copied().unwrap_or(0);
                    let needed = now.max(rollout.approvals);
                    let people = people.clone();
                    Some(waiting(
                        change.clone(),
                        plan,
                        &authors,
                        given_by,
                        needed,
                        people,
                    ))
                }
            };
            standings.push(self.with_view(rollout, waves, view, asked));
        }
        Ok(standings)
    }
}
