//! Tests of [`foresee`](super::foresee()).

use super::*;

/// Every way in which a device may stand, against every thing that may bar its way back: what is shown
/// before the rollout is what the order meets after it.
#[test]
fn what_cannot_go_back_is_known_before_the_rollout_by_the_function_that_orders_use() {
    let platform: Platform = "linux-x86_64".parse().unwrap();
    let bare = Device {
        release: None,
        ..Device::new()
    };
    let goal = [v("1.2.0")];
    let two = [v("1.1.0"), v("1.2.0")];
    let listed = |versions: &[&str]| SignedPolicy {
        listed: versions.iter().map(|r| (v(r), platform.clone())).collect(),
        ..SignedPolicy::default()
    };
    let with = |signed: SignedPolicy| {
        let mut p = plan();
        p.signed.insert(Channel::Stable, signed);
        p
    };
    let mut no_rollback = plan();
    for artifact in no_rollback
        .releases
        .get_mut(&v("1.2.0"))
        .unwrap()
        .artifacts
        .values_mut()
    {
        artifact.allow_rollback = false;
    }
    let mut unseen = plan();
    unseen.releases.remove(&v("1.0.0"));
    let floor = SignedPolicy {
        min_release: Some(v("1.1.0")),
        ..SignedPolicy::default()
    };
    let mut gated = plan();
    gated.gate.min_version = Some(v("1.1.0"));
    let usual = Device::new();
    for (plan, device, legs, wanted) in [
        (plan(), &usual, &goal[..], vec![]),
        (plan(), &bare, &goal, vec![Limit::FirstInstall]),
        (no_rollback, &usual, &goal, vec![Limit::Never]),
        (with(floor), &usual, &goal, vec![Limit::Never]),
        (unseen.clone(), &usual, &goal, vec![Limit::AfterWindow]),
        // Its other slot holds the stepping stone by then, not what it came with.
        (unseen, &usual, &two, vec![Limit::Never]),
        (
            with(listed(&["1.2.0"])),
            &usual,
            &goal,
            vec![Limit::AfterWindow],
        ),
        (with(listed(&["1.0.0"])), &usual, &two, vec![]),
        (gated, &usual, &goal, vec![Limit::TurnedAway]),
    ] {
        let found = foresee(&plan, &device.facts(), legs);
        let limits: Vec<Limit> = found.iter().map(|(limit, _)| *limit).collect();
        assert_eq!(limits, wanted, "{legs:?}: {found:?}");
        // The order itself, given in the window and after it.
        let Some(from) = device.release.clone() else {
            continue;
        };
        let before = legs.iter().rev().nth(1).cloned().unwrap_or(from.clone());
        for (keeps, bars) in [
            (Some(before), &[Limit::Never][..]),
            (None, &[Limit::Never, Limit::AfterWindow]),
        ] {
            let mut there = Device::with(DeploymentState::Probation);
            there.release = legs.last().cloned();
            there.keeps = keeps;
            let deployment = there.deployments.values().next().unwrap().clone();
            let order = way_back(&plan, &there.facts(), &deployment);
            let barred = limits.iter().any(|limit| bars.contains(limit));
            assert_eq!(order.is_err(), barred, "{legs:?}: {order:?}");
        }
    }
}

#[test]
fn a_device_shows_whether_what_it_runs_could_be_fetched_again() {
    let device = Device::new();
    assert_eq!(barred_later(&plan(), &device.facts()), None);
    let mut p = plan();
    p.releases.remove(&v("1.0.0"));
    let why = barred_later(&p, &device.facts()).unwrap();
    assert_eq!(why.code, Reason::RollbackNotAllowed);
    assert!(why.detail.contains("1.0.0 was never published"), "{why}");
    let bare = Device {
        release: None,
        ..Device::new()
    };
    assert_eq!(barred_later(&p, &bare.facts()), None);
}
