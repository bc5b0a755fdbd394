//! Effect of a device's report on its deployment.

use tidegate_protocol::{DeploymentState as State, Explained, Timestamp, Version};

use super::{DeploymentEvent, DeploymentFacts};

/// A device's report.
#[derive(Debug, Clone)]
pub struct Told<'a> {
    /// Its state in the deployment.
    pub state: State,
    /// The release that it runs.
    pub runs: Option<&'a Version>,
    /// Release of the rollout; `None` if the rollout is no longer known.
    pub release: Option<&'a Version>,
    /// The reason, if there is one.
    pub reason: Option<Explained>,
}

/// Result of a report that moves the deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// The deployment after the report.
    pub facts: DeploymentFacts,
    /// Whether the device has switched with this report.
    pub switched: bool,
    /// Reason for quarantining the leg for the device from now on, set when it rolled back from it.
    pub quarantined: Option<&'static str>,
}

/// Applies a report. `None` if it moves nothing: progress on the way back, or a late report on
/// something that is over. That is not an error, and the report is acknowledged.
pub fn hear(was: &DeploymentFacts, told: &Told<'_>, now: Timestamp) -> Option<Heard> {
    // Healthy on a release other than the goal: one leg of the path is done, the next one follows.
    let leg_done =
        told.state == State::Succeeded && told.runs.is_some() && told.runs != told.release;
    let event = if leg_done {
        DeploymentEvent::LegDone
    } else {
        DeploymentEvent::Reported(told.state)
    };
    let facts = was.after(event, told.reason.clone(), now).ok()?;
    let quarantined = (facts.state == State::RolledBack).then(|| {
        let reason = facts.reason.as_ref();
        reason.map_or("rolled_back", |r| r.code.as_str())
    });
    Some(Heard {
        switched: facts.state.has_switched() && !was.state.has_switched(),
        quarantined,
        facts,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tidegate_protocol::{DeploymentId, Reason};

    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn facts(state: State) -> DeploymentFacts {
        DeploymentFacts {
            id: DeploymentId::from_random([1; 16]),
            wave: 0,
            state,
            from: Some("1.0.0".parse().unwrap()),
            leg: "1.5.0".parse().unwrap(),
            reason: None,
            attempts: 1,
            took: false,
            failures: BTreeMap::new(),
            updated_at: Timestamp::ZERO,
        }
    }

    #[test]
    fn the_table_of_reports() {
        let version = |text: &str| -> Version { text.parse().unwrap() };
        let (leg, goal) = (version("1.5.0"), version("2.0.0"));
        // was, said, runs, goal -> is (None: not taken), switched, quarantined
        let cases = [
            (
                State::Offered,
                State::Downloading,
                None,
                Some(&goal),
                Some(State::Downloading),
                false,
                None,
            ),
            // Reports in between may be lost.
            (
                State::Offered,
                State::Probation,
                Some(&leg),
                Some(&goal),
                Some(State::Probation),
                true,
                None,
            ),
            (
                State::Verifying,
                State::Probation,
                Some(&leg),
                Some(&leg),
                Some(State::Probation),
                false,
                None,
            ),
            (
                State::Probation,
                State::Succeeded,
                Some(&leg),
                Some(&leg),
                Some(State::Succeeded),
                false,
                None,
            ),
            // The leg is done, the goal is further on: it is offered the next leg.
            (
                State::Probation,
                State::Succeeded,
                Some(&leg),
                Some(&goal),
                Some(State::Offered),
                false,
                None,
            ),
            // It reports that nothing runs: no leg is done.
            (
                State::Probation,
                State::Succeeded,
                None,
                Some(&goal),
                Some(State::Succeeded),
                false,
                None,
            ),
            (
                State::Verifying,
                State::RolledBack,
                Some(&leg),
                Some(&goal),
                Some(State::RolledBack),
                false,
                Some("health_failed"),
            ),
            // Progress on the way back, and late reports, move nothing.
            (
                State::RollingBack,
                State::Probation,
                Some(&leg),
                Some(&goal),
                None,
                false,
                None,
            ),
            (
                State::RollingBack,
                State::RolledBack,
                Some(&leg),
                Some(&goal),
                Some(State::RolledBack),
                false,
                Some("health_failed"),
            ),
            (
                State::Cancelled,
                State::Failed,
                None,
                Some(&goal),
                Some(State::Failed),
                false,
                None,
            ),
            (
                State::Succeeded,
                State::Downloading,
                None,
                Some(&goal),
                None,
                false,
                None,
            ),
        ];
        for (was, said, runs, goal, is, switched, quarantined) in cases {
            let told = Told {
                state: said,
                runs,
                release: goal,
                reason: Some(Reason::HealthFailed.into()),
            };
            let heard = hear(&facts(was), &told, NOW);
            let case = format!("{was} hears {said}");
            assert_eq!(heard.as_ref().map(|h| h.facts.state), is, "{case}");
            if let Some(heard) = heard {
                assert_eq!(heard.switched, switched, "{case}");
                assert_eq!(heard.quarantined, quarantined, "{case}");
            }
        }
    }
}
