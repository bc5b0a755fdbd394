//! Verification of assignments in the numbered order, and their conversion into jobs: no network
//! and no clock of its own.

use tidegate_protocol::{DeviceId, Platform, Version};
use tidegate_trust::assignment::{self, Clock, Situation};
use tidegate_trust::verify::Trusted;
use tidegate_trust::{ImageFacts, TrustError};

use crate::fsm::{Installed, Job};
use crate::journal::{Journal, JournalError};

/// Facts about the device for verifying an assignment, beside its journal.
pub struct Asked<'a> {
    /// This device.
    pub device: DeviceId,
    /// Its platform.
    pub platform: &'a Platform,
    /// Nonce that it sent; `None` for an assignment from a site bundle.
    pub nonce: Option<&'a str>,
    /// The device's view of the time; the floor is the journal's.
    pub clock: Clock,
    /// Version of its agent.
    pub agent: Option<&'a Version>,
    /// Artifact formats that its backend installs.
    pub formats: &'a [&'a str],
}

/// Reason why an assignment is not taken.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It does not verify.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The raised time floor could not be written.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Verifies an assignment and raises the time floor. Returns the job and the assignment's
/// counter, for the state machine.
pub fn check(
    journal: &mut Journal,
    trusted: &Trusted,
    bytes: &[u8],
    asked: &Asked<'_>,
) -> Result<(Job, u64), NotTaken> {
    let record = journal.record();
    let kept = record.kept().map(|installed| ImageFacts {
        image: installed.image,
        release: installed.release.clone(),
        hw: vec![asked.platform.clone()],
        format: installed.format.clone(),
        min_from: None,
        min_agent: None,
        stepping_stone: false,
        allow_rollback: true,
        health: installed.health.clone(),
    });
    let situation = Situation {
        device: asked.device,
        platform: asked.platform,
        nonce: asked.nonce.unwrap_or_default(),
        counter: record.counter,
        installed: record.running().map(|i| &i.release),
        kept: kept.as_ref(),
        floor: record.floor.as_ref(),
        clock: asked.clock,
        agent: asked.agent,
        formats: asked.formats,
    };
    let verify = match asked.nonce {
        Some(_) => assignment::verify,
        None => assignment::verify_carried,
    };
    let accepted = verify(trusted, bytes, &situation)?;
    let time_floor = accepted.time_floor;
    let terms = accepted.terms;
    let job = Job {
        deployment: terms.deployment,
        action: terms.action,
        target: Installed {
            release: accepted.facts.release,
            image: accepted.facts.image,
            format: accepted.facts.format,
            health: accepted.facts.health,
        },
        rollback_window_s: terms.rollback_window_s,
        signed_window_s: terms.rollback_window_s,
        // A person applies a site bundle on site: the window that it was made for is over.
        switch_within_s: terms.switch_within_s.filter(|_| asked.nonce.is_some()),
        again: terms.again,
        payloads: terms.payloads,
        payload: 0,
        slot: record.inactive(),
        bytes: 0,
        kept: false,
        cuts: 0,
        min_release: trusted.role().policy.min_release.clone(),
    };
    if time_floor > record.time_floor {
        let mut record = journal.draft();
        record.time_floor = time_floor;
        journal.write(record)?;
    }
    Ok((job, accepted.counter))
}
