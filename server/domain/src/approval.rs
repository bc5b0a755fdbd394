//! Approval: widening a rollout may need the consent of other people.
//!
//! Starting, releasing the next wave and raising limits widen; halting, pausing, rolling back and
//! lowering limits narrow and never need approval. An approval covers one *plan*, named by the hash
//! of its text: editing the plan voids it. Who agrees must be other people, not merely other tokens.

use std::collections::BTreeSet;

use crate::people::People;

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
    /// Person behind each of these names.
    pub people: &'a People,
}

/// Reason an approval is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalRefusal {
    /// The approver asked for it or wrote the plan.
    #[error("{0} requested it or wrote the plan: somebody else must approve it")]
    OwnRequest(String),
    /// The approver's token and one of those who asked or wrote the plan are in one hand.
    #[error(
        "{who} counts as the same person as {other}, who requested it or wrote the plan: whoever makes a token \
         can use it, so both count as {person} until another administrator has confirmed them (token confirm)"
    )]
    SamePerson {
        /// The approver.
        who: String,
        /// The one who asked or wrote the plan.
        other: String,
        /// Person whose both tokens count as.
        person: String,
    },
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
        if self.own().any(|name| name == who) {
            return Err(ApprovalRefusal::OwnRequest(who.to_owned()));
        }
        let person = self.people.person(who);
        match self.own().find(|name| self.people.person(name) == person) {
            None => Ok(()),
            Some(other) => Err(ApprovalRefusal::SamePerson {
                who: who.to_owned(),
                other: other.to_owned(),
                person: person.to_owned(),
            }),
        }
    }

    /// Names of those whose request or plan it is.
    fn own(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.asked_by).chain(self.authors.iter().map(String::as_str))
    }

    /// Number of approvals still missing. An author's approval does not count, even if it was given
    /// before they became an author; those of one person count once.
    pub fn missing(&self) -> u32 {
        let own: BTreeSet<&str> = self.own().map(|name| self.people.person(name)).collect();
        let others: BTreeSet<&str> = self
            .given_by
            .iter()
            .map(|who| self.people.person(who))
            .filter(|person| !own.contains(person))
            .collect();
        self.needed
            .saturating_sub(u32::try_from(others.len()).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use tidegate_protocol::TokenId;

    use super::*;
    use crate::people::Holder;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn nobody_approves_their_own_whatever_their_role() {
        let (authors, given_by) = (set(&["ann"]), set(&[]));
        let people = People::default();
        let request = Request {
            people: &people,
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
        let people = People::default();
        let mut request = Request {
            people: &people,
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

    #[test]
    fn tokens_that_one_person_made_are_one_person() {
        let id = |number| TokenId::from_random([number; 16]);
        let holder = |number, name: &str, made_by: Option<u8>, confirmed| Holder {
            token: id(number),
            name: name.into(),
            made_by: made_by.map(id),
            confirmed,
        };
        // Ann made ann2 and ann3, Bob made bob2; Dan was made by Ann and confirmed by Bob.
        let people = People::new(&[
            holder(1, "ann", None, false),
            holder(2, "bob", None, false),
            holder(3, "ann2", Some(1), false),
            holder(4, "ann3", Some(1), false),
            holder(5, "bob2", Some(2), false),
            holder(6, "dan", Some(1), true),
        ]);
        let authors = set(&[]);
        let given_by = set(&["ann", "ann3", "bob", "bob2", "dan"]);
        let request = Request {
            needed: 3,
            asked_by: "ann2",
            authors: &authors,
            given_by: &given_by,
            plan: "p",
            people: &people,
        };
        for same in ["ann", "ann3"] {
            let refusal = request.may_approve(same, "p").unwrap_err();
            assert!(
                matches!(refusal, ApprovalRefusal::SamePerson { .. }),
                "{same}"
            );
        }
        for other in ["bob", "bob2", "dan"] {
            assert_eq!(request.may_approve(other, "p"), Ok(()), "{other}");
        }
        assert_eq!(request.missing(), 1, "Bob and Dan, once each");
    }
}
