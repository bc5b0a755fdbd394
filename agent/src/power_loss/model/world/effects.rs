//! Effects of the device's state machine, performed on its medium.

use std::sync::atomic::Ordering;

use tidegate_machine::fsm::{Activation, Effect, Event, Job, SlotId};
use tidegate_protocol::Reason;

use super::World;
use crate::driver::core::NotBack;
use crate::power_loss::model::COUNTS;

impl World {
    pub(super) fn perform(&mut self, effect: Effect) -> Result<Option<Event>, String> {
        let versions = self.versions.clone();
        let core = self.core.as_ref().unwrap();
        Ok(match effect {
            Effect::DropDownload | Effect::GiveBack(_) => {
                core.download.drop_all().map_err(|e| e.to_string())?;
                None
            }
            Effect::Download(job) => {
                self.download(&job)?;
                Some(Event::Downloaded { bytes: 1 })
            }
            Effect::Stage(job) => match core.staging(*job.clone()).run() {
                Ok(()) => {
                    if !job.kept {
                        self.rotten = None;
                    }
                    Some(Event::Staged)
                }
                Err(why) if why.code == Reason::StorageError => return Err(why.to_string()),
                // A power cut, too, looks like damage to a reader.
                Err(why) if self.cut.load(Ordering::Relaxed) == 0 => return Err(why.to_string()),
                Err(why) => {
                    assert!(job.kept && self.rotten.is_some(), "{why}");
                    Some(Event::StageFailed(why))
                }
            },
            Effect::Switch(slot) => {
                let activated = core.backend.activate(Some(slot));
                Some(Event::Switched(activated.map_err(|e| e.to_string())?))
            }
            Effect::Return(slot) => loop {
                match self.core.as_ref().unwrap().way_back(slot).run() {
                    Ok(Activation::Live) => break Some(Event::Returned),
                    Ok(Activation::Restart) => unreachable!("an executable needs none"),
                    Err(NotBack::Failed(why)) => return Err(why.to_string()),
                    Err(NotBack::Damaged(why)) => {
                        if self.cut.load(Ordering::Relaxed) == 0 {
                            return Err(why.to_string());
                        }
                        match self.rotten {
                            None => panic!("nothing is damaged, and yet {why}"),
                            Some(false) => {
                                COUNTS.stayed.fetch_add(1, Ordering::Relaxed);
                                break Some(Event::NotReturned(why));
                            }
                            Some(true) => {
                                self.restore(slot.unwrap())?;
                                COUNTS.restored.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                }
            },
            Effect::Restart => unreachable!("an executable needs none"),
            Effect::CheckHealth(installed) => {
                Some(if versions.healthy[versions.which(installed.image)] {
                    Event::Healthy
                } else {
                    Event::Unhealthy(Reason::HealthFailed.into())
                })
            }
        })
    }

    fn restore(&mut self, slot: SlotId) -> Result<(), String> {
        let core = self.core.as_ref().unwrap();
        let wanted = core.journal.record().slot(slot).unwrap().clone();
        let to = self.versions.which(wanted.image);
        let job = Job::anew(wanted, slot, self.versions.payloads(to, to)[1..].to_vec());
        self.download(&job)?;
        let staging = self.core.as_ref().unwrap().staging(job);
        staging.run().map_err(|why| why.to_string())?;
        self.rotten = None;
        Ok(())
    }

    fn download(&self, job: &Job) -> Result<(), String> {
        let core = self.core.as_ref().unwrap();
        let payload = job.payloads[job.payload];
        let (manifest, bytes) = self.versions.behind(&payload);
        if core.download.kept_manifest(&payload).is_none() {
            core.download
                .keep_manifest(&payload, &manifest.to_bytes().unwrap())
                .map_err(|e| e.to_string())?;
        }
        let mut store = core.download.store(manifest).map_err(|e| e.to_string())?;
        for (index, chunk) in manifest.chunks.iter().enumerate() {
            let begin = usize::try_from(manifest.offset(index)).unwrap();
            let whole = &bytes[begin..begin + chunk.length as usize];
            while !store.has(index) {
                let from = usize::try_from(store.begun(index)).unwrap();
                let piece = &whole[from..whole.len().min(from + 120)];
                store
                    .append(manifest, index, piece)
                    .map_err(|e| e.to_string())?;
            }
            store.sync().map_err(|e| e.to_string())?;
        }
        store.sync().map_err(|e| e.to_string())
    }
}
