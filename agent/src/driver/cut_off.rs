//! Handling of a server that cannot be reached: next address, fresh session, diagnosis.

use std::time::{Duration, Instant};

use tidegate_machine::fsm::Phase;
use tidegate_protocol::{Diagnosis, Verdict};

use super::Driver;
use super::hold::back_off;
use crate::fs::Mode;
use crate::host::platform;
use crate::log;
use crate::net::client::Client;
use crate::net::tls::TlsClock;
use crate::people::config::Config;
use crate::people::doctor;

/// Failed rounds before a diagnosis is made.
const FAILURES: u32 = 3;
/// Interval between diagnoses.
const AGAIN: Duration = Duration::from_mins(30);

/// State of an outage: its start, and what was done about it.
#[derive(Debug, Default)]
pub(super) struct CutOff {
    since: Option<Instant>,
    failures: u32,
    looked: Option<Instant>,
    /// Index of the address in use.
    endpoint: usize,
    /// Findings to send to the server; `None` once it has answered.
    pub(super) diagnosis: Option<Diagnosis>,
}

impl Driver {
    /// Ends an outage: the server has answered.
    pub(super) fn note_reached(&mut self) {
        let cut_off = &mut self.cut_off;
        if let Some(since) = cut_off.since.take()
            && cut_off.failures >= FAILURES
        {
            let seconds = since.elapsed().as_secs();
            log::line(&format!("server reachable again after {seconds} s"));
        }
        cut_off.failures = 0;
        cut_off.looked = None;
        cut_off.diagnosis = None;
    }

    /// Handles a failed round: moves on to the next address, makes a diagnosis if one is due, and
    /// returns the back-off before the next round.
    pub(super) async fn note_cut_off(&mut self) -> Duration {
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
        let window = match &self.journal().record().phase {
            Phase::Probation { job, .. } => {
                Some(Duration::from_secs(u64::from(job.rollback_window_s)))
            }
            _ => None,
        };
        back_off(failures, self.config.endpoints().count(), self.poll, window)
    }

    /// Switches to the next address of the control plane, with a new connection and session.
    fn next_endpoint(&mut self) {
        // Without settings or a key there is nothing to say to any address.
        if self.client.is_unfit() {
            return;
        }
        let endpoints: Vec<&str> = self.config.endpoints().collect();
        let next = (self.cut_off.endpoint + 1) % endpoints.len().max(1);
        let clock = TlsClock {
            floor: self.journal().record().time_floor,
            trusted: self.config.clock_trusted,
        };
        // The server may have forgotten the session, and the connection may be dead: keep neither.
        let Config {
            ca_file,
            plain_http,
            ..
        } = &self.config;
        match Client::new(endpoints[next], ca_file.as_deref(), *plain_http, clock) {
            Ok(client) => {
                if endpoints.len() > 1 {
                    log::line(&format!("switching to {}", endpoints[next]));
                }
                self.client = client;
            }
            Err(error) => log::line(&format!("{}: {}", endpoints[next], log::chain(&error))),
        }
        self.cut_off.endpoint = next;
    }

    /// Makes a diagnosis and keeps it for the server and for people at the machine.
    async fn look_into_it(&mut self, since: Instant) {
        let findings = doctor::examine(&self.state, true).await;
        let diagnosis = Diagnosis {
            time: platform::now(),
            cut_off_s: since.elapsed().as_secs(),
            findings,
        };
        if let Ok(text) = serde_json::to_vec_pretty(&diagnosis) {
            let path = self.state.join("diagnosis.json");
            // Only for people: the agent does not read it.
            let _ = self.fs.replace(&path, &text, Mode::Plain);
        }
        // After the file: whoever reads this line finds what it speaks of.
        log::line(&format!("a look into it: {}", diagnosis.summary()));
        // Good findings are of no interest to the server.
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
