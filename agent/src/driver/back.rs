//! Rollback: without the server, unless the kept version is damaged.

use std::time::{Duration, Instant};

use tidegate_machine::fsm::{Activation, Event, Installed, Job, Phase, SlotId};
use tidegate_protocol::{Explained, Payload, Reason};

use super::core::NotBack;
use super::{Driver, DriverError, LAST_WORDS, MAX_BACK_OFF, RoundError};
use crate::fs::journal;
use crate::host::platform;
use crate::log;
use crate::net::download::Ways;
use crate::net::line::SILENCE;

/// Longest pause between attempts that need only this machine.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// Interval between looks for room on a full disk, and their number before an attempt anyway.
const LOOK: Duration = Duration::from_secs(2);
const LOOKS: u32 = 5;

/// Outcome of fetching a damaged version again.
enum Restored {
    /// The version is whole in its slot.
    Whole,
    /// It failed for now and is retried.
    NotYet(Explained),
    /// No source has it any more.
    Never(Explained),
}

impl Driver {
    /// Switches back to a slot that was in use before, retrying until it succeeds: nothing that the
    /// server could say makes a rollback wrong. Outside of updates it is tried `once` per start,
    /// since an update may repair whatever prevents it.
    pub(super) async fn go_back(
        &mut self,
        slot: Option<SlotId>,
        once: bool,
    ) -> Result<Event, DriverError> {
        let mut wait = Duration::from_secs(1);
        let event = loop {
            let mut longest = MAX_PAUSE;
            self.beat();
            self.stopped.get_or_insert_with(Instant::now);
            let work = self.core.way_back(slot);
            let done = self.blocking(move || work.run()).await;
            let why = match done.unwrap_or_else(|why| Err(NotBack::Failed(why))) {
                Ok(Activation::Live) => {
                    if let Some(slot) = slot
                        && let Err(why) = self.restart(slot).await
                    {
                        // The old version is in place; a failing restart command does not make the
                        // new one better.
                        log::line(&format!("after the rollback: {why}"));
                    }
                    break Event::Returned;
                }
                // The rollback takes effect after the restart; until then it is still under way.
                Ok(Activation::Restart) => {
                    self.shut_down()?;
                    self.give_way().await?;
                    self.restart_machine().await
                }
                Err(NotBack::Failed(why)) => why,
                Err(NotBack::Damaged(why)) => {
                    log::line(&format!("fetching the previous version again: {why}"));
                    self.refused = Some(why);
                    match self.restore(slot).await? {
                        Restored::Whole => continue,
                        Restored::NotYet(why) => {
                            // The server is asked each time.
                            longest = MAX_BACK_OFF;
                            why
                        }
                        Restored::Never(why) => break Event::NotReturned(why),
                    }
                }
            };
            log::line(&format!("rollback: {why}"));
            if why.code == Reason::DiskFull {
                self.make_room();
            }
            self.refused = Some(why.clone());
            self.report_now().await?;
            if once {
                return Ok(Event::NotReturned(why));
            }
            if why.code == Reason::DiskFull {
                self.until_room().await;
            } else {
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(longest);
            }
        };
        self.refused = None;
        self.restores = None;
        self.note_running()?;
        Ok(event)
    }

    /// Rebuilds the version in use from its artifact if it is gone, removed by a person or lost by
    /// its storage. Changed files are left alone: a version may write to its own files.
    pub(super) async fn mend_running(&mut self) {
        let record = self.journal().record();
        let resting = matches!(record.phase, Phase::Idle | Phase::Probation { .. });
        let Some((slot, image)) = record
            .active
            .filter(|slot| resting && !self.core.backend.is_there(*slot))
            .and_then(|slot| Some((slot, record.slot(slot)?.image)))
        else {
            return;
        };
        log::line("the version in use is missing: rebuilding it from its artifact");
        let backend = self.core.backend.clone();
        let made = self.blocking(move || backend.verify(slot, image)).await;
        let why = match made {
            Ok(Ok(())) => match self.restart(slot).await {
                Ok(()) => return,
                Err(why) => why,
            },
            Ok(Err(error)) => Explained::new(Reason::PreviousDamaged, log::chain(&error)),
            Err(why) => why,
        };
        log::line(&why.to_string());
        self.refused = Some(why);
    }

    /// Waits until the disk has other room than now, which is cheap to ask; not for long, as a quota does
    /// not show. The version that failed runs meanwhile, and is often what fills the disk.
    async fn until_room(&self) {
        let places = [Some(self.state.clone()), self.core.backend.elsewhere()];
        let look = || {
            let rooms = places.iter().flatten().map(|place| platform::room(place));
            rooms.collect::<Vec<_>>()
        };
        until_changed(look).await;
    }

    /// Frees the space that a rollback does not need: the download and the reserve.
    fn make_room(&mut self) {
        let reserve = self.state.join(journal::RESERVE);
        let freed = self.core.download.drop_all();
        for error in [freed, self.fs.remove_if_there(&reserve)]
            .into_iter()
            .filter_map(Result::err)
        {
            log::line(&format!("freeing space: {error}"));
        }
    }

    /// Keeps a reserve of disk space, to be freed when the disk is full.
    pub(super) fn keep_reserve(&self) {
        const BYTES: usize = 256 << 10;
        let path = self.state.join(journal::RESERVE);
        if path.exists() {
            return;
        }
        let plenty = platform::free_space(&self.state).is_some_and(|free| free > 64 * BYTES as u64);
        if plenty && std::fs::write(&path, vec![0xA5; BYTES]).is_err() {
            // A partial reserve would only be in the way.
            let _ = std::fs::remove_file(&path);
        }
    }

    /// Sends pending reports and a check-in, if the server can be reached at once.
    async fn report_now(&mut self) -> Result<(), DriverError> {
        let sign = async {
            self.send_reports().await?;
            self.check_in(0).await.map(drop)
        };
        match tokio::time::timeout(LAST_WORDS, sign).await {
            Ok(Err(RoundError::Fatal(error))) => Err(error),
            _ => Ok(()),
        }
    }

    /// Fetches the image of a slot again and stages it there. The server only says how to fetch it;
    /// which image it must be was verified when it was installed.
    async fn restore(&mut self, slot: Option<SlotId>) -> Result<Restored, DriverError> {
        let record = self.journal().record();
        let Some((slot, wanted)) = slot.and_then(|slot| Some((slot, record.slot(slot)?.clone())))
        else {
            let why = Explained::from(Reason::NoPreviousSlot);
            return Ok(Restored::Never(why));
        };
        let running = record.running().map(|installed| installed.image.sha256);
        self.restores = Some(wanted.image.sha256);
        let reason = |text: String| Explained::new(Reason::PreviousDamaged, text);
        let asked = async {
            self.send_reports().await?;
            self.check_in(0).await.map(|(answer, _)| answer)
        };
        let answer = match asked.await {
            Ok(answer) => answer,
            Err(RoundError::Fatal(error)) => return Err(error),
            Err(error) => return Ok(Restored::NotYet(reason(log::chain(&error)))),
        };
        self.take_mirrors(&answer.mirrors);
        let mut last = None;
        for payload in answer.restore {
            // A delta starts from the version in use; the damaged image cannot be its base.
            let damaged = Some(wanted.image.sha256);
            if payload.from.is_some() && (payload.from != running || payload.from == damaged) {
                continue;
            }
            match self.fetch_again(slot, &wanted, payload).await {
                Ok(()) => {
                    log::line(&format!("{} is restored", wanted.release));
                    return Ok(Restored::Whole);
                }
                Err(why) => {
                    log::line(&why.to_string());
                    last = Some(why);
                }
            }
        }
        Ok(match last {
            Some(why) => Restored::NotYet(why),
            None => Restored::Never(reason(format!(
                "{} is damaged on this device, and the server no longer has it",
                wanted.release
            ))),
        })
    }

    async fn fetch_again(
        &mut self,
        slot: SlotId,
        wanted: &Installed,
        payload: Payload,
    ) -> Result<(), Explained> {
        let needed = self.core.backend.room(wanted.image.length);
        let limits = self.config.limits.clone();
        self.seek_session().await;
        let ways = Ways {
            sources: self.sources(),
            parallel: usize::from(self.config.parallel),
            limits: &limits,
            deadline: None,
            silence: SILENCE,
        };
        let download = self.core.download.clone();
        self.alive(download.run(ways, &payload, needed)).await?;
        let staging = self
            .core
            .staging(Job::anew(wanted.clone(), slot, vec![payload]));
        let staged = self.blocking(move || staging.run()).await?;
        // Staged or not, the download is no longer needed.
        self.drop_download();
        staged
    }
}

/// Waits until a look shows something else than before, for [`LOOKS`] looks at most.
async fn until_changed<T: PartialEq>(look: impl Fn() -> T) {
    let before = look();
    for _ in 0..LOOKS {
        tokio::time::sleep(LOOK).await;
        if look() != before {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn room_that_comes_back_is_noticed_within_seconds_and_an_attempt_is_made_without_any() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            // Again and again: no pause grows with the number of attempts.
            for _ in 0..20 {
                let (looks, begun) = (Cell::new(0), tokio::time::Instant::now());
                until_changed(|| {
                    looks.set(looks.get() + 1);
                    looks.get() > 2
                })
                .await;
                assert_eq!(begun.elapsed(), 2 * LOOK);
                let begun = tokio::time::Instant::now();
                until_changed(|| ()).await;
                assert_eq!(begun.elapsed(), LOOKS * LOOK);
            }
            assert!(LOOKS * LOOK <= Duration::from_secs(10));
        });
    }
}
