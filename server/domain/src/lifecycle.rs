//! Lifecycle of a release, from draft to end of life.

use tidegate_protocol::{Channel, Stage};

/// Reason a release may not take a stage.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LifecycleRefusal {
    /// Stages go forward only.
    #[error("a release that is {from} cannot become {to}: {}", no_way(*from))]
    NotForward {
        /// Current stage.
        from: Stage,
        /// Requested stage.
        to: Stage,
    },
    /// Skipping a stage needs a reason.
    #[error("going from {from} to {to} skips {skipped}: give a reason")]
    SkipNeedsReason {
        /// Current stage.
        from: Stage,
        /// Requested stage.
        to: Stage,
        /// First stage skipped.
        skipped: Stage,
    },
    /// A withdrawal needs a reason.
    #[error("withdrawing a release needs a reason")]
    WithdrawNeedsReason,
    /// The release has no artifact to offer.
    #[error("the release has no artifact: publish one first")]
    NoArtifact,
    /// The offline role of a channel does not list every artifact.
    #[error(
        "the signed role of channel {channel} does not list {missing}: promote with the key of \
         that channel, which signs it"
    )]
    NotSigned {
        /// The channel whose role is behind.
        channel: Channel,
        /// The platform of the first artifact that it lacks.
        missing: String,
    },
}

/// Says why a release that has a stage takes no earlier one, and what to do instead.
fn no_way(from: Stage) -> &'static str {
    match from {
        Stage::Withdrawn => "a withdrawal is for good, publish it under a new version",
        Stage::Eol => "its life has ended, publish it under a new version",
        _ => "stages go forward only",
    }
}

/// Facts about a release that decide its stage.
#[derive(Debug, Clone)]
pub struct ReleaseStanding {
    /// Its stage.
    pub stage: Stage,
    /// Platform of each artifact and the channels whose offline role lists it.
    pub artifacts: Vec<(String, Vec<Channel>)>,
}

impl ReleaseStanding {
    /// Returns the stage after a promotion, or a refusal. Asking for the current stage is not an
    /// error and changes nothing: a promotion whose answer was lost may be retried.
    pub fn promote(&self, to: Stage, reason: Option<&str>) -> Result<Stage, LifecycleRefusal> {
        let from = self.stage;
        if to == from {
            return Ok(to);
        }
        if to == Stage::Withdrawn {
            return self.withdraw(reason);
        }
        if to < from {
            return Err(LifecycleRefusal::NotForward { from, to });
        }
        let skipped = Stage::ALL.iter().copied().find(|s| *s > from && *s < to);
        if let Some(skipped) = skipped
            && is_blank(reason)
        {
            return Err(LifecycleRefusal::SkipNeedsReason { from, to, skipped });
        }
        if self.artifacts.is_empty() {
            return Err(LifecycleRefusal::NoArtifact);
        }
        for channel in to.channels() {
            let behind = self
                .artifacts
                .iter()
                .find(|(_, listed)| !listed.contains(channel));
            if let Some((platform, _)) = behind {
                return Err(LifecycleRefusal::NotSigned {
                    channel: *channel,
                    missing: platform.clone(),
                });
            }
        }
        Ok(to)
    }

    /// Withdraws a release, from any stage.
    pub fn withdraw(&self, reason: Option<&str>) -> Result<Stage, LifecycleRefusal> {
        if is_blank(reason) {
            return Err(LifecycleRefusal::WithdrawNeedsReason);
        }
        Ok(Stage::Withdrawn)
    }
}

fn is_blank(reason: Option<&str>) -> bool {
    reason.is_none_or(|r| r.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(stage: Stage) -> ReleaseStanding {
        ReleaseStanding {
            stage,
            artifacts: vec![("linux-x86_64".into(), Channel::ALL.to_vec())],
        }
    }

    /// The whole matrix, with a reason given.
    #[test]
    fn stages_go_forward_and_withdrawn_is_final() {
        for from in Stage::ALL {
            for to in Stage::ALL {
                let allowed = to >= from;
                let result = standing(*from).promote(*to, Some("because"));
                assert_eq!(result.is_ok(), allowed, "{from} -> {to}: {result:?}");
            }
        }
    }

    #[test]
    fn a_skipped_stage_needs_a_reason() {
        let draft = standing(Stage::Draft);
        assert!(draft.promote(Stage::Alpha, None).is_ok());
        let refused = draft.promote(Stage::Ga, Some("  "));
        assert!(matches!(
            refused,
            Err(LifecycleRefusal::SkipNeedsReason {
                skipped: Stage::Alpha,
                ..
            })
        ));
        assert!(draft.promote(Stage::Ga, Some("hotfix")).is_ok());
    }

    #[test]
    fn a_stage_needs_the_signatures_of_every_channel_that_takes_it() {
        let mut release = standing(Stage::Alpha);
        release.artifacts[0].1 = vec![Channel::Alpha, Channel::Beta];
        assert!(release.promote(Stage::Beta, None).is_ok());
        assert!(matches!(
            release.promote(Stage::Ga, Some("r")),
            Err(LifecycleRefusal::NotSigned {
                channel: Channel::Stable,
                ..
            })
        ));
        release.artifacts.clear();
        assert_eq!(
            release.promote(Stage::Beta, None),
            Err(LifecycleRefusal::NoArtifact)
        );
    }
}
