//! A device's view of the time, and the time that it decides by.

use std::time::Duration;

use tidegate_protocol::Timestamp;

/// A device's view of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Time that its clock shows.
    pub shows: Timestamp,
    /// Newest time that an offline key has vouched for: the true time is certainly later.
    pub floor: Timestamp,
    /// Whether its owner vouches for the clock (it is set by a trusted source). If so, expiry is
    /// judged by the clock alone.
    pub strict: bool,
}

impl Clock {
    /// Lead over the server beyond which a clock counts as wrong. Shorter than the lifetime of an
    /// assignment: a clock that shows local time as UTC must not make every assignment expired.
    pub(super) const AHEAD: Duration = Duration::from_mins(30);

    /// Returns the time to decide by, given the time that a fresh answer of the server claims. A
    /// clock behind the floor, or more than half an hour ahead of the server, counts as wrong, so
    /// that 1970 and 2100 strand nobody. A server that lies about the past keeps expired files in
    /// use, which it could also do by not answering; versions never fall. A server that lies about
    /// the future is refused.
    pub fn decide(self, claimed: Timestamp) -> Timestamp {
        self.decide_within(claimed, Self::AHEAD)
    }

    pub(super) fn decide_within(self, claimed: Timestamp, ahead: Duration) -> Timestamp {
        if self.strict {
            return self.shows.max(self.floor);
        }
        if self.shows >= self.floor && self.shows <= claimed.plus(ahead) {
            self.shows
        } else {
            claimed.max(self.floor)
        }
    }
}
