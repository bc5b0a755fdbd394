//! Findings of an agent that diagnosed why things do not work.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Meaning of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Works as it should.
    Good,
    /// Could not be checked, or does not exist on this machine.
    Unknown,
    /// Works, but will not for ever.
    Notice,
    /// Does not work.
    Bad,
}

crate::words!(Verdict("verdict") {
    Good = "good",
    Unknown = "unknown",
    Notice = "notice",
    Bad = "bad",
});

/// Result of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Name of the check: an anchor in `docs/reference/doctor.md`.
    pub check: String,
    /// Finding.
    pub value: String,
    /// Value that is expected.
    pub threshold: String,
    /// Meaning of the value.
    pub verdict: Verdict,
    /// Key of the article that describes the fix.
    pub key: String,
    /// Repair that was made at once, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
}

/// Length to which a finding's texts are cut in a summary, in characters.
const TEXT: usize = 200;

impl Finding {
    /// Creates a finding; its key is derived from the name of the check.
    pub fn new(
        check: &str,
        value: impl Into<String>,
        threshold: impl Into<String>,
        verdict: Verdict,
    ) -> Self {
        Self {
            check: check.into(),
            value: value.into(),
            threshold: threshold.into(),
            verdict,
            key: format!("doctor#{check}"),
            repaired: None,
        }
    }
}

/// Result of one diagnosis.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Time of the diagnosis, by the device's clock.
    pub time: Timestamp,
    /// Time for which the server had been unreachable by then, in seconds.
    pub cut_off_s: u64,
    /// Finding.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Maximum number of findings that a server reads.
    pub const MAX: usize = 40;

    /// Returns what is wrong or was repaired, in one bounded line without control characters.
    pub fn summary(&self) -> String {
        let clean = |text: &str| -> String {
            text.chars()
                .filter(|c| !c.is_control())
                .take(TEXT)
                .collect()
        };
        let told: Vec<String> = self
            .findings
            .iter()
            .take(Self::MAX)
            .filter(|finding| finding.verdict >= Verdict::Notice || finding.repaired.is_some())
            .map(|finding| {
                let mut text = format!("{}: {}", clean(&finding.check), clean(&finding.value));
                if let Some(repaired) = &finding.repaired {
                    text += &format!(" ({})", clean(repaired));
                }
                text
            })
            .collect();
        if told.is_empty() {
            return "no problem found on the machine itself".into();
        }
        told.join("; ").chars().take(1_000).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_bounded_and_tells_only_what_is_wrong() {
        let mut findings = vec![Finding::new("memory", "12 %", "< 90 %", Verdict::Good)];
        let diagnosis = |findings: &[Finding]| Diagnosis {
            time: Timestamp::ZERO,
            cut_off_s: 60,
            findings: findings.to_vec(),
        };
        assert!(diagnosis(&findings).summary().starts_with("no problem"));
        findings.push(Finding::new("dns", "no\nsuch host", "", Verdict::Bad));
        assert_eq!(diagnosis(&findings).summary(), "dns: nosuch host");
        let long = "x".repeat(10_000);
        findings = vec![Finding::new("dns", long, "", Verdict::Bad); 1_000];
        assert_eq!(diagnosis(&findings).summary().len(), 1_000);
    }
}
