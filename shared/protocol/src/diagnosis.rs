//! What an agent found when it looked into why things do not work.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It could not be looked at, or there is no such thing on this machine.
    Unknown,
    /// It works, and will not for ever.
    Notice,
    /// It does not work.
    Bad,
}

crate::words!(Verdict("verdict") {
    Good = "good",
    Unknown = "unknown",
    Notice = "notice",
    Bad = "bad",
});

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Its name: an anchor in `docs/doctor.md`.
    pub check: String,
    /// What was found.
    pub value: String,
    /// What it should be.
    pub threshold: String,
    /// What that means.
    pub verdict: Verdict,
    /// Where the fix is described.
    pub key: String,
    /// What was mended at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repaired: Option<String>,
}

/// The longest text of a finding that is kept, in characters.
const TEXT: usize = 200;

impl Finding {
    /// A finding; its key follows from its name.
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

/// All that was found at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// When, by the device's clock.
    pub time: Timestamp,
    /// For how long the server could not be reached then, in seconds.
    pub cut_off_s: u64,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Most findings that a server reads.
    pub const MAX: usize = 40;

    /// What is not as it should be, in one bounded line without control characters.
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
            return "nothing is wrong on the machine itself".into();
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
        assert!(diagnosis(&findings).summary().starts_with("nothing"));
        findings.push(Finding::new("dns", "no\nsuch host", "", Verdict::Bad));
        assert_eq!(diagnosis(&findings).summary(), "dns: nosuch host");
        let long = "x".repeat(10_000);
        findings = vec![Finding::new("dns", long, "", Verdict::Bad); 1_000];
        assert_eq!(diagnosis(&findings).summary().len(), 1_000);
    }
}
