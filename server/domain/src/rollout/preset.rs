//! Presets: named ways to roll out, each with a sentence of intent.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_protocol::Region;

use super::{Pace, Wave, WaveSize};
use crate::BasisPoints;
use crate::selector::Selector;

/// A named way to roll out: waves, and the rules that go with them. Rules of the caller take
/// precedence; those that a preset does not name have their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    /// Its name.
    pub name: &'static str,
    /// Its purpose.
    pub intent: &'static str,
    /// Pace of every wave.
    pub pace: Pace,
    /// Soak time of every wave.
    pub soak: Duration,
    steps: &'static [Step],
}

/// One or more waves of a preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// One wave of every device.
    Everybody,
    /// A wave for each region, in order, of this share of its devices.
    Share(BasisPoints),
    /// A wave for each region, in order, of all its devices.
    Rest,
    /// Batches of the size that the caller gives, region after region.
    Batches,
}

/// Reason a preset gives no waves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PresetError {
    /// No preset has this name.
    #[error("there is no preset {0:?}; available: {names}", names = names())]
    Unknown(String),
    /// Its waves are made for regions, and none is given.
    #[error("this preset needs a list of regions, in order")]
    NoRegions,
}

/// Every preset.
pub const PRESETS: [Preset; 4] = [
    Preset {
        name: "canary-20",
        intent: "A fifth of each region first, in order; the rest only after every region has proved it.",
        pace: Pace::Evidence { start: 8 },
        soak: Duration::from_mins(30),
        steps: &[Step::Share(BasisPoints(2_000)), Step::Rest],
    },
    Preset {
        name: "regional-batches",
        intent: "Region after region in batches of an exact size: what a trading floor or a plant can watch.",
        pace: Pace::Evidence { start: 8 },
        soak: Duration::from_mins(10),
        steps: &[Step::Batches],
    },
    Preset {
        name: "exponential",
        intent: "Everybody in one wave whose size doubles every half hour while the gate holds.",
        pace: Pace::Exponential {
            start: 10,
            factor: 200,
            every: Duration::from_mins(30),
        },
        soak: Duration::from_mins(30),
        steps: &[Step::Everybody],
    },
    Preset {
        name: "all-at-once",
        intent: "Everybody at once: for a laboratory, or for a fix that is worth the risk.",
        pace: Pace::AtOnce,
        soak: Duration::ZERO,
        steps: &[Step::Everybody],
    },
];

fn names() -> String {
    PRESETS.map(|preset| preset.name).join(", ")
}

/// Returns the preset of this name.
pub fn find(name: &str) -> Result<Preset, PresetError> {
    PRESETS
        .into_iter()
        .find(|preset| preset.name == name)
        .ok_or_else(|| PresetError::Unknown(name.chars().take(60).collect()))
}

impl Preset {
    /// Builds the waves for regions in order; `devices` is the number of devices that the release
    /// applies to in each.
    pub fn waves(
        &self,
        regions: &[Region],
        batch: WaveSize,
        devices: &BTreeMap<Region, u64>,
    ) -> Result<Vec<Wave>, PresetError> {
        let mut waves = Vec::new();
        for step in self.steps {
            if *step == Step::Everybody {
                waves.push(Wave {
                    name: "everybody".into(),
                    selector: Selector::default(),
                    size: WaveSize::All,
                });
                continue;
            }
            if regions.is_empty() {
                return Err(PresetError::NoRegions);
            }
            for region in regions {
                let wave = |name: String, size| Wave {
                    name,
                    selector: Selector::region(region),
                    size,
                };
                match step {
                    Step::Everybody | Step::Rest => {
                        waves.push(wave(region.to_string(), WaveSize::All));
                    }
                    Step::Share(share) => {
                        let size = WaveSize::Share(*share);
                        waves.push(wave(format!("{region} {size}"), size));
                    }
                    Step::Batches => {
                        let count = devices.get(region).copied().unwrap_or(0);
                        let pieces = pieces(batch, count);
                        waves.extend((1..=pieces).map(|number| {
                            // The last batch takes the remaining devices, including those that
                            // joined in the meantime.
                            let last = number == pieces;
                            let size = if last { WaveSize::All } else { batch };
                            wave(format!("{region} {number}/{pieces}"), size)
                        }));
                    }
                }
            }
        }
        Ok(waves)
    }
}

/// Number of batches of this size in a region of so many devices, at least one.
fn pieces(batch: WaveSize, devices: u64) -> u64 {
    match batch {
        WaveSize::Count(count) => devices.div_ceil(count.max(1)),
        WaveSize::Share(share) => u64::from(10_000u32.div_ceil(share.get().max(1))),
        WaveSize::All => 1,
    }
    .max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regions() -> Vec<Region> {
        ["NA", "EU"].iter().map(|r| r.parse().unwrap()).collect()
    }

    #[test]
    fn every_preset_has_waves_and_says_what_it_is_for() {
        for preset in PRESETS {
            assert!(preset.intent.ends_with('.'), "{}", preset.name);
            let waves = preset.waves(&regions(), WaveSize::Count(5_000), &BTreeMap::new());
            assert!(!waves.unwrap().is_empty(), "{}", preset.name);
        }
    }

    #[test]
    fn batches_are_as_many_as_a_region_needs() {
        let devices = BTreeMap::from([
            ("NA".parse().unwrap(), 12_000),
            ("EU".parse().unwrap(), 5_000),
        ]);
        let waves =
            find("regional-batches")
                .unwrap()
                .waves(&regions(), WaveSize::Count(5_000), &devices);
        let names: Vec<String> = waves
            .unwrap()
            .iter()
            .map(|w| format!("{} {}", w.name, w.size))
            .collect();
        assert_eq!(
            names,
            ["NA 1/3 5000", "NA 2/3 5000", "NA 3/3 all", "EU 1/1 all"]
        );
    }

    #[test]
    fn a_fifth_of_each_region_comes_before_the_rest_of_any() {
        let waves = find("canary-20")
            .unwrap()
            .waves(&regions(), WaveSize::All, &BTreeMap::new());
        let names: Vec<String> = waves.unwrap().iter().map(|w| w.name.clone()).collect();
        assert_eq!(names, ["NA 20%", "EU 20%", "NA", "EU"]);
    }

    #[test]
    fn a_preset_that_cannot_be_used_says_why() {
        let error = find("canary").unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no preset \"canary\"; available: canary-20, regional-batches, exponential, all-at-once"
        );
        let none = find("canary-20")
            .unwrap()
            .waves(&[], WaveSize::All, &BTreeMap::new());
        assert_eq!(none, Err(PresetError::NoRegions));
    }
}
