//! Tests of [`super::decide`].

use super::*;
use std::collections::{BTreeMap, BTreeSet};
use tidegate_protocol::{
    Battery, Channel, DeploymentId, Image, Platform, Region, RolloutId, Sha256,
};

use crate::hold::Hold;
use crate::ring::{Frontier, Ring};
use crate::selector::Selector;
use crate::window::Windows;
use tidegate_protocol::{HoldId, Version};

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
        goal: v(goal),
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
        window_s: 600,
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

struct Device {
    platform: Platform,
    region: Region,
    labels: BTreeMap<String, String>,
    release: Option<Version>,
    deployments: BTreeMap<RolloutId, DeploymentFacts>,
    quarantine: BTreeSet<Version>,
    channel: Channel,
    battery: Battery,
    low_since: Option<Timestamp>,
    metered: bool,
    room: u64,
    active: bool,
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
            battery: Battery::default(),
            low_since: None,
            metered: false,
            room: 5,
            active: true,
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
        let facts = DeviceFacts {
            active: self.active,
            platform: &self.platform,
            region: &self.region,
            channel: self.channel,
            labels: &self.labels,
            ring: Ring::from_random(42),
            release: self.release.as_ref(),
            image: Some(image(10).sha256),
            battery: self.battery,
            low_since: self.low_since,
            metered: self.metered,
            deployments: &self.deployments,
            quarantine: &self.quarantine,
        };
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
        (offer.leg, offer.generation, offer.window_s),
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
        let may = matches!(state, RolloutState::Running | RolloutState::Completed);
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
    assert_eq!(code(&device.ask(&p)), Reason::BackOff);
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
        (offer.rollout, offer.leg, offer.window_s),
        (p.rollouts[0].id, v("1.1.0"), 0)
    );
    device.release = Some(v("1.1.0"));
    let decision = device.ask(&p);
    let Verdict::Offer(offer) = decision.verdict else {
        panic!("{decision:?}")
    };
    assert_eq!((offer.leg, offer.window_s), (v("1.2.0"), 600));
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

fn offered(decision: &Decision) -> bool {
    matches!(decision.verdict, Verdict::Offer(_) | Verdict::Repeat { .. })
}

#[test]
fn a_hold_keeps_its_devices_back_and_calls_off_those_that_have_not_switched() {
    let mut p = plan();
    p.holds.push(Hold {
        id: HoldId::from_random([1; 16]),
        release: Some(v("1.1.0")),
        selector: "model=x2".parse().unwrap(),
        reason: "driver 1.2".into(),
        link: "https://example.com/7".into(),
    });
    let mut device = Device::new();
    assert!(offered(&device.ask(&p)), "the rest goes on");
    device.labels.insert("model".into(), "x2".into());
    let decision = device.ask(&p);
    assert_eq!(code(&decision), Reason::Held);
    assert!(
        decision
            .reason
            .detail
            .starts_with("driver 1.2 (https://example.com/7)")
    );
    for state in DeploymentState::ALL {
        let mut device = Device::with(*state);
        device.labels.insert("model".into(), "x2".into());
        let cancelled = matches!(device.ask(&p).verdict, Verdict::Cancel { .. });
        assert_eq!(
            cancelled,
            !state.is_final() && !state.has_switched(),
            "{state}"
        );
    }
}

#[test]
fn outside_its_window_a_device_waits_and_comes_back_spread_over_the_ramp() {
    let mut p = plan();
    // NOW is 1970-01-12, 13:46:40.
    p.rollouts[0].windows.general = Some("daily 20:00-04:00 UTC".parse().unwrap());
    for mut device in [
        Device::new(),
        Device::with(DeploymentState::Offered),
        Device::with(DeploymentState::Deferred),
    ] {
        let decision = device.ask(&p);
        assert_eq!(
            decision.reason.to_string(),
            "the maintenance window is closed: opens 1970-01-12T20:00:00Z"
        );
        let opens = NOW.plus(Duration::from_secs(6 * 3_600 + 13 * 60 + 20));
        let again = decision.again.unwrap();
        assert!(again >= opens && again < opens.plus(Duration::from_mins(10)));
        let decision = device.ask_at(&p, opens.plus(Duration::from_hours(7)));
        let (Verdict::Offer(Offer {
            switch_within_s, ..
        })
        | Verdict::Repeat {
            switch_within_s, ..
        }) = decision.verdict
        else {
            panic!("{decision:?}")
        };
        assert_eq!(
            switch_within_s,
            Some(3_600),
            "the device must switch before the window closes"
        );
        device.region = "EU".parse().unwrap();
    }
    p.rollouts[0].windows.by_region.insert(
        "NA".parse().unwrap(),
        "daily 00:00-24:00 UTC".parse().unwrap(),
    );
    assert!(
        offered(&Device::new().ask(&p)),
        "a region's own window counts"
    );
}

#[test]
fn a_low_battery_waits_its_turn_and_never_for_ever() {
    let mut p = plan();
    let mut device = Device::new();
    device.battery = Battery {
        percent: Some(3),
        power: tidegate_protocol::Power::Battery,
    };
    device.low_since = Some(NOW);
    let after = |hours| NOW.plus(Duration::from_hours(hours));
    assert_eq!(code(&device.ask_at(&p, after(23))), Reason::BatteryLow);
    assert!(offered(&device.ask_at(&p, after(24))));
    p.rollouts[0].deadline = Some(after(10));
    assert_eq!(code(&device.ask_at(&p, after(5))), Reason::BatteryLow);
    assert!(
        offered(&device.ask_at(&p, after(6))),
        "the deadline is near"
    );
    // What was low for long and charged starts its wait anew.
    p.rollouts[0].deadline = None;
    device.low_since = None;
    assert_eq!(code(&device.ask_at(&p, after(99))), Reason::BatteryLow);
}

#[test]
fn a_metered_link_carries_what_the_rollout_allows() {
    let mut p = plan();
    let mut device = Device::new();
    device.metered = true;
    assert_eq!(
        code(&device.ask(&p)),
        Reason::MeteredLink,
        "there is no delta"
    );
    p.rollouts[0].metered = Metered::Allow;
    assert!(offered(&device.ask(&p)));
    p.rollouts[0].metered = Metered::DeltasOnly;
    let goal = p.releases.get_mut(&v("1.1.0")).unwrap();
    goal.artifacts.values_mut().for_each(|a| {
        a.deltas.insert(image(10).sha256, 7);
    });
    assert!(offered(&device.ask(&p)));
    p.rollouts[0].metered = Metered::Never;
    assert_eq!(code(&device.ask(&p)), Reason::MeteredLink);
}

#[test]
fn without_room_nobody_new_is_exposed_and_who_is_exposed_may_try_again() {
    let p = plan();
    let mut device = Device::new();
    device.room = 0;
    assert_eq!(code(&device.ask(&p)), Reason::PaceLimit);
    let mut device = Device::with(DeploymentState::Failed);
    device.room = 0;
    let deployment = device.deployments.get_mut(&p.rollouts[0].id).unwrap();
    deployment.reason = Some(Reason::DownloadFailed.into());
    assert!(offered(
        &device.ask_at(&p, NOW.plus(Duration::from_hours(1)))
    ));
}

#[test]
fn each_reason_has_its_own_budget() {
    let mut p = plan();
    p.rollouts[0].max_attempts = 100;
    let mut device = Device::with(DeploymentState::Failed);
    let later = NOW.plus(Duration::from_hours(2));
    let mut ask = |reason: Reason, times| {
        let deployment = device.deployments.get_mut(&p.rollouts[0].id).unwrap();
        deployment.reason = Some(reason.into());
        deployment.failures = BTreeMap::from([(reason, times)]);
        device.ask_at(&p, later)
    };
    assert!(offered(&ask(Reason::DownloadFailed, 11)));
    assert_eq!(
        code(&ask(Reason::DownloadFailed, 12)),
        Reason::AttemptsExhausted
    );
    assert!(offered(&ask(Reason::DiskFull, 2)));
    assert_eq!(code(&ask(Reason::DiskFull, 3)), Reason::AttemptsExhausted);
}

#[test]
fn a_stepping_stone_at_its_end_of_life_still_carries_and_a_signed_bar_does_not() {
    let mut p = plan();
    p.rollouts = vec![rollout(2, "1.2.0")];
    let stone = p.releases.get_mut(&v("1.1.0")).unwrap();
    stone.stage = Stage::Eol;
    stone
        .artifacts
        .values_mut()
        .for_each(|a| a.stepping_stone = true);
    let decision = Device::new().ask(&p);
    let Verdict::Offer(offer) = decision.verdict else {
        panic!("{decision:?}")
    };
    assert_eq!(offer.leg, v("1.1.0"));
    let signed = SignedPolicy {
        min_release: None,
        eol: BTreeSet::from([v("1.1.0")]),
    };
    p.signed.insert(Channel::Stable, signed);
    assert_eq!(code(&Device::new().ask(&p)), Reason::NoPath);
    let signed = SignedPolicy {
        min_release: Some(v("2.0.0")),
        eol: BTreeSet::new(),
    };
    p.signed.insert(Channel::Stable, signed);
    assert_eq!(code(&Device::new().ask(&p)), Reason::ReleaseNotOffered);
}

#[test]
fn who_cannot_go_back_is_told_so_and_who_keeps_the_old_version_always_can() {
    let mut p = plan();
    p.rollouts[0].state = RolloutState::RollingBack;
    for artifact in p
        .releases
        .get_mut(&v("1.1.0"))
        .unwrap()
        .artifacts
        .values_mut()
    {
        artifact.allow_rollback = false;
    }
    let ask = |state, p: &ProductPlan| {
        let mut device = Device::with(state);
        device.release = Some(v("1.1.0"));
        device.ask(p)
    };
    assert!(matches!(
        ask(DeploymentState::Probation, &p).verdict,
        Verdict::Return { .. }
    ));
    let decision = ask(DeploymentState::Succeeded, &p);
    assert!(matches!(decision.verdict, Verdict::Stuck { .. }));
    assert_eq!(code(&decision), Reason::RollbackNotAllowed);
    // Ordered back one by one, with the rollout merely halted.
    p.rollouts[0].state = RolloutState::Halted;
    assert!(matches!(
        ask(DeploymentState::RollingBack, &p).verdict,
        Verdict::Stuck { .. }
    ));
}

#[test]
fn a_device_that_was_not_heard_of_while_it_installed_is_returned_when_it_shows_up() {
    let mut p = plan();
    p.rollouts[0].state = RolloutState::RollingBack;
    let mut device = Device::with(DeploymentState::TimedOut);
    device.release = Some(v("1.1.0"));
    device.deployments.values_mut().for_each(|d| d.took = true);
    assert!(matches!(device.ask(&p).verdict, Verdict::Return { .. }));
}
