//! Devices that could not be ordered back: a rollout that would update some starts only if somebody
//! accepts them, by number.

use tidegate_domain::admission::Limit;
use tidegate_domain::event::Event;
use tidegate_protocol::{ProblemCode, RolloutId};
use tidegate_store::Tx;
use tidegate_store::rollouts::{self, Rollout};

use crate::CoreError;
use crate::app::App;
use crate::rollout::preview::{Limited, Preview};
use crate::rollout::read;

impl App {
    /// Refuses to start a rollout that would update more devices without a way back than were accepted:
    /// in the request, or with the start that waits for approvals. Returns the number accepted, if there
    /// are any such devices. Counted outside of the transaction of the start: it looks at every device.
    pub(crate) async fn check_way_back(
        &self,
        id: RolloutId,
        accepted: Option<u64>,
    ) -> Result<Option<u64>, CoreError> {
        let mut tx = self.db.read().await?;
        let (rollout, waves) = read(&mut tx, id).await?;
        drop(tx);
        let preview = self.preview(&self.fleet.plan(), &rollout, &waves);
        let found = preview.no_way_back();
        if found == 0 {
            return Ok(None);
        }
        let accepted = accepted.or(rollout.accepted_no_way_back);
        if accepted.is_none_or(|accepted| found > accepted) {
            return Err(refusal(&rollout, &preview, found, accepted));
        }
        Ok(accepted)
    }
}

/// Notes the number accepted with the rollout; returns the event for it.
pub(crate) async fn note_accepted(
    tx: &mut Tx,
    id: RolloutId,
    accepted: Option<u64>,
) -> Result<Option<Event>, CoreError> {
    let Some(devices) = accepted else {
        return Ok(None);
    };
    let (rollout, _) = read(tx, id).await?;
    if rollout.accepted_no_way_back == Some(devices) {
        return Ok(None);
    }
    rollouts::accept_no_way_back(tx, id, devices).await?;
    Ok(Some(Event::NoWayBackAccepted {
        product: rollout.product,
        rollout: id,
        devices,
    }))
}

fn refusal(rollout: &Rollout, preview: &Preview, found: u64, accepted: Option<u64>) -> CoreError {
    let never = preview.limited.iter().filter(|l| l.limit == Limit::Never);
    let kinds: Vec<String> = never.take(3).map(kind).collect();
    let but = accepted.map_or_else(String::new, |n| format!(", and {n} were accepted"));
    CoreError::refuse(
        ProblemCode::Conflict,
        format!(
            "{found} devices could not be ordered back from {}{but}: {}. Look at them with dry_run; start with \
             accept_no_way_back {found} (--accept-no-way-back {found}) if that is meant",
            rollout.release,
            kinds.join("; ")
        ),
    )
}

fn kind(limited: &Limited) -> String {
    format!(
        "{} because {}, for example {}",
        limited.devices,
        limited.reason,
        limited.examples.join(", ")
    )
}
