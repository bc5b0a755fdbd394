//! What the server assigns, checked in the numbered order and made into a job: no network and no
//! clock of its own.

use tidegate_protocol::{DeviceId, Platform, Version};
use tidegate_trust::TrustError;
use tidegate_trust::assignment::{self, Clock, Situation};
use tidegate_trust::verify::Trusted;

use crate::core::Core;
use crate::fsm::{Installed, Job};
use crate::journal::JournalError;

/// Who checks an assignment, and what it knows beside its journal.
pub(crate) struct Asked<'a> {
    /// This device.
    pub(crate) device: DeviceId,
    /// Its platform.
    pub(crate) platform: &'a Platform,
    /// The nonce that it sent; none where the assignment was carried here.
    pub(crate) nonce: Option<&'a str>,
    /// What it knows of the time; the floor is the journal's.
    pub(crate) clock: Clock,
    /// The version of its agent.
    pub(crate) agent: Option<&'a Version>,
}

/// Why an assignment is not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

impl Core {
    /// Checks an assignment and keeps how late it certainly is. Gives the job and the number of the
    /// assignment, for the machine to take.
    pub(crate) fn check(
        &mut self,
        trusted: &Trusted,
        bytes: &[u8],
        asked: &Asked<'_>,
    ) -> Result<(Job, u64), NotTaken> {
        let record = self.journal.record();
        let situation = Situation {
            device: asked.device,
            platform: asked.platform,
            nonce: asked.nonce.unwrap_or_default(),
            counter: record.counter,
            installed: record.running().map(|i| &i.release),
            floor: record.floor.as_ref(),
            clock: asked.clock,
            agent: asked.agent,
            formats: self.backend.formats(),
        };
        let verify = match asked.nonce {
            Some(_) => assignment::verify,
            None => assignment::verify_carried,
        };
        let accepted = verify(trusted, bytes, &situation)?;
        let time_floor = trusted.time_floor()?;
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
            window_s: terms.window_s,
            // With a carried one a person stands here: the window that it was made in is over.
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
            let mut record = record.clone();
            record.time_floor = time_floor;
            self.journal.write(record)?;
        }
        Ok((job, accepted.counter))
    }
}
