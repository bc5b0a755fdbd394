//! Sources of a download, and the blame for what they did.
//!
//! A mirror is put aside for what it did and is asked again later, by one request at first. The server
//! itself is always there, and is asked alone when every mirror is put aside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidegate_protocol::Timestamp;

use crate::net::error::TransportError;

/// Time for which a mirror is put aside at first when it cannot be reached; doubled each time.
const PASSING: Duration = Duration::from_mins(1);
/// The same when it sent something else than the blob.
const LASTING: Duration = Duration::from_mins(10);
/// Longest time for which a mirror is put aside.
const LONGEST: Duration = Duration::from_hours(6);
/// Time in which a mirror that was put aside is asked by one request alone.
const PROBE: Duration = Duration::from_secs(30);

/// File that tells people which mirrors are not used, and why. The agent does not read it.
pub(crate) const FILE: &str = "mirrors.json";

/// A mirror that is not used, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unused {
    /// Address of the mirror.
    pub(crate) mirror: String,
    /// Reason why it is not used.
    pub(crate) why: String,
    /// Time at which that was found.
    pub(crate) since: Timestamp,
}

/// A failure of a source.
pub(super) struct Fault {
    pub(super) why: String,
    pub(super) kind: Kind,
}

/// Kinds of failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The connection broke, which says little about the source.
    Broken,
    /// The source cannot serve now.
    Passing,
    /// The source sent something else than the blob.
    Lasting,
    /// The bytes are not those of the manifest.
    Damaged,
}

impl Fault {
    pub(super) fn lasting(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            kind: Kind::Lasting,
        }
    }
}

impl From<TransportError> for Fault {
    fn from(error: TransportError) -> Self {
        let kind = match &error {
            TransportError::Broken(_) => Kind::Broken,
            TransportError::Connect(..) | TransportError::Timeout => Kind::Passing,
            TransportError::Status { status, .. } if *status >= 500 || *status == 429 => {
                Kind::Passing
            }
            _ => Kind::Lasting,
        };
        Self {
            why: error.to_string(),
            kind,
        }
    }
}

#[derive(Debug)]
struct Aside {
    until: Instant,
    times: u32,
    kind: Kind,
    why: String,
    since: Timestamp,
}

/// Mirrors that were put aside, across downloads.
#[derive(Debug, Default)]
pub(super) struct Blame {
    aside: BTreeMap<String, Aside>,
    /// Mirrors that this machine does not use whatever they send.
    pub(super) ignored: Vec<Unused>,
}

impl Blame {
    /// Index of the source to ask: `prefer` if it is not put aside, else the first that is not; the
    /// last one is the server.
    pub(super) fn pick(&mut self, names: &[String], prefer: Option<&str>, now: Instant) -> usize {
        let server = names.len().saturating_sub(1);
        let free = |name: &str| self.aside.get(name).is_none_or(|aside| aside.until <= now);
        let preferred = names.iter().position(|name| Some(name.as_str()) == prefer);
        let picked = preferred
            .filter(|index| *index == server || free(&names[*index]))
            .or_else(|| names[..server].iter().position(|name| free(name)))
            .unwrap_or(server);
        if let Some(aside) = self.aside.get_mut(&names[picked]) {
            // One request tries it; the others go on with what is known to be good.
            aside.until = now + PROBE;
        }
        picked
    }

    /// Takes a mirror back that served a whole chunk; returns whether it was put aside before. What
    /// it served to another request meanwhile does not undo what it was put aside for.
    pub(super) fn note_good(&mut self, name: &str, now: Instant) -> bool {
        !self.is_aside(name, now) && self.aside.remove(name).is_some()
    }

    /// Returns whether a mirror is put aside, and not just tried by a request.
    fn is_aside(&self, name: &str, now: Instant) -> bool {
        self.aside
            .get(name)
            .is_some_and(|aside| aside.until > now + PROBE)
    }

    /// Puts a mirror aside; returns for how long, or `None` if it is put aside already: requests that
    /// were under way at the same time fail together, for one reason.
    pub(super) fn put_aside(
        &mut self,
        name: &str,
        fault: &Fault,
        (now, since): (Instant, Timestamp),
    ) -> Option<Duration> {
        if self.is_aside(name, now) {
            return None;
        }
        let first = match fault.kind {
            Kind::Broken | Kind::Passing => PASSING,
            Kind::Lasting | Kind::Damaged => LASTING,
        };
        let times = self.aside.get(name).map_or(0, |aside| aside.times);
        let length = first.saturating_mul(1 << times.min(9)).min(LONGEST);
        let aside = Aside {
            until: now + length,
            times: times.saturating_add(1),
            kind: fault.kind,
            why: fault.why.clone(),
            since,
        };
        self.aside.insert(name.to_owned(), aside);
        Some(length)
    }

    /// Ends the time of the mirrors that only could not be reached: the server cannot be either.
    pub(super) fn relent(&mut self, now: Instant) {
        for aside in self.aside.values_mut() {
            if matches!(aside.kind, Kind::Broken | Kind::Passing) {
                aside.until = now;
            }
        }
    }

    /// The mirrors that are ignored or put aside, for people.
    pub(super) fn unused(&self) -> Vec<Unused> {
        let unused = self.aside.iter().map(|(mirror, aside)| Unused {
            mirror: mirror.clone(),
            why: format!("put aside: {}", aside.why),
            since: aside.since,
        });
        self.ignored.iter().cloned().chain(unused).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        ["http://a", "http://b", "http://server"]
            .map(str::to_owned)
            .into()
    }

    #[test]
    fn a_mirror_that_was_put_aside_is_probed_again_later_by_one_request() {
        let (names, now) = (names(), Instant::now());
        let mut blame = Blame::default();
        let at = |now| (now, Timestamp::ZERO);
        assert_eq!(blame.pick(&names, None, now), 0);
        let length = blame.put_aside("http://a", &Fault::lasting("x"), at(now));
        assert_eq!(length, Some(LASTING));
        // What was under way at the same time fails with it.
        assert_eq!(
            blame.put_aside("http://a", &Fault::lasting("x"), at(now)),
            None
        );
        assert!(
            !blame.note_good("http://a", now),
            "a chunk that came meanwhile"
        );
        assert_eq!(blame.pick(&names, None, now), 1);
        let later = now + LASTING;
        assert_eq!(blame.pick(&names, None, later), 0, "one request tries it");
        assert_eq!(blame.pick(&names, None, later), 1, "the others do not");
        // It is as bad as before: aside for twice as long.
        let length = blame.put_aside("http://a", &Fault::lasting("x"), at(later));
        assert_eq!(length, Some(2 * LASTING));
        let later = later + 2 * LASTING;
        assert_eq!(blame.pick(&names, None, later), 0);
        assert!(blame.note_good("http://a", later));
        assert_eq!(blame.pick(&names, None, later), 0);
        assert_eq!(blame.pick(&names, None, later), 0);
    }

    #[test]
    fn the_server_is_asked_alone_at_the_end_and_is_never_put_aside() {
        let (names, now) = (names(), Instant::now());
        let mut blame = Blame::default();
        for name in &names[..2] {
            blame.put_aside(name, &Fault::lasting("x"), (now, Timestamp::ZERO));
        }
        assert_eq!(blame.pick(&names, None, now), 2);
        assert_eq!(blame.pick(&names, Some("http://a"), now), 2);
        // A chunk that the server has begun stays with it, whatever may be tried again.
        let later = now + LASTING;
        assert_eq!(blame.pick(&names, Some("http://server"), later), 2);
        // What could not be reached is tried again once the server is out of reach too.
        let mut blame = Blame::default();
        let (wrong, silent) = (Fault::lasting("x"), Fault::from(TransportError::Timeout));
        blame.put_aside("http://a", &wrong, (now, Timestamp::ZERO));
        blame.put_aside("http://b", &silent, (now, Timestamp::ZERO));
        assert_eq!(blame.pick(&names, None, now), 2);
        blame.relent(now);
        assert_eq!(blame.pick(&names, None, now), 1);
    }
}
