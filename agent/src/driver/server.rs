//! Exchange with the server: check-ins, reports, metadata and assignments.

use std::path::Path;
use std::time::{Duration, Instant};

use hyper::Method;
use tidegate_machine::fsm::{Event, Phase};
use tidegate_machine::orders::{self, Asked, NotTaken};
use tidegate_protocol::{
    CheckIn, CheckInAnswer, DeploymentStatus, Format, Kept, MAX_WAIT_S, Reason, ReportBatch,
    ReportsAccepted, paths,
};
use tidegate_trust::assignment::Clock;
use tidegate_trust::verify::{Refresh, Trusted};
use tidegate_trust::{RoleName, sign_report};

use super::older::reasons;
use super::{ANSWER, DEADLINE, Driver, DriverError, RoundError, encode, probation_check};
use crate::host::{platform, spare};
use crate::net::TransportError;
use crate::people::identity;

/// Longest interval between two check-ins that is obeyed. The answer is not signed: without a
/// bound, one answer from a stolen server would silence a fleet for 136 years.
const LONGEST_POLL: Duration = Duration::from_hours(1);
/// The same in the rollback window, when an order must be heard.
const LONGEST_WATCHED: Duration = Duration::from_mins(5);
/// Shortest time between two repetitions of an acknowledged report.
const BETWEEN_REPEATS: Duration = Duration::from_mins(1);

impl Driver {
    /// Runs one round with the server: reports up, orders down. Returns the pause before the next
    /// one.
    pub(super) async fn round(&mut self) -> Result<Duration, RoundError> {
        // Comes first: the server may know the next key already, and the present one no longer.
        if identity::has_next_identity(&self.state) {
            self.change_key().await?;
        }
        self.send_reports().await?;
        // In probation the request is held no longer than to the next health check.
        let asked_now = self.control.take_check_order();
        let (most, watched) = match &self.journal().record().phase {
            Phase::Probation { job, .. } => {
                let left =
                    probation_check(job.rollback_window_s).saturating_sub(self.counted.elapsed());
                let left = u16::try_from(left.as_secs()).unwrap_or(MAX_WAIT_S);
                (left.max(1), true)
            }
            // The first check-in is not held: it shows that this agent reaches its server.
            _ if !self.spoken => (0, false),
            _ => (MAX_WAIT_S, false),
        };
        // A person waits for the answer: a held request would be answered when there is news.
        let wait = if asked_now { 0 } else { self.hold.ask(most) };
        let begun = Instant::now();
        let control = self.control.clone();
        let (answer, nonce) = tokio::select! {
            answer = self.check_in(wait) => answer?,
            // Abandon the held request: the next one starts at once.
            () = control.woken() => return Ok(Duration::ZERO),
        };
        let took = begun.elapsed();
        self.hold.note_answered(wait, took);
        let kept_out = Some(answer.reason.code)
            .filter(|code| matches!(code, Reason::DeviceIsolated | Reason::DeviceNotAccepted));
        if kept_out != self.kept_out {
            crate::log::line(match kept_out {
                None => "this device takes part now",
                Some(Reason::DeviceIsolated) => {
                    "the server has isolated this device: two machines used its identity, or a person isolated it"
                }
                Some(_) => "this device has joined and waits for a person to accept it",
            });
            self.kept_out = kept_out;
        }
        // Before an assignment, whose first report would take its place.
        if let Some(recorded) = answer.reported {
            self.repeat_report(recorded)?;
        }
        if let Some(cancel) = answer.cancel {
            self.handle(Event::CalledOff(cancel)).await?;
        }
        // The newest answer replaces every earlier one. Only a rollback window has use for it.
        if watched {
            let kept = Event::KeepPrevious(answer.keep_previous_s.unwrap_or(0));
            self.handle_light(kept)?;
        }
        self.take_mirrors(&answer.mirrors);
        if let Some(text) = &answer.key_order {
            let taken = self.take_key_order(text, nonce.clone()).await;
            if let Err(RoundError::Trust(error)) = &taken {
                self.refused = Some(error.explained());
            }
            taken?;
        }
        if let Some(text) = &answer.assignment {
            let taken = self.take_assignment(text, Some(&nonce)).await;
            self.refused = match &taken {
                Err(RoundError::Trust(error)) => Some(error.explained()),
                _ => None,
            };
            taken?;
            // There is a report to send.
            return Ok(Duration::ZERO);
        }
        let first = !std::mem::replace(&mut self.spoken, true);
        if first || asked_now || !self.journal().record().outbox.is_empty() {
            return Ok(Duration::ZERO);
        }
        let longest = if watched {
            LONGEST_WATCHED
        } else {
            LONGEST_POLL
        };
        let poll = Duration::from_secs(u64::from(answer.poll_after_s.max(1))).min(longest);
        self.poll = poll;
        Ok(self.hold.pause(wait, took, poll, watched))
    }

    pub(super) async fn send_reports(&mut self) -> Result<(), RoundError> {
        while !self.journal().record().outbox.is_empty() {
            let outbox = &self.core.journal.record().outbox;
            let mut reports: Vec<_> = outbox.iter().take(ReportBatch::MAX).cloned().collect();
            let said = reasons(&reports);
            for report in &mut reports {
                report.reason = report.reason.take().map(|why| self.in_known_words(why));
            }
            let sent = reports.last().map_or(0, |report| report.seq);
            let reports = reports
                .into_iter()
                .map(|report| sign_report(&self.key, self.config.device, report))
                .collect::<Result<_, _>>()?;
            let body = encode(&ReportBatch { reports })?;
            let answer: ReportsAccepted = match self.call(paths::REPORTS, body, DEADLINE).await {
                Err(error) if self.note_old_server(&error, &said) => continue,
                answer => answer?,
            };
            let before = self.journal().record().outbox.len();
            // What was not sent cannot have been taken.
            self.handle_light(Event::Acknowledged(answer.acknowledged.min(sent)))?;
            if self.journal().record().outbox.len() == before {
                // A server restored from an old backup may know fewer numbers than it had
                // acknowledged; it will not catch up, so fail rather than spin.
                return Err(
                    TransportError::Malformed("reports were not acknowledged".into()).into(),
                );
            }
        }
        Ok(())
    }

    /// Sends the last acknowledged report again if the server has not recorded it; seldom, as a server
    /// that lies would have it sent without end.
    fn repeat_report(&mut self, recorded: u64) -> Result<(), DriverError> {
        let told = &self.journal().record().told;
        let is_lost = told.as_ref().is_some_and(|told| told.seq > recorded);
        if !is_lost
            || self
                .repeated
                .is_some_and(|at| at.elapsed() < BETWEEN_REPEATS)
        {
            return Ok(());
        }
        crate::log::line(
            "the server has not recorded the last report that was acknowledged: sending it again",
        );
        self.repeated = Some(Instant::now());
        self.handle_light(Event::Recorded(recorded))
    }

    /// Processes an event that has no effects.
    pub(super) fn handle_light(&mut self, event: Event) -> Result<(), DriverError> {
        let held = spare::give_up();
        let noted = tidegate_machine::note(&mut self.core.journal, event);
        if held {
            spare::keep();
        }
        Ok(noted?)
    }

    pub(super) async fn check_in(
        &mut self,
        wait: u16,
    ) -> Result<(CheckInAnswer, String), RoundError> {
        self.look_around().await;
        // A person may have taken it away.
        self.left.take_if(|left| !Path::new(&left.folder).is_dir());
        self.asked_s = wait;
        self.turn += 1;
        let nonce = hex::encode(rand::random::<[u8; 32]>());
        let record = self.journal().record();
        let running = record.running();
        let said = self.refused.clone();
        let mut request = CheckIn {
            format: Format::CURRENT,
            nonce: nonce.clone(),
            counter: record.counter,
            turn: self.turn,
            acknowledged: record.told.as_ref().map(|told| told.seq),
            wait,
            agent_version: crate::VERSION.into(),
            release: running.map(|i| i.release.clone()),
            image: running.map(|i| i.image.sha256),
            metered: self.metered.0,
            abilities: self.abilities.clone(),
            healthy: self.healthy.and_then(|(healthy, _)| healthy),
            kept: record.kept().map(|installed| Kept {
                release: installed.release.clone(),
                image: installed.image,
            }),
            refused: said.clone().map(|why| self.in_known_words(why)),
            restore: self.restores,
            left: self.left.clone(),
            diagnosis: self.cut_off.diagnosis.clone(),
            battery: self.battery,
            deployment: record.status().map(|(id, state, rollback_window_left_s)| {
                DeploymentStatus {
                    id,
                    state,
                    rollback_window_left_s,
                }
            }),
        };
        let deadline = DEADLINE + Duration::from_secs(u64::from(wait));
        let asked = self
            .call(paths::CHECK_IN, encode(&request)?, deadline)
            .await;
        let answer: CheckInAnswer = match asked {
            Err(error) if self.note_old_server(&error, said.as_slice()) => {
                request.refused = said.map(|why| self.in_known_words(why));
                self.call(paths::CHECK_IN, encode(&request)?, deadline)
                    .await?
            }
            asked => asked?,
        };
        self.control.heard(&answer.reason);
        Ok((answer, nonce))
    }

    /// Calls the device API within a session, opening one if there is none.
    async fn call<T: serde::de::DeserializeOwned>(
        &mut self,
        path: &str,
        body: Vec<u8>,
        deadline: Duration,
    ) -> Result<T, RoundError> {
        if self.bundle.is_some() {
            let text = "offline: a bundle is being applied";
            return Err(TransportError::Broken(text.into()).into());
        }
        for renewed in [false, true] {
            if renewed || !self.client.has_ticket() {
                self.open_session().await?;
            }
            let headers = [("content-type", "application/json")];
            let answer = self
                .client
                .send(Method::POST, path, &headers, body.clone(), ANSWER, deadline)
                .await?;
            if answer.status == hyper::StatusCode::UNAUTHORIZED && !renewed {
                // Never used again: going back to an older session is what a copy does.
                self.client.set_ticket(None);
                continue;
            }
            let bytes = answer.ok()?;
            return serde_json::from_slice(&bytes)
                .map_err(|e| TransportError::Malformed(e.to_string()).into());
        }
        Err(
            TransportError::Malformed("the server rejects the session that it just granted".into())
                .into(),
        )
    }

    /// The device's view of the time: clock, floor, and whether the clock alone decides.
    pub(super) fn clock(&self) -> Clock {
        Clock {
            shows: platform::now(),
            floor: self.journal().record().time_floor,
            strict: self.config.clock_trusted,
        }
    }

    /// Refreshes the signed metadata; verified files are kept even if a later one is refused.
    pub(super) async fn refresh(&mut self) -> Result<Trusted, RoundError> {
        let kept = self.trust.load().map_err(DriverError::from)?;
        let role = RoleName::new(self.config.product.clone(), self.config.channel);
        let record = self.journal().record();
        let (floors, past) = (record.floors.clone(), record.time_floor);
        let mut refresh = Refresh::start(kept.clone(), floors, role, past)?;
        let result = async {
            while let Some(wanted) = refresh.request() {
                if let Some(folder) = &self.bundle {
                    let path = folder.join("metadata").join(&wanted.file);
                    let bytes = self.fs.read(&path, wanted.limit as u64 + 1);
                    let bytes = bytes
                        .map_err(|e| TransportError::Broken(format!("{}: {e}", path.display())))?;
                    if bytes.is_none() && !wanted.may_be_absent {
                        let text = format!("{} is not in the bundle", path.display());
                        return Err(TransportError::Broken(text).into());
                    }
                    refresh.answer(bytes)?;
                    continue;
                }
                let path = format!("{}{}", paths::METADATA, wanted.file);
                let answer = self
                    .client
                    .send(Method::GET, &path, &[], Vec::new(), wanted.limit, DEADLINE)
                    .await?;
                let absent = answer.status == hyper::StatusCode::NOT_FOUND;
                let bytes = if absent && wanted.may_be_absent {
                    None
                } else {
                    Some(answer.ok()?)
                };
                refresh.answer(bytes.map(|b| b.to_vec()))?;
            }
            Ok::<(), RoundError>(())
        }
        .await;
        if let Some(issued) = refresh.turned_back() {
            // Before the root is kept: once it is, it is no longer new, and says this no more.
            let mut record = self.journal().draft();
            record.time_floor = issued;
            self.write(record).map_err(DriverError::from)?;
        }
        self.trust
            .save(&kept, refresh.files())
            .map_err(DriverError::from)?;
        let mut record = self.journal().draft();
        record.floors = refresh.floors().clone();
        self.write(record).map_err(DriverError::from)?;
        result?;
        Ok(refresh.finish()?)
    }

    /// Verifies an assignment in the numbered order and hands it to the state machine. Without a
    /// nonce it comes from a site bundle.
    pub(super) async fn take_assignment(
        &mut self,
        text: &str,
        nonce: Option<&str>,
    ) -> Result<(), RoundError> {
        let trusted = self.refresh().await?;
        let agent = crate::VERSION.parse().ok();
        let asked = Asked {
            device: self.config.device,
            platform: &self.config.platform,
            nonce,
            clock: self.clock(),
            agent: agent.as_ref(),
            formats: self.core.backend.formats(),
        };
        let journal = &mut self.core.journal;
        let checked = orders::check(journal, &trusted, text.as_bytes(), &asked);
        let (job, counter) = checked.map_err(|error| match error {
            NotTaken::Trust(error) => RoundError::Trust(error),
            NotTaken::Journal(error) => DriverError::from(error).into(),
        })?;
        self.switch_by = job.switch_within_s.map(|s| {
            let until = Instant::now() + Duration::from_secs(u64::from(s));
            (job.deployment, until)
        });
        if self.journal().record().phase == Phase::Idle {
            // What an earlier deployment has fetched is not counted for this one as well.
            self.core.download.count_anew();
        }
        self.handle(Event::Assigned(Box::new(job), counter)).await?;
        Ok(())
    }
}
