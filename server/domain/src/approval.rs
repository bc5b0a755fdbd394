//! Approval: widening a rollout may need the consent of other people.
//!
//! Starting, releasing the next wave and raising limits widen; halting, pausing, rolling back and
//! lowering limits narrow and never need approval. An approval covers one *plan*, named by the hash
//! of its text: editing the plan voids it.

use std::collections::BTreeSet;

/// Kind of a change that widens a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The start of a draft.
    Start,
    /// The next wave.
    Advance,
    /// Other limits.
    Edit,
    /// Resuming after a halt.
    Resume,
}

tidegate_protocol::words!(ChangeKind("kind of change") {
    Start = "start",
    Advance = "advance",
    Edit = "edit",
    Resume = "resume",
});

/// A request to widen, with the approvals given so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request<'a> {
    /// Number of other people who must agree; 0 if none.
    pub needed: u32,
    /// The person who asked.
    pub asked_by: &'a str,
    /// Authors of the plan, editors included.
    pub authors: &'a BTreeSet<String>,
    /// People who agreed to exactly this plan.
    pub given_by: &'a BTreeSet<String>,
    /// Hash of the current plan.
    pub plan: &'a str,
}

/// Reason an approval is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalRefusal {
    /// The approver asked for it or wrote the plan.
    #[error("{0} requested it or wrote the plan: somebody else must approve it")]
    OwnRequest(String),
    /// The plan was edited since the approver looked at it.
    #[error("the plan has changed since you looked at it: it is now {now}, you approve {seen}")]
    OtherPlan {
        /// Hash of the current plan.
        now: String,
        /// Hash named in the approval, cut to 80 characters.
        seen: String,
    },
    /// Nothing waits for an approval.
    #[error("nothing is waiting for approval")]
    NothingAsked,
}

impl Request<'_> {
    /// Checks whether a person may approve it. Approving twice is not an error and counts once.
    pub fn may_approve(&self, who: &str, seen: &str) -> Result<(), ApprovalRefusal> {
        if seen != self.plan {
            return Err(ApprovalRefusal::OtherPlan {
                now: self.plan.to_owned(),
                seen: seen.chars().take(80).collect(),
            });
        }
        if who == self.asked_by || self.authors.contains(who) {
            return Err(ApprovalRefusal::OwnRequest(who.to_owned()));
        }
        Ok(())
    }

    /// Number of approvals still missing. An author's approval does not count, even if it was given
    /// before they became an author.
    pub fn missing(&self) -> u32 {
        let valid = self
            .given_by
            .iter()
            .filter(|who| *who != self.asked_by && !self.authors.contains(*who))
            .count();
        self.needed
            .saturating_sub(u32::try_from(valid).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn nobody_approves_their_own_whatever_their_role() {
        let (authors, given_by) = (set(&["ann"]), set(&[]));
        let request = Request {
            needed: 2,
            asked_by: "bob",
            authors: &authors,
            given_by: &given_by,
            plan: "p1",
        };
        for own in ["ann", "bob"] {
            assert_eq!(
                request.may_approve(own, "p1"),
                Err(ApprovalRefusal::OwnRequest(own.into()))
            );
        }
        assert!(request.may_approve("cid", "p1").is_ok());
        assert!(matches!(
            request.may_approve("cid", "p0"),
            Err(ApprovalRefusal::OtherPlan { .. })
        ));
    }

    #[test]
    fn what_an_author_said_does_not_count() {
        let (authors, given_by) = (set(&["ann", "cid"]), set(&["cid", "dan", "eve"]));
        let mut request = Request {
            needed: 2,
            asked_by: "bob",
            authors: &authors,
            given_by: &given_by,
            plan: "p",
        };
        assert_eq!(request.missing(), 0);
        request.needed = 3;
        assert_eq!(request.missing(), 1);
        request.asked_by = "dan";
        assert_eq!(request.missing(), 2);
    }
}
