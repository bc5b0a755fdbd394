//! Tests of [`super::decide`].

mod foresee;
mod moment;

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidegate_protocol::{
    Battery, Channel, DeploymentId, Image, Platform, Region, RolloutId, Sha256,
};

use crate::hold::Hold;
use crate::ring::{Frontier, Ring};
use crate::selector::Selector;
use crate::window::Windows;
use tidegate_protocol::{DeploymentState, HoldId, Version};

const NOW: Timestamp = Timestamp::from_secs(1_000_000);

fn v(text: &str) -> Version {
    text.parse().unwrap()
}

fn image(n: u8) -> Image {
    Image {
        sha256: Sha256::from_bytes([n; 32]),
        length: 100,
    }
}

fn release(n: u8) -> ReleasePlan {
    let artifact = ArtifactPlan {
        image: image(n),
        stepping_stone: false,
        min_from: None,
        allow_rollback: true,
        full_bytes: 100,
        deltas: BTreeMap::new(),
    };
    let platform: Platform = "linux-x86_64".parse().unwrap();
    ReleasePlan {
        stage: Stage::Ga,
        eol: None,
        artifacts: BTreeMap::from([(platform, artifact)]),
    }
}

fn rollout(n: u8, goal: &str) -> RolloutPlan {
    RolloutPlan {
        id: RolloutId::from_random([n; 16]),
        release: v(goal),
        state: RolloutState::Running,
        generation: 3,
        salt: Ring::from_random(u64::from(n)),
        waves: ["NA", "EU"]
            .iter()
            .map(|region| WavePlan {
                name: (*region).into(),
                selector: Selector::region(&region.parse().unwrap()),
                frontier: if *region == "NA" {
                    Frontier::ALL
                } else {
                    Frontier::NONE
                },
                state: if *region == "NA" {
                    WaveState::Running
                } else {
                    WaveState::Pending
                },
            })
            .collect(),
        max_attempts: 3,
        rollback_window_s: 600,
        windows: Windows::default(),
        ramp: Duration::from_mins(10),
        deadline: None,
        battery_wait: Duration::from_hours(24),
        metered: Metered::DeltasOnly,
    }
}

/// A plan with releases 1.0 to 1.2 and one rollout of 1.1.
fn plan() -> ProductPlan {
    ProductPlan {
        releases: BTreeMap::from([
            (v("1.0.0"), release(10)),
            (v("1.1.0"), release(11)),
            (v("1.2.0"), release(12)),
        ]),
        rollouts: vec![rollout(1, "1.1.0")],
        ..ProductPlan::default()
    }
}

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
struct Device {
    platform: Platform,
    region: Region,
    labels: BTreeMap<String, String>,
    release: Option<Version>,
    deployments: BTreeMap<RolloutId, DeploymentFacts>,
    quarantine: BTreeSet<Version>,
    channel: Channel,
    keeps: Option<Version>,
    battery: Battery,
    low_since: Option<Timestamp>,
    metered: bool,
    room: u64,
    active: bool,
    awaiting: bool,
    isolated: bool,
}

impl Device {
    fn new() -> Self {
        Self {
            platform: "linux-x86_64".parse().unwrap(),
            region: "NA".parse().unwrap(),
            labels: BTreeMap::new(),
            release: Some(v("1.0.0")),
            deployments: BTreeMap::new(),
            quarantine: BTreeSet::new(),
            channel: Channel::Stable,
            keeps: None,
            battery: Battery::default(),
            low_since: None,
            metered: false,
            room: 5,
            active: true,
            awaiting: false,
            isolated: false,
        }
    }

    fn with(state: DeploymentState) -> Self {
        let mut device = Self::new();
        device.deployments.insert(
            RolloutId::from_random([1; 16]),
            DeploymentFacts {
                id: DeploymentId::from_random([7; 16]),
                wave: 0,
                state,
                from: Some(v("1.0.0")),
                leg: v("1.1.0"),
                reason: None,
                attempts: 1,
                took: false,
                failures: BTreeMap::new(),
                updated_at: NOW,
            },
        );
        device
    }

    fn ask(&self, plan: &ProductPlan) -> Decision {
        self.ask_at(plan, NOW)
    }

    fn ask_at(&self, plan: &ProductPlan, now: Timestamp) -> Decision {
        let facts = self.facts();
        let mut steps: Vec<Step> = Vec::new();
        let room = |_| self.room;
        let traced = decide(plan, &facts, now, &room, &mut steps);
        assert_eq!(
            traced,
            decide(plan, &facts, now, &room, &mut ()),
            "a trace changes nothing"
        );
        assert!(!steps.is_empty());
        traced
    }

    fn facts(&self) -> DeviceFacts<'_> {
        DeviceFacts {
            active: self.active,
            awaiting: self.awaiting,
            isolated: self.isolated,
            platform: &self.platform,
            region: &self.region,
            channel: self.channel,
            labels: &self.labels,
            ring: Ring::from_random(42),
            release: self.release.as_ref(),
            image: Some(image(10).sha256),
            keeps: self.keeps.as_ref().map_or(Keeps::Nothing, Keeps::Release),
            battery: self.battery,
            low_since: self.low_since,
            metered: self.metered,
            deployments: &self.deployments,
            quarantine: &self.quarantine,
        }
    }
}

fn code(decision: &Decision) -> Reason {
    decision.reason.code
}

#[test]
fn a_device_of_an_open_wave_is_offered_the_goal() {
    let decision = Device::new().ask(&plan());
    let Verdict::Offer(offer) = decision.verdict else {
        panic!("{decision:?}")
    };
    assert_eq!(
        (offer.leg, offer.generation, offer.rollback_window_s),
        (v("1.1.0"), 3, 600)
    );
}

#[test]
fn each_check_has_its_own_reason() {
    let p = plan();
    let mut d = Device::new();
    d.region = "EU".parse().unwrap();
    assert_eq!(code(&d.ask(&p)), Reason::WaveNotStarted);
    d.region = "APAC".parse().unwrap();
    assert_eq!(code(&d.ask(&p)), Reason::SelectorMismatch);

    let mut d = Device::new();
    d.release = Some(v("1.1.0"));
    assert_eq!(code(&d.ask(&p)), Reason::UpToDate);
    d.release = Some(v("1.2.0"));
    assert_eq!(code(&d.ask(&p)), Reason::NewerInstalled);

    let mut d = Device::new();
    d.battery = Battery {
        percent: Some(14),
        power: tidegate_protocol::Power::Battery,
    };
    let detail = d.ask(&p).reason.detail;
    assert!(
        detail.starts_with("battery 14 %; waits for a charge"),
        "{detail}"
    );

    let mut d = Device::new();
    d.quarantine.insert(v("1.1.0"));
    assert_eq!(code(&d.ask(&p)), Reason::Quarantined);

    let mut d = Device::new();
    d.active = false;
    assert_eq!(code(&d.ask(&p)), Reason::DeviceRevoked);
    d.awaiting = true;
    assert_eq!(code(&d.ask(&p)), Reason::DeviceNotAccepted);

    let mut d = Device::new();
    d.platform = "windows-x86_64".parse().unwrap();
    assert_eq!(code(&d.ask(&p)), Reason::NoArtifactForPlatform);

    let mut p = plan();
    p.releases.get_mut(&v("1.1.0")).unwrap().stage = Stage::Beta;
    assert_eq!(
        code(&Device::new().ask(&p)),
        Reason::ChannelDoesNotTakeStage
    );
    p.releases.get_mut(&v("1.1.0")).unwrap().stage = Stage::Withdrawn;
    assert_eq!(code(&Device::new().ask(&p)), Reason::ReleaseNotOffered);

    let mut p = plan();
    p.rollouts[0].waves[0].frontier = Frontier::NONE;
    assert_eq!(code(&Device::new().ask(&p)), Reason::BehindFrontier);
    p.rollouts.clear();
    assert_eq!(code(&Device::new().ask(&p)), Reason::NoRollout);
}

#[test]
fn nobody_is_offered_anything_by_a_rollout_that_does_not_run() {
    for state in RolloutState::ALL {
        let mut p = plan();
        p.rollouts[0].state = *state;
        let offered = matches!(Device::new().ask(&p).verdict, Verdict::Offer(_));
        let may = *state == RolloutState::Running || state.is_complete();
        assert_eq!(offered, may, "{state}");
    }
}

#[test]
fn a_halt_calls_off_whoever_has_not_switched_and_leaves_the_others() {
    let mut p = plan();
    p.rollouts[0].state = RolloutState::Halted;
    for state in DeploymentState::ALL {
        let decision = Device::with(*state).ask(&p);
        let cancelled = matches!(decision.verdict, Verdict::Cancel { .. });
        assert_eq!(
            cancelled,
            !state.is_final() && !state.has_switched(),
            "{state}"
        );
    }
}

#[test]
fn a_rollback_returns_whoever_has_switched() {
    let mut p = plan();
    p.rollouts[0].state = RolloutState::RollingBack;
    for state in DeploymentState::ALL {
        let mut device = Device::with(*state);
        device.release = Some(v("1.1.0"));
        let decision = device.ask(&p);
        match decision.verdict {
            Verdict::Return { to, .. } => {
                assert!(state.has_switched(), "{state}");
                assert_eq!(to, v("1.0.0"));
            }
            _ => assert!(!state.has_switched(), "{state}: {decision:?}"),
        }
    }
}

#[test]
fn a_rollback_leaves_alone_whoever_has_moved_on_and_calls_off_what_another_rollout_began() {
    let mut p = plan();
    p.rollouts[0].state = RolloutState::RollingBack;
    p.rollouts.push(rollout(2, "1.2.0"));
    let mut device = Device::with(DeploymentState::Succeeded);
    device.release = Some(v("1.2.0"));
    assert!(matches!(device.ask(&p).verdict, Verdict::Left { .. }));
    device.release = Some(v("1.1.0"));
    let mut other = device.deployments[&p.rollouts[0].id].clone();
    other.id = DeploymentId::from_random([8; 16]);
    other.state = DeploymentState::Downloading;
    device.deployments.insert(p.rollouts[1].id, other);
    let Verdict::Cancel { deployment, .. } = device.ask(&p).verdict else {
        panic!("the other one comes first");
    };
    assert_eq!(deployment, DeploymentId::from_random([8; 16]));
    device.deployments.remove(&p.rollouts[1].id);
    assert!(matches!(device.ask(&p).verdict, Verdict::Return { .. }));
}

#[test]
fn a_device_never_gets_two_deployments_at_once() {
    let mut p = plan();
    p.rollouts.insert(0, rollout(2, "1.2.0"));
    for state in DeploymentState::ALL.iter().filter(|s| !s.is_final()) {
        let decision = Device::with(*state).ask(&p);
        assert!(!matches!(decision.verdict, Verdict::Offer(_)), "{state}");
    }
}

#[test]
fn a_rolled_back_device_is_not_offered_the_release_again_by_itself() {
    let decision = Device::with(DeploymentState::RolledBack).ask(&plan());
    assert_eq!(code(&decision), Reason::Quarantined);
}

#[test]
fn only_a_retryable_failure_is_tried_again_after_a_pause_and_not_for_ever() {
    let p = plan();
    let id = p.rollouts[0].id;
    let mut device = Device::with(DeploymentState::Failed);
    let later = NOW.plus(Duration::from_secs(31));
    let set = |device: &mut Device, reason: Reason, attempts| {
        let d = device.deployments.get_mut(&id).unwrap();
        d.reason = Some(reason.into());
        d.attempts = attempts;
    };
    set(&mut device, Reason::HealthFailed, 1);
    assert_eq!(code(&device.ask_at(&p, later)), Reason::AttemptsExhausted);
    set(&mut device, Reason::DownloadFailed, 1);
    let waits = device.ask(&p);
    assert_eq!(code(&waits), Reason::BackOff);
    let said = waits.reason.to_string();
    assert!(said.contains("last attempt: "), "{said}");
    let decision = device.ask_at(&p, later);
    let Verdict::Offer(offer) = decision.verdict else {
        panic!("{decision:?}")
    };
    assert_eq!(offer.retry_of, Some(DeploymentId::from_random([7; 16])));
    set(&mut device, Reason::DownloadFailed, 3);
    let much_later = NOW.plus(Duration::from_secs(100_000));
    assert_eq!(
        code(&device.ask_at(&p, much_later)),
        Reason::AttemptsExhausted
    );
}

#[test]
fn a_late_device_goes_over_the_stepping_stone_leg_by_leg() {
    let mut p = plan();
    p.rollouts = vec![rollout(2, "1.2.0"), rollout(1, "1.1.0")];
    for r in &mut p.rollouts {
        r.state = RolloutState::Completed;
    }
    let stone = p.releases.get_mut(&v("1.1.0")).unwrap();
    stone
        .artifacts
        .values_mut()
        .for_each(|a| a.stepping_stone = true);
    let mut device = Device::new();
    let decision = device.ask(&p);
    let Verdict::Offer(offer) = decision.verdict else {
        panic!("{decision:?}")
    };
    assert_eq!(
        (offer.rollout, offer.leg, offer.rollback_window_s),
        (p.rollouts[0].id, v("1.1.0"), 0)
    );
    device.release = Some(v("1.1.0"));
    let decision = device.ask(&p);
    let Verdict::Offer(offer) = decision.verdict else {
        panic!("{decision:?}")
    };
    assert_eq!((offer.leg, offer.rollback_window_s), (v("1.2.0"), 600));
}

#[test]
fn back_off_grows_to_an_hour_and_never_overflows() {
    assert_eq!(back_off(Reason::DownloadFailed, 1), Duration::from_secs(30));
    assert_eq!(back_off(Reason::DownloadFailed, 3), Duration::from_mins(2));
    assert_eq!(
        back_off(Reason::DiskFull, u32::MAX),
        Duration::from_hours(1)
    );
}
