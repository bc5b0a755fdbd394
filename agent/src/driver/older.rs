//! Servers of earlier versions: they refuse a whole message for one reason that they do not know.

use tidegate_protocol::{Explained, Report};

use super::{Driver, RoundError};
use crate::log;
use crate::net::TransportError;

impl Driver {
    /// Returns a reason in words that the server knows.
    pub(super) fn in_known_words(&self, reason: Explained) -> Explained {
        if !self.old_server {
            return reason;
        }
        Explained {
            code: reason.code.known_to_all(),
            ..reason
        }
    }

    /// Notes that a server refused what was said in a newer word; true if it is to be said again in older
    /// ones. Until the next start: a server that is updated meanwhile reads the older ones as well.
    pub(super) fn note_old_server(&mut self, error: &RoundError, said: &[Explained]) -> bool {
        let is_refusal = matches!(
            error,
            RoundError::Transport(TransportError::Status {
                status: 400 | 422,
                ..
            })
        );
        let is_newer = said.iter().any(|why| why.code != why.code.known_to_all());
        if !is_refusal || !is_newer || self.old_server {
            return false;
        }
        log::line("the server refuses a message with a newer reason: saying it in older words");
        self.old_server = true;
        true
    }
}

/// The reasons that reports give.
pub(super) fn reasons(reports: &[Report]) -> Vec<Explained> {
    reports
        .iter()
        .filter_map(|report| report.reason.clone())
        .collect()
}
