//! Search for the group of devices that carries the failures, for a hold to name.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_protocol::{Reason, Region, Version};

use super::evidence::{self, Evidence};
use crate::BasisPoints;
use crate::selector::{Selector, SelectorError};

/// Devices with the same properties and the same outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Their region.
    pub region: Region,
    /// Their platform.
    pub platform: String,
    /// Their label `model`; empty without one.
    pub model: String,
    /// Release they ran before; `None` if they ran none.
    pub from: Option<Version>,
    /// Reason they failed; `None` for healthy ones.
    pub reason: Option<Reason>,
    /// Number of devices.
    pub count: u64,
}

/// A group of devices that carries the failures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// Selector of the group.
    pub selector: Selector,
    /// Most frequent reason of its failures.
    pub reason: Reason,
    /// Failed devices in it.
    pub failed: u64,
    /// Finished devices in it.
    pub finished: u64,
    /// Failed devices outside.
    pub others_failed: u64,
    /// Finished devices outside.
    pub others_finished: u64,
}

/// Share of all failures that a group must contain to count as carrying them.
const CARRIES: BasisPoints = BasisPoints(8_000);
/// Evidence needed against a group: one in [`super::FALSE_HALT_ONE_IN`].
const ENOUGH: u64 = super::FALSE_HALT_ONE_IN;

impl Sample {
    /// Key of its group by the properties that are set in `mask`.
    fn key(&self, mask: usize) -> Vec<(&'static str, String)> {
        let from = self
            .from
            .as_ref()
            .map_or_else(String::new, ToString::to_string);
        let all = [
            ("model", self.model.clone()),
            ("platform", self.platform.clone()),
            ("release", from),
            ("region", self.region.to_string()),
        ];
        all.into_iter()
            .enumerate()
            .filter(|(bit, _)| mask & (1 << bit) != 0)
            .map(|(_, pair)| pair)
            .collect()
    }
}

/// Returns the smallest group of similar devices that carries the failures while the rest stays
/// within the limit. `None` means that the release itself is bad, or that too little is known.
pub fn find_cluster(samples: &[Sample], limit: BasisPoints) -> Option<Cluster> {
    let count = |of: &dyn Fn(&Sample) -> bool| -> (u64, u64) {
        samples
            .iter()
            .filter(|s| of(s))
            .fold((0, 0), |(failed, all), s| {
                (
                    failed + if s.reason.is_some() { s.count } else { 0 },
                    all + s.count,
                )
            })
    };
    let (failed, finished) = count(&|_| true);
    if failed < 2 {
        return None;
    }
    let mut best: Option<(u64, usize, Cluster)> = None;
    for mask in 1..16usize {
        let keys: BTreeSet<_> = samples
            .iter()
            .filter(|s| s.reason.is_some())
            .map(|s| s.key(mask))
            // A missing value cannot be selected.
            .filter(|key| key.iter().all(|(_, value)| !value.is_empty()))
            .collect();
        for key in keys {
            let (inside_failed, inside) = count(&|s| s.key(mask) == key);
            let (out_failed, out) = (failed - inside_failed, finished - inside);
            let carries = u128::from(inside_failed) * 10_000
                >= u128::from(failed) * u128::from(CARRIES.get());
            let speaks =
                evidence::failures(limit, inside_failed, inside) >= Evidence::of(ENOUGH, 1);
            let rest_is_fine = out > 0 && !limit.is_exceeded_by(out_failed, out);
            if !(carries && speaks && rest_is_fine) {
                continue;
            }
            let rank = (inside, mask.count_ones() as usize);
            if best
                .as_ref()
                .is_some_and(|(n, bits, _)| (*n, *bits) <= rank)
            {
                continue;
            }
            let Ok(selector) = named(&key) else { continue };
            let Some(reason) = most_frequent(samples.iter().filter(|s| s.key(mask) == key)) else {
                continue;
            };
            let cluster = Cluster {
                selector,
                reason,
                failed: inside_failed,
                finished: inside,
                others_failed: out_failed,
                others_finished: out,
            };
            best = Some((rank.0, rank.1, cluster));
        }
    }
    best.map(|(_, _, cluster)| cluster)
}

fn named(key: &[(&'static str, String)]) -> Result<Selector, SelectorError> {
    let text: Vec<String> = key.iter().map(|(k, v)| format!("{k}={v}")).collect();
    text.join(",").parse()
}

fn most_frequent<'a>(samples: impl Iterator<Item = &'a Sample>) -> Option<Reason> {
    let mut counts: BTreeMap<Reason, u64> = BTreeMap::new();
    for sample in samples {
        if let Some(reason) = sample.reason {
            *counts.entry(reason).or_default() += sample.count;
        }
    }
    counts.into_iter().max_by_key(|(_, n)| *n).map(|(r, _)| r)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(model: &str, region: &str, failed: bool, count: u64) -> Sample {
        Sample {
            region: region.parse().unwrap(),
            platform: "linux-x86_64".into(),
            model: model.into(),
            from: Some("1.0.0".parse().unwrap()),
            reason: failed.then_some(Reason::HealthFailed),
            count,
        }
    }

    fn limit() -> BasisPoints {
        BasisPoints::new(200).unwrap()
    }

    #[test]
    fn a_model_that_fails_alone_is_found_whatever_its_region() {
        let samples = [
            sample("x1", "NA", false, 400),
            sample("x1", "EU", false, 300),
            sample("x2", "NA", true, 9),
            sample("x2", "EU", true, 6),
            sample("x2", "EU", false, 20),
            sample("x1", "EU", true, 1),
        ];
        let cluster = find_cluster(&samples, limit()).unwrap();
        assert_eq!(cluster.selector.to_string(), "model=x2");
        assert_eq!((cluster.failed, cluster.finished), (15, 35));
        assert_eq!((cluster.others_failed, cluster.others_finished), (1, 701));
        assert_eq!(cluster.reason, Reason::HealthFailed);
    }

    #[test]
    fn a_release_that_fails_everywhere_has_no_cluster() {
        let samples = [
            sample("x1", "NA", true, 10),
            sample("x1", "NA", false, 10),
            sample("x2", "EU", true, 10),
            sample("x2", "EU", false, 10),
        ];
        assert_eq!(find_cluster(&samples, limit()), None);
        assert_eq!(find_cluster(&[sample("x1", "NA", true, 1)], limit()), None);
    }

    #[test]
    fn two_properties_are_named_where_one_is_not_enough() {
        let samples = [
            sample("x1", "NA", false, 300),
            sample("x2", "NA", false, 300),
            sample("x1", "EU", false, 300),
            sample("x2", "EU", true, 12),
        ];
        let cluster = find_cluster(&samples, limit()).unwrap();
        assert_eq!(cluster.selector.to_string(), "model=x2,region=EU");
    }
}
