//! Check-ins: devices send facts and get orders. Costs no statement when nothing changes.

mod act;

use std::sync::Arc;
use std::time::Duration;

use tidegate_domain::contact::Contact;
use tidegate_domain::event::Actor;
use tidegate_protocol::{
    CheckIn, CheckInAnswer, DeploymentState, DeviceId, Explained, MAX_WAIT_S, Reason, Timestamp,
};
use tidegate_trust::assignment::{Action, KeyOrder};

use crate::CoreError;
use crate::app::App;
use crate::device::checkin::act::{Giver, Next};
use crate::device::heartbeat::take_contact;
use crate::device::{assign, require_active};
use crate::memory::access::Operator;
use crate::memory::device::DeviceEntry;
use crate::memory::permits::Permits;

/// Answer to a check-in, and what to wait for if it says nothing new.
struct Answered {
    answer: CheckInAnswer,
    news: bool,
    again: Option<Timestamp>,
    permits: Option<Arc<Permits>>,
}

impl Answered {
    fn plain(answer: CheckInAnswer, news: bool) -> Self {
        Self {
            answer,
            news,
            again: None,
            permits: None,
        }
    }
}

/// Up to this many held check-ins are woken at once; above it they are spread over the ramp.
const FEW: usize = 500;
/// Longest time for which a device keeps the previous version on the word of one answer, in seconds.
const LONGEST_S: u32 = 86_400;

/// Number of decisions made before giving up, when writes find them outdated.
const TRIES: u32 = 4;

/// Whether the device believes a report taken that is not recorded: an acknowledgement that was forged, or
/// lost with a database.
fn lacks_a_report(entry: &DeviceEntry, request: &CheckIn) -> bool {
    let recorded = entry.lock().device.report_seq;
    request.acknowledged.is_some_and(|told| told > recorded)
}

impl App {
    /// Handles a check-in, made in a session and from an address; may hold it until there is something
    /// to say.
    pub async fn check_in(
        &self,
        (device, session): (DeviceId, u64),
        from: &str,
        request: &CheckIn,
    ) -> Result<CheckInAnswer, CoreError> {
        crate::device::require_format(request.format)?;
        if request.nonce.len() != 64 || !request.nonce.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(CoreError::invalid("nonce: must be 32 bytes in hexadecimal"));
        }
        let entry = self
            .fleet
            .device(device)
            .ok_or_else(|| CoreError::not_found("device with this id"))?;
        let hold = Duration::from_secs(u64::from(request.wait.min(MAX_WAIT_S)));
        let deadline = tokio::time::Instant::now() + hold;
        let mut watch = self.fleet.watch();
        let mut about_it = false;
        if entry.lock().device.awaiting {
            // Whoever has not been accepted changes no row.
            entry.lock().device.last_seen = self.now();
        } else {
            let contact = Contact::new(session, request.turn, &request.nonce, self.now(), from);
            take_contact(&entry, contact)?;
            self.note_heartbeat(&entry, request).await?;
            if lacks_a_report(&entry, request) {
                // Another replica may have taken it.
                self.fleet.reload_device(&self.db, device).await?;
            }
        }
        loop {
            watch.mark_unchanged();
            // From here on changes are noticed, including one that comes while the answer is made.
            let changed = entry.changed.notified();
            {
                let state = entry.lock();
                if !state.device.awaiting {
                    require_active(&state.device)?;
                }
            }
            let Answered {
                answer,
                news,
                again,
                permits,
            } = self.answer(device, &entry, request).await?;
            // A person changed something about this device: let it check in again with fresh facts.
            if news || about_it || self.stopping.is_cancelled() {
                return Ok(answer);
            }
            if hold.is_zero() {
                self.metrics.check_ins.inc();
                entry.lock().device.last_seen = self.now();
                return Ok(answer);
            }
            // If the next decision is due within the hold, wait for it here.
            let moment = again
                .map(|at| tokio::time::Instant::now() + at.since(self.now()))
                .filter(|moment| *moment < deadline);
            let freed = async {
                match &permits {
                    Some(permits) => permits.freed.notified().await,
                    None => std::future::pending().await,
                }
            };
            let look_again = tokio::select! {
                changed = watch.changed() => {
                    self.spread_out().await;
                    changed.is_ok()
                }
                () = freed => true,
                () = changed => {
                    about_it = true;
                    true
                }
                () = tokio::time::sleep_until(moment.unwrap_or(deadline)) => moment.is_some(),
                () = self.stopping.cancelled() => false,
            };
            if !look_again {
                self.metrics.check_ins.inc();
                entry.lock().device.last_seen = self.now();
                return Ok(answer);
            }
        }
    }

    /// Spreads held check-ins over a short ramp after a change of the plan, if there are many; a
    /// few are answered at once.
    async fn spread_out(&self) {
        let held = self.requests.load(std::sync::atomic::Ordering::Relaxed);
        if held > FEW {
            let ramp = u64::try_from(self.settings.devices.wake_ramp.as_micros()).unwrap_or(0);
            let wait = crate::random::bits() % ramp.max(1);
            tokio::time::sleep(Duration::from_micros(wait)).await;
        }
    }

    /// Makes one answer, and notes whether it says something new.
    async fn answer(
        &self,
        device: DeviceId,
        entry: &DeviceEntry,
        request: &CheckIn,
    ) -> Result<Answered, CoreError> {
        let by = Giver {
            actor: &Actor::CheckIn,
            carried: None,
        };
        let mut answered = self.orders(&by, device, entry, request).await?;
        let (wanted, replaces) = {
            let state = entry.lock();
            answered.answer.reported = Some(state.device.report_seq);
            (state.device.new_key, state.device.public_key.clone())
        };
        if wanted {
            let order = KeyOrder {
                device,
                nonce: request.nonce.clone(),
                replaces,
            };
            let director = &self.fleet.plan().trust.keys.director;
            answered.answer.key_order = Some(order.sign(director, self.now())?);
            answered.answer.new_key = true;
            // A device that refuses it says so, and is held like any other.
            answered.news |= request.refused.is_none();
        }
        answered.news |= lacks_a_report(entry, request);
        let waits = entry.lock().device.awaiting;
        if let Some(image) = request.restore.filter(|_| !waits) {
            let plan = self.fleet.plan();
            answered.answer.restore = assign::payloads(&plan, image, request, false);
            answered.news = true;
        }
        Ok(answered)
    }

    /// Returns what a device without a network would be told if it checked in now, to be carried to
    /// it.
    pub(crate) async fn carried(
        &self,
        by: &Operator,
        device: DeviceId,
        entry: &DeviceEntry,
        request: &CheckIn,
        lives: Duration,
    ) -> Result<CheckInAnswer, CoreError> {
        let by = Giver {
            actor: &by.actor,
            carried: Some(lives),
        };
        let answered = self.orders(&by, device, entry, request).await?;
        Ok(answered.answer)
    }

    async fn orders(
        &self,
        by: &Giver<'_>,
        device: DeviceId,
        entry: &DeviceEntry,
        request: &CheckIn,
    ) -> Result<Answered, CoreError> {
        let mut reason = Explained::from(Reason::NoRollout);
        let (keep, extends) = self.keep_previous(entry, request);
        for _ in 0..TRIES {
            let plan = self.fleet.plan();
            let left = |rollout| self.fleet.permits_left(rollout);
            let decision = entry.lock().decide(&plan, &left, self.now(), &mut ());
            reason = decision.reason.clone();
            let (mut again, rollout) = (decision.again, decision.rollout);
            let Some(task) = self.act(by, device, decision).await? else {
                continue;
            };
            let (task, cancel) = match task {
                Next::Nothing | Next::NoPermit => {
                    if matches!(task, Next::NoPermit) {
                        reason = Reason::PaceLimit.into();
                    }
                    let waits = reason.code == Reason::PaceLimit;
                    return Ok(Answered {
                        answer: self.plain(reason, again, keep),
                        news: extends,
                        permits: rollout
                            .filter(|_| waits)
                            .and_then(|r| self.fleet.permits(r)),
                        again: again.take(),
                    });
                }
                Next::Cancel(deployment) => (None, Some(deployment)),
                Next::Task(task) => (Some(task), None),
            };
            // The device already has this task, and is not waiting for its window to open.
            let knows = request.deployment.is_some_and(|status| {
                status.state != DeploymentState::Deferred
                    && task
                        .as_ref()
                        .is_some_and(|t| t.deployment == status.id && t.action == Action::Install)
            });
            if knows {
                let answer = self.plain(reason, None, keep);
                return Ok(Answered::plain(answer, extends));
            }
            let assignment = match &task {
                Some(task) => Some(self.assign(&plan, &entry.lock(), request, task, by.carried)?),
                None => None,
            };
            self.metrics.check_ins.inc();
            let answer = CheckInAnswer {
                assignment,
                cancel,
                ..self.plain(reason, None, keep)
            };
            return Ok(Answered {
                answer,
                news: true,
                again: None,
                permits: None,
            });
        }
        let answer = self.plain(reason, None, keep);
        Ok(Answered::plain(answer, extends))
    }

    fn plain(
        &self,
        reason: Explained,
        again: Option<Timestamp>,
        keep_previous_s: Option<u32>,
    ) -> CheckInAnswer {
        let now = self.now();
        let mut poll = self.settings.devices.poll;
        if let Some(at) = again {
            poll = poll.min(at.since(now) + Duration::from_secs(1));
        }
        CheckInAnswer {
            time: now,
            reason,
            poll_after_s: u32::try_from(poll.as_secs()).unwrap_or(u32::MAX).max(1),
            assignment: None,
            cancel: None,
            keep_previous_s,
            new_key: false,
            key_order: None,
            reported: None,
            mirrors: self.settings.devices.mirrors.clone(),
            restore: Vec::new(),
        }
    }

    /// Time for which a device in its rollback window should keep the previous version, in seconds:
    /// said in each answer, as the newest one counts and counts for a day at most. Returns as well
    /// whether that is longer than the device knows.
    fn keep_previous(&self, entry: &DeviceEntry, request: &CheckIn) -> (Option<u32>, bool) {
        let left = request.deployment.and_then(|d| d.rollback_window_left_s);
        let kept = left.and_then(|left| Some((left, self.extended(entry)?)));
        // It counts in whole seconds, and time passes on the way.
        let extends = kept.is_some_and(|(left, kept)| left + left / 2 + 5 < kept.min(LONGEST_S));
        (kept.map(|(_, kept)| kept.min(LONGEST_S)), extends)
    }

    fn extended(&self, entry: &DeviceEntry) -> Option<u32> {
        let plan = self.fleet.plan();
        let state = entry.lock();
        let (rollout, deployment) = state
            .deployments
            .iter()
            .find(|(_, d)| d.state == DeploymentState::Probation)?;
        let (rollout, _) = plan.rollouts.get(rollout)?;
        if rollout.frozen {
            return Some(LONGEST_S);
        }
        if rollout.extended_s == 0 {
            return None;
        }
        let window = rollout.rollback_window_s.saturating_add(rollout.extended_s);
        let kept = Duration::from_secs(self.kept_for(window).into());
        let ends = deployment.updated_at.plus(kept);
        Some(u32::try_from(ends.since(self.now()).as_secs()).unwrap_or(u32::MAX))
    }
}
