//! Presets as a request names them: the domain's, with their rules in the words of a body.

use std::collections::BTreeMap;

use tidegate_domain::rollout::preset::{self, PRESETS};
use tidegate_domain::rollout::{Wave, WaveSize};
use tidegate_protocol::Region;

use crate::policy::pace_words;
use crate::{Invalid, PolicyBody};

/// A preset.
#[derive(Debug, Clone)]
pub struct Preset {
    /// Its purpose.
    pub intent: String,
    /// Rules of pace and gate; the caller's own rules take precedence.
    pub policy: PolicyBody,
    planned: preset::Preset,
}

impl From<preset::Preset> for Preset {
    fn from(preset: preset::Preset) -> Self {
        Self {
            intent: preset.intent.into(),
            policy: PolicyBody {
                soak_s: Some(preset.soak.as_secs()),
                ..pace_words(preset.pace)
            },
            planned: preset,
        }
    }
}

/// Returns all presets with their names.
pub fn all() -> Vec<(&'static str, Preset)> {
    PRESETS.map(|preset| (preset.name, preset.into())).into()
}

/// Returns a preset by name.
pub fn find(name: &str) -> Result<Preset, Invalid> {
    preset::find(name).map(Into::into).map_err(Invalid::new)
}

impl Preset {
    /// Builds the waves for regions in order; `devices` is the number of devices that the release
    /// applies to in each.
    pub fn waves(
        &self,
        regions: &[Region],
        batch: WaveSize,
        devices: &BTreeMap<Region, u64>,
    ) -> Result<Vec<Wave>, Invalid> {
        self.planned
            .waves(regions, batch, devices)
            .map_err(Invalid::new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tidegate_domain::rollout::Pace;

    #[test]
    fn the_rules_of_every_preset_are_read_back_as_the_domain_has_them() {
        for preset in PRESETS {
            let policy = find(preset.name).unwrap().policy.policy().unwrap();
            assert_eq!(policy.pace, preset.pace, "{}", preset.name);
            assert_eq!(policy.gate.soak, preset.soak, "{}", preset.name);
        }
    }

    #[test]
    fn a_rule_of_the_caller_replaces_the_one_of_the_preset_alone() {
        let own = PolicyBody {
            pace: Some("evidence".into()),
            ..PolicyBody::default()
        };
        let policy = own
            .or(find("all-at-once").unwrap().policy)
            .policy()
            .unwrap();
        assert_eq!(policy.pace, Pace::Evidence { start: 8 });
        assert_eq!(policy.gate.soak, Duration::ZERO);
    }
}
