//! Comparison of policies: whether a change widens a rollout and may need approvals.

use tidegate_domain::rollout::Pace;

use tidegate_domain::rollout::policy::Policy;

/// Returns whether the new policy allows more than the old one. A change that cannot be compared counts as
/// widening.
pub(super) fn widens(old: &Policy, new: &Policy) -> bool {
    let (a, b) = (&old.gate, &new.gate);
    let looser_gate = b.max_failure > a.max_failure
        || b.min_failures > a.min_failures
        || b.min_success < a.min_success
        || b.min_sample < a.min_sample
        || b.max_silent > a.max_silent
        || b.silent_after > a.silent_after
        || (a.compare && !b.compare)
        || b.soak < a.soak;
    let faster = match (old.pace, new.pace) {
        (Pace::Evidence { start: a }, Pace::Evidence { start: b }) => b > a,
        (a, b) => a != b,
    };
    let more = |old: Option<u64>, new: Option<u64>| match (old, new) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(old), Some(new)) => new > old,
    };
    looser_gate
        || faster
        || more(old.limits.max_in_flight, new.limits.max_in_flight)
        || more(old.limits.per_minute, new.limits.per_minute)
        || (old.windows != new.windows && !old.windows.is_empty())
        || new.battery_wait < old.battery_wait
        || new.metered < old.metered
        || (old.by_hand && !new.by_hand)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_api::PolicyBody;

    fn policy(text: &str) -> Policy {
        let body: PolicyBody = toml::from_str(text).unwrap();
        body.policy().unwrap()
    }

    #[test]
    fn what_lets_more_happen_widens_and_what_lets_less_happen_does_not() {
        let base = "max_in_flight = 50\nper_minute = 100\nwindow = \"daily 20:00-04:00 UTC\"\nby_hand = true\ncompare = true";
        let changed = |line: &str| {
            let key = line.split(' ').next().unwrap();
            let rest: Vec<&str> = base.lines().filter(|l| !l.starts_with(key)).collect();
            policy(&format!("{}\n{line}", rest.join("\n")))
        };
        let old = policy(base);
        assert!(!widens(&old, &old));
        for wider in [
            "max_in_flight = 51",
            "max_in_flight = 0",
            "per_minute = 101",
            "max_failure_bp = 201",
            "min_failures = 3",
            "min_success_bp = 8000",
            "max_silent_bp = 2000",
            "silent_after_s = 9000",
            "soak_s = 1",
            "pace_start = 9",
            "pace = \"at_once\"",
            "window = \"\"",
            "by_hand = false",
            "compare = false",
            "battery_wait_s = 1",
            "metered = \"allow\"",
        ] {
            assert!(widens(&old, &changed(wider)), "{wider}");
        }
        for narrower in [
            "max_in_flight = 49",
            "per_minute = 1",
            "max_failure_bp = 100",
            "soak_s = 9000",
            "pace_start = 1",
            "min_sample = 50",
            "metered = \"never\"",
            "deadline = \"2030-01-01T00:00:00Z\"",
            "on_breach = \"halt_and_roll_back\"",
        ] {
            assert!(!widens(&old, &changed(narrower)), "{narrower}");
        }
    }
}
