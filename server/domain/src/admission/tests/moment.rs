//! Holds, windows, batteries, links, pace and budgets; ways back.

use super::*;

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
    // A battery that was low for long and has charged starts its wait anew.
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
        listed: BTreeSet::new(),
    };
    p.signed.insert(Channel::Stable, signed);
    assert_eq!(code(&Device::new().ask(&p)), Reason::NoPath);
    let signed = SignedPolicy {
        min_release: Some(v("2.0.0")),
        ..SignedPolicy::default()
    };
    p.signed.insert(Channel::Stable, signed);
    assert_eq!(code(&Device::new().ask(&p)), Reason::ReleaseNotOffered);
}

#[test]
fn who_cannot_be_ordered_back_is_told_so_even_with_the_old_version_kept() {
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
    // The device would refuse the order: people signed that this release is not gone back from.
    for state in [DeploymentState::Probation, DeploymentState::Succeeded] {
        let decision = ask(state, &p);
        assert!(matches!(decision.verdict, Verdict::Stuck { .. }), "{state}");
        assert_eq!(code(&decision), Reason::RollbackNotAllowed);
    }
    let mut allowed = p.clone();
    for artifact in allowed
        .releases
        .get_mut(&v("1.1.0"))
        .unwrap()
        .artifacts
        .values_mut()
    {
        artifact.allow_rollback = true;
    }
    assert!(matches!(
        ask(DeploymentState::Probation, &allowed).verdict,
        Verdict::Return { .. }
    ));
    // Ordered back one by one, with the rollout merely halted.
    p.rollouts[0].state = RolloutState::Halted;
    assert!(matches!(
        ask(DeploymentState::RollingBack, &p).verdict,
        Verdict::Stuck { .. }
    ));
}

#[test]
fn back_to_the_version_that_it_keeps_a_device_needs_no_listing_and_after_the_window_it_does() {
    let mut p = plan();
    p.rollouts[0].state = RolloutState::RollingBack;
    let ask = |kept: bool, p: &ProductPlan| {
        let mut device = Device::with(if kept {
            DeploymentState::Probation
        } else {
            DeploymentState::Succeeded
        });
        device.release = Some(v("1.1.0"));
        device.keeps = kept.then(|| v("1.0.0"));
        device.ask(p)
    };
    let returns = |d: &Decision| matches!(d.verdict, Verdict::Return { .. });
    // A draft, or promoted to another channel: published, and not signed for this one.
    let signed = SignedPolicy {
        listed: BTreeSet::from([(v("1.1.0"), "linux-x86_64".parse().unwrap())]),
        ..SignedPolicy::default()
    };
    p.signed.insert(Channel::Stable, signed);
    assert!(returns(&ask(true, &p)));
    let refused = ask(false, &p);
    assert_eq!(code(&refused), Reason::RollbackNotAllowed);
    let text = refused.reason.to_string();
    assert!(
        text.contains("1.0.0 is not signed for channel stable"),
        "{text}"
    );
    assert!(text.contains("promote it to there"), "{text}");
    // Withdrawn: a promotion would be refused.
    if let Some(release) = p.releases.get_mut(&v("1.0.0")) {
        release.stage = Stage::Withdrawn;
    }
    let text = ask(false, &p).reason.to_string();
    assert!(
        text.contains("under a new version") && !text.contains("promote"),
        "{text}"
    );
    // Never published at all.
    p.releases.remove(&v("1.0.0"));
    assert!(returns(&ask(true, &p)));
    let text = ask(false, &p).reason.to_string();
    assert!(text.contains("1.0.0 was never published"), "{text}");
    // What people signed against it holds for the kept version, too: the device would refuse it.
    let barred = SignedPolicy {
        min_release: Some(v("1.1.0")),
        ..SignedPolicy::default()
    };
    p.signed.insert(Channel::Stable, barred);
    assert_eq!(code(&ask(true, &p)), Reason::RollbackNotAllowed);
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
