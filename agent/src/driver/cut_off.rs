//! When the server cannot be reached: the next address, a fresh session, and a look into why.

use std::time::{Duration, Instant};

use tidegate_protocol::{Diagnosis, Verdict};

use super::Driver;
use crate::client::Client;
use crate::doctor;
use crate::fs::Mode;
use crate::log;
use crate::platform;
use crate::tls::TlsClock;

/// Failed rounds before it is looked into.
const FAILURES: u32 = 3;
/// How often it is looked into again.
const AGAIN: Duration = Duration::from_mins(30);

/// Since when the server does not answer, and what was done about it.
#[derive(Debug, Default)]
pub(super) struct CutOff {
    since: Option<Instant>,
    failures: u32,
    looked: Option<Instant>,
    /// Which of the addresses is in use.
    endpoint: usize,
    /// What was found, until the server has heard it.
    pub(super) diagnosis: Option<Diagnosis>,
}

impl Driver {
    /// The server has answered.
    pub(super) fn is_reached(&mut self) {
        let cut_off = &mut self.cut_off;
        if let Some(since) = cut_off.since.take()
            && cut_off.failures >= FAILURES
        {
            let seconds = since.elapsed().as_secs();
            log::line(&format!("reaches the server again after {seconds} s"));
        }
        cut_off.failures = 0;
        cut_off.looked = None;
        cut_off.diagnosis = None;
    }

    /// A round with the server has failed; what can be done about it is done, and how long to wait
    /// before the next one is told.
    pub(super) async fn is_cut_off(&mut self) -> Duration {
        let cut_off = &mut self.cut_off;
        let since = *cut_off.since.get_or_insert_with(Instant::now);
        cut_off.failures = cut_off.failures.saturating_add(1);
        let failures = cut_off.failures;
        self.next_endpoint();
        let due = self.cut_off.looked.is_none_or(|at| at.elapsed() >= AGAIN);
        if failures >= FAILURES && due {
            self.cut_off.looked = Some(Instant::now());
            self.look_into_it(since).await;
        }
        let seconds = 1u64 << failures.min(9);
        Duration::from_secs(seconds).min(super::MAX_BACK_OFF)
    }

    /// Turns to the next address of the control plane, with a connection and a session of its own.
    fn next_endpoint(&mut self) {
        let endpoints: Vec<&str> = self.config.endpoints().collect();
        let next = (self.cut_off.endpoint + 1) % endpoints.len().max(1);
        let clock = TlsClock {
            floor: self.journal().record().time_floor,
            trusted: self.config.clock_trusted,
        };
        // A session that the server has forgotten, a connection that is dead: neither is kept.
        match Client::new(endpoints[next], self.config.ca_file.as_deref(), clock) {
            Ok(client) => {
                if endpoints.len() > 1 {
                    log::line(&format!("turns to {}", endpoints[next]));
                }
                self.client = client;
                self.ticket = None;
            }
            Err(error) => log::line(&format!("{}: {}", endpoints[next], log::chain(&error))),
        }
        self.cut_off.endpoint = next;
    }

    /// Looks into it, keeps what was found for the server and for people at the machine.
    async fn look_into_it(&mut self, since: Instant) {
        let findings = doctor::examine(&self.state, true).await;
        let diagnosis = Diagnosis {
            time: platform::now(),
            cut_off_s: since.elapsed().as_secs(),
            findings,
        };
        log::line(&format!("a look into it: {}", diagnosis.summary()));
        if let Ok(text) = serde_json::to_vec_pretty(&diagnosis) {
            let path = self.state.join("diagnosis.json");
            // Only for people: the agent does not read it.
            let _ = self.fs.replace(&path, &text, Mode::Plain);
        }
        // What is good is of no interest to the server.
        let wrong = |finding: &tidegate_protocol::Finding| {
            finding.verdict >= Verdict::Notice || finding.repaired.is_some()
        };
        self.cut_off.diagnosis = Some(Diagnosis {
            findings: diagnosis
                .findings
                .into_iter()
                .filter(wrong)
                .take(Diagnosis::MAX)
                .collect(),
            ..diagnosis
        });
    }
}
