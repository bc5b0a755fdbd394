//! Latest check-in of a device. A copy that runs beside the device is ahead of it or behind it, and
//! whoever is behind has to open a new session: there the numbers of signed requests tell a copy from a
//! request that was merely late.

use std::fmt;
use std::str::FromStr;

use tidegate_protocol::Timestamp;

/// Characters of a nonce that tell two requests apart.
const NONCE: usize = 16;

/// A check-in, and where and when it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contact {
    /// Number of the signed request that opened its session; 0 if the ticket does not say.
    pub session: u64,
    /// Number of the check-in; 0 from agents that do not count them.
    pub turn: u64,
    /// Start of its nonce: a request that a proxy sends twice is one.
    nonce: String,
    /// Time it was received.
    pub at: Timestamp,
    /// Address it came from.
    pub from: String,
}

impl Contact {
    /// Creates the contact of a check-in with this nonce.
    pub fn new(session: u64, turn: u64, nonce: &str, at: Timestamp, from: &str) -> Self {
        Self {
            session,
            turn,
            nonce: nonce.chars().take(NONCE).collect(),
            at,
            from: from.chars().filter(|c| !c.is_whitespace()).collect(),
        }
    }

    /// Returns whether this check-in was made before `latest`: in an older session, or earlier in the
    /// same one. An agent uses one session at a time and counts up, so it is late, or comes from a
    /// second machine.
    pub fn is_behind(&self, latest: &Self) -> bool {
        let counted = self.turn != 0 && latest.turn != 0;
        self.session != 0
            && (self.session < latest.session
                || (self.session == latest.session
                    && counted
                    && self.turn <= latest.turn
                    && self.nonce != latest.nonce))
    }
}

/// Takes the later of two contacts, one of them learned from another replica.
pub fn later(one: Option<Contact>, other: Option<Contact>) -> Option<Contact> {
    match (one, other) {
        (Some(one), Some(other)) if (one.session, one.turn) <= (other.session, other.turn) => {
            Some(other)
        }
        (one, other) => one.or(other),
    }
}

impl fmt::Display for Contact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, nonce) = (self.at.as_micros(), &self.nonce);
        write!(
            f,
            "{} {} {nonce} {at} {}",
            self.session, self.turn, self.from
        )
    }
}

/// The text is not a contact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a contact: expected session, turn, nonce, time and address")]
pub struct Unreadable;

impl FromStr for Contact {
    type Err = Unreadable;

    fn from_str(text: &str) -> Result<Self, Unreadable> {
        let words: Vec<&str> = text.split(' ').collect();
        let [session, turn, nonce, at, from] = words[..] else {
            return Err(Unreadable);
        };
        Ok(Self {
            session: session.parse().map_err(|_| Unreadable)?,
            turn: turn.parse().map_err(|_| Unreadable)?,
            nonce: nonce.to_owned(),
            at: Timestamp::from_micros(at.parse().map_err(|_| Unreadable)?),
            from: from.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contact(session: u64, turn: u64, nonce: &str) -> Contact {
        Contact::new(session, turn, nonce, Timestamp::from_secs(7), "10.0.0.1")
    }

    #[test]
    fn a_check_in_of_an_older_session_is_behind_and_one_of_a_newer_is_not() {
        let latest = contact(8, 3, "aa");
        assert!(contact(7, 90, "bb").is_behind(&latest));
        assert!(!contact(9, 1, "bb").is_behind(&latest));
        // A ticket from a server of before does not say its session.
        assert!(!contact(0, 1, "bb").is_behind(&latest));
        assert!(!contact(8, 1, "bb").is_behind(&contact(0, 9, "aa")));
    }

    #[test]
    fn two_copies_of_one_memory_use_a_number_twice_and_a_request_sent_twice_is_one() {
        let latest = contact(8, 3, "aa");
        assert!(contact(8, 3, "bb").is_behind(&latest));
        assert!(contact(8, 2, "bb").is_behind(&latest));
        assert!(!contact(8, 4, "bb").is_behind(&latest));
        assert!(!contact(8, 3, "aa").is_behind(&latest));
        // Agents that do not count.
        assert!(!contact(8, 0, "bb").is_behind(&latest));
        assert!(!contact(8, 1, "bb").is_behind(&contact(8, 0, "aa")));
    }

    #[test]
    fn the_later_of_two_counts_whichever_replica_heard_it() {
        let (early, late) = (contact(8, 3, "aa"), contact(9, 1, "bb"));
        let both = [Some(early), Some(late.clone())];
        for [one, other] in [both.clone(), [both[1].clone(), both[0].clone()]] {
            assert_eq!(later(one, other), Some(late.clone()));
        }
        assert_eq!(later(None, Some(late.clone())), Some(late));
    }

    #[test]
    fn a_contact_reads_back_as_it_was_written() {
        let long = contact(8, 3, &"ab".repeat(32));
        assert_eq!(long.to_string().parse(), Ok(long));
        let unknown = Contact::new(0, 0, "", Timestamp::from_secs(7), "");
        assert_eq!(unknown.to_string().parse(), Ok(unknown));
        for bad in ["", "1", "1 2 3 4", "x 2 aa 4 b", "1 2 aa 4 b c"] {
            assert_eq!(bad.parse::<Contact>(), Err(Unreadable));
        }
    }
}
