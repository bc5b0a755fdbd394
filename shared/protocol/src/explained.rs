//! Reasons with the particulars of a case.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Reason;

/// A reason with the particulars of this case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The reason.
    pub code: Reason,
    /// The particulars, at most [`Explained::MAX_DETAIL`] characters; may be empty.
    #[serde(default)]
    pub detail: String,
}

impl Explained {
    /// Maximum length of a detail, in characters: room for the last 2,000 bytes of a check's output
    /// and how it ended.
    pub const MAX_DETAIL: usize = 2_200;

    /// Creates a reason with particulars. A detail over [`Explained::MAX_DETAIL`] characters is cut
    /// in the middle: the beginning says what was done, the end what went wrong.
    pub fn new(code: Reason, detail: impl AsRef<str>) -> Self {
        const MARK: &str = " ... ";
        const BEGIN: usize = 200;
        let detail = detail.as_ref();
        let over = detail.chars().count().saturating_sub(Self::MAX_DETAIL);
        if over == 0 {
            return Self {
                code,
                detail: detail.to_owned(),
            };
        }
        let begin: String = detail.chars().take(BEGIN).collect();
        let end: String = detail.chars().skip(BEGIN + over + MARK.len()).collect();
        Self {
            code,
            detail: format!("{begin}{MARK}{end}"),
        }
    }

    /// Returns a copy whose detail is cut to the bound, for values that came from outside.
    pub fn bounded(self) -> Self {
        Self::new(self.code, &self.detail)
    }
}

impl From<Reason> for Explained {
    fn from(code: Reason) -> Self {
        Self {
            code,
            detail: String::new(),
        }
    }
}

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.text())?;
        if !self.detail.is_empty() {
            // Text from a device or a check must not move the cursor or add a line.
            write!(f, ": {}", crate::plain(&self.detail))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_from_outside_is_cut() {
        let long = Explained {
            code: Reason::HealthFailed,
            detail: "x".repeat(10_000),
        };
        assert_eq!(long.bounded().detail.len(), Explained::MAX_DETAIL);
    }

    #[test]
    fn a_long_detail_keeps_its_begin_and_its_end() {
        let text = format!("exit status 1: {}the error", "frame ".repeat(1_000));
        let kept = Explained::new(Reason::HealthFailed, &text).detail;
        assert!(kept.starts_with("exit status 1: frame"));
        assert!(kept.ends_with("frame the error"));
        assert_eq!(kept.chars().count(), Explained::MAX_DETAIL);
        let again = Explained::new(Reason::HealthFailed, &kept);
        assert_eq!(again.detail, kept);
    }
}
