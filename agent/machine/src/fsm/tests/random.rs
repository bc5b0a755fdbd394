//! Random events against the invariants of the state machine.

use proptest::prelude::*;
use tidegate_protocol::{DeploymentId, Explained, Reason};
use tidegate_trust::assignment::Action;

use super::super::*;
use super::{device, install, job};

#[derive(Debug, Clone)]
enum Happening {
    Offer(u8),
    Order(u8),
    CallOff(u8),
    Restart,
    Done,
    Fail(Reason),
    Window(u32),
    Acknowledge(u64),
    Record(u64),
    /// The kept version is damaged; whether it can still be fetched.
    Rot(bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0u8..4).prop_map(Happening::Offer),
        1 => (0u8..4).prop_map(Happening::Order),
        1 => (0u8..4).prop_map(Happening::CallOff),
        1 => Just(Happening::Restart),
        4 => Just(Happening::Done),
        1 => prop::sample::select(vec![
            Reason::HealthFailed, Reason::DeltaFailed, Reason::DownloadFailed, Reason::DiskFull,
        ])
        .prop_map(Happening::Fail),
        1 => (0u32..90).prop_map(Happening::Window),
        1 => (0u64..20).prop_map(Happening::Acknowledge),
        1 => (0u64..20).prop_map(Happening::Record),
        1 => any::<bool>().prop_map(Happening::Rot),
    ]
}

/// The driver and the medium, reduced to what matters: the whole versions in the slots, and the
/// pointer.
struct World {
    record: Record,
    pointer: Option<SlotId>,
    whole: [Option<u8>; 2],
    /// Whether the kept version can still be fetched; `None` if it is not damaged.
    rotten: Option<bool>,
}

impl World {
    fn perform(&mut self, event: Event) {
        let mut queue = vec![event];
        while let Some(event) = queue.pop() {
            let (record, effects) = step(self.record.clone(), event);
            self.record = record;
            for effect in effects {
                match effect {
                    Effect::Switch(slot) => {
                        self.pointer = Some(slot);
                        queue.push(Event::Switched(Activation::Live));
                    }
                    Effect::Return(slot) if slot != self.pointer && self.rotten == Some(false) => {
                        let why = Reason::PreviousDamaged.into();
                        queue.push(Event::NotReturned(why));
                    }
                    Effect::Return(slot) => {
                        self.pointer = slot;
                        self.rotten = None;
                        queue.push(Event::Returned);
                    }
                    Effect::Stage(job) if job.kept => {}
                    // Staging makes the slot dirty.
                    Effect::Stage(job) => self.whole[job.slot as usize] = None,
                    Effect::Download(_)
                    | Effect::CheckHealth(_)
                    | Effect::Restart
                    | Effect::DropDownload
                    | Effect::GiveBack(_) => {}
                }
            }
        }
    }

    fn happen(&mut self, happening: &Happening) {
        let event = match happening {
            Happening::Offer(n) => install(&self.record, *n),
            Happening::Order(n) => Event::Assigned(
                job(&self.record, *n, Action::Rollback, 0),
                self.record.counter + 1,
            ),
            Happening::CallOff(n) => Event::CalledOff(DeploymentId::from_random([*n; 16])),
            Happening::Restart => Event::Started {
                medium: Medium::only(self.pointer),
                start: String::new(),
            },
            Happening::Window(seconds) => Event::WindowPassed(*seconds),
            Happening::Acknowledge(seq) => Event::Acknowledged(*seq),
            Happening::Record(seq) => Event::Recorded(*seq),
            Happening::Done => match &self.record.phase {
                Phase::Downloading { .. } => Event::Downloaded { bytes: 1 },
                Phase::Staging { job } if job.kept && self.rotten.is_some() => {
                    Event::StageFailed(Reason::PreviousDamaged.into())
                }
                Phase::Staging { job } => {
                    self.rotten = None;
                    let minor = job.target.image.sha256.as_bytes()[0];
                    self.whole[job.slot as usize] = Some(minor);
                    Event::Staged
                }
                _ => Event::Healthy,
            },
            Happening::Rot(fetchable) => {
                // Only the slot not in use: damage to the one in use is for its health check to
                // find.
                let resting = matches!(
                    self.record.phase,
                    Phase::Idle | Phase::Probation { .. } | Phase::Staging { .. }
                );
                if resting {
                    self.rotten = Some(*fetchable);
                }
                return;
            }
            Happening::Fail(reason) => {
                let reason = Explained::from(*reason);
                match &self.record.phase {
                    Phase::Downloading { .. } => Event::DownloadFailed(reason),
                    Phase::Staging { .. } => Event::StageFailed(reason),
                    _ => Event::Unhealthy(reason),
                }
            }
        };
        self.perform(event);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// In any order of events the pointer leads to a whole version, the one that the record names;
    /// report numbers rise; counters and floors never fall.
    #[test]
    fn what_is_in_use_is_always_whole(story in prop::collection::vec(happening(), 0..60)) {
        let mut world =
            World { record: device(), pointer: Some(SlotId::A), whole: [Some(0), None], rotten: None };
        for happening in &story {
            let before = world.record.clone();
            world.happen(happening);
            let record = &world.record;
            let slot = record.active.expect("a device that ran something runs something");
            prop_assert_eq!(world.pointer, Some(slot));
            let whole = world.whole[slot as usize];
            let named = record.running().map(|i| i.image.sha256.as_bytes()[0]);
            prop_assert!(whole.is_some());
            prop_assert_eq!(whole, named);
            prop_assert!(record.counter >= before.counter);
            prop_assert!(record.report_seq >= before.report_seq);
            for pair in record.outbox.windows(2) {
                prop_assert!(pair[0].seq < pair[1].seq);
            }
        }
    }
}
