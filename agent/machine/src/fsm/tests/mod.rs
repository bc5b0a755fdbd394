//! Tests of the state machine: scenarios, and random events against its invariants.

mod random;

use tidegate_protocol::{DeploymentId, DeploymentState as State, Explained, Image, Reason, Sha256};
use tidegate_trust::assignment::{Action, Payload};

use super::*;

fn image(n: u8) -> Image {
    Image {
        sha256: Sha256::from_bytes([n; 32]),
        length: 10,
    }
}

fn installed(n: u8) -> Installed {
    Installed {
        release: format!("1.{n}.0").parse().unwrap(),
        image: image(n),
        format: "tar".into(),
        health: None,
    }
}

/// A device that runs 1.0.0 from slot A.
fn device() -> Record {
    Record {
        active: Some(SlotId::A),
        a: Some(installed(0)),
        ..Record::new()
    }
}

fn job(record: &Record, n: u8, action: Action, rollback_window_s: u32) -> Box<Job> {
    let payload = Payload {
        manifest: image(n).sha256,
        manifest_length: 1,
        from: None,
        bytes: 1,
    };
    Box::new(Job {
        deployment: DeploymentId::from_random([n; 16]),
        action,
        target: installed(n),
        rollback_window_s,
        again: false,
        signed_window_s: 0,
        switch_within_s: None,
        payloads: vec![payload, payload],
        payload: 0,
        slot: record.inactive(),
        bytes: 0,
        kept: false,
        cuts: 0,
        min_release: None,
    })
}

fn install(record: &Record, n: u8) -> Event {
    Event::Assigned(job(record, n, Action::Install, 60), record.counter + 1)
}

fn play(mut record: Record, events: impl IntoIterator<Item = Event>) -> (Record, Vec<Effect>) {
    let mut effects = Vec::new();
    for event in events {
        (record, effects) = step(record, event);
    }
    (record, effects)
}

/// A device in probation on 1.1.0.
fn on_probation() -> Record {
    let record = device();
    let offer = install(&record, 1);
    play(
        record,
        [
            offer,
            Event::Downloaded { bytes: 5 },
            Event::Staged,
            Event::Healthy,
        ],
    )
    .0
}

/// A start of the agent alone, without a boot id.
fn agent_starts(medium: Medium) -> Event {
    Event::Started {
        medium,
        start: String::new(),
    }
}

fn states(record: &Record) -> Vec<State> {
    record.outbox.iter().map(|r| r.state).collect()
}

/// An order back names without a listing nothing before the switch, nothing after the window, and never
/// what has failed here.
#[test]
fn a107_the_kept_version_is_what_was_held_and_run_and_only_within_the_window() {
    let record = device();
    let offer = install(&record, 1);
    let (record, _) = play(record, [offer, Event::Downloaded { bytes: 5 }]);
    assert_eq!(record.kept(), None, "the other slot is being written");
    let (record, _) = step(record, Event::Staged);
    assert_eq!(record.kept(), Some(&installed(0)));
    let (record, _) = step(record, Event::Healthy);
    assert_eq!(record.kept(), Some(&installed(0)));
    let mut quarantined = record.clone();
    quarantined.bad.push(image(0).sha256);
    assert_eq!(quarantined.kept(), None);
    let (over, _) = step(record.clone(), Event::WindowPassed(60));
    assert_eq!(over.phase, Phase::Idle);
    assert_eq!(over.kept(), None);
    assert!(
        over.b.is_some() && over.a.is_some(),
        "it is there all the same"
    );
    // On the way back it is still said, and it is the order that is repeated.
    let back = Event::Assigned(job(&record, 0, Action::Rollback, 0), 9);
    let (record, effects) = step(record, back);
    assert_eq!(effects, [Effect::Return(Some(SlotId::A))]);
    assert_eq!(record.kept(), Some(&installed(0)));
}

#[test]
fn the_same_bytes_under_another_version_need_no_update_and_get_its_name() {
    let record = device();
    let mut same = job(&record, 7, Action::Install, 60);
    same.target.image = image(0);
    let (record, effects) = step(record, Event::Assigned(same, 1));
    assert!(effects.is_empty());
    let report = record.outbox.last().unwrap();
    assert_eq!(report.state, State::Succeeded);
    assert_eq!(report.release, Some("1.7.0".parse().unwrap()));
}

#[test]
fn what_is_ready_after_its_window_waits_for_the_next_one_and_needs_no_second_download() {
    let record = device();
    let offer = install(&record, 1);
    let (record, effects) = play(
        record,
        [offer, Event::Downloaded { bytes: 5 }, Event::StagedTooLate],
    );
    assert_eq!(effects, [Effect::DropDownload]);
    assert_eq!(record.running(), Some(&installed(0)));
    assert_eq!(states(&record).last(), Some(&State::Deferred));
    // A restart changes nothing: only the server knows when the window opens.
    let medium = Medium::only(Some(SlotId::A));
    let (record, effects) = step(record, agent_starts(medium));
    assert!(effects.is_empty());
    let again = Event::Assigned(job(&record, 1, Action::Install, 60), 9);
    let (record, effects) = step(record, again);
    // It has waited: it is verified before it runs.
    assert!(matches!(&effects[..], [Effect::Stage(job)] if job.kept));
    let (whole, effects) = step(record.clone(), Event::Staged);
    assert_eq!(effects[0], Effect::Switch(SlotId::B));
    assert!(matches!(whole.phase, Phase::Trial { .. }));
    // What has changed meanwhile is fetched again, and not held against the version.
    let changed = Event::StageFailed(Reason::PreviousDamaged.into());
    let (record, effects) = step(record, changed);
    assert!(matches!(&effects[..], [Effect::Download(job)] if !job.kept));
    assert!(record.bad.is_empty());
}

#[test]
fn what_waits_for_its_window_can_be_called_off() {
    let record = device();
    let offer = install(&record, 1);
    let (record, _) = play(
        record,
        [offer, Event::Downloaded { bytes: 5 }, Event::StagedTooLate],
    );
    let (record, _) = step(record, Event::CalledOff(DeploymentId::from_random([1; 16])));
    assert_eq!(record.phase, Phase::Idle);
    assert_eq!(states(&record).last(), Some(&State::Cancelled));
}

#[test]
fn the_newest_word_on_the_window_counts_a_day_at_most_and_never_less_than_was_signed() {
    let window = |record: &Record| match &record.phase {
        Phase::Probation { job, .. } => job.rollback_window_s,
        other => panic!("{other:?}"),
    };
    let (record, _) = play(
        on_probation(),
        [Event::WindowPassed(20), Event::KeepPrevious(10)],
    );
    assert_eq!(window(&record), 60);
    let (record, _) = step(record, Event::KeepPrevious(100));
    assert_eq!(window(&record), 120);
    let (record, _) = step(record, Event::KeepPrevious(u32::MAX));
    assert_eq!(window(&record), 20 + 86_400);
    // The true server ends what a thief of it said: at once, not after a day.
    let (record, _) = step(record, Event::KeepPrevious(0));
    assert_eq!(window(&record), 60);
    let (record, _) = step(record, Event::WindowPassed(40));
    assert_eq!(record.phase, Phase::Idle);
}

#[test]
fn a_window_without_end_in_an_assignment_ends_after_thirty_days() {
    let record = device();
    let offer = Event::Assigned(job(&record, 1, Action::Install, u32::MAX), 1);
    let events = [
        Event::Downloaded { bytes: 5 },
        Event::Staged,
        Event::Healthy,
        Event::WindowPassed(30 * 86_400),
    ];
    let (record, _) = play(record, std::iter::once(offer).chain(events));
    assert_eq!(record.phase, Phase::Idle);
    assert_eq!(states(&record).last(), Some(&State::Succeeded));
}

#[test]
fn an_image_that_failed_here_is_not_tried_again_as_a_rollback() {
    let (record, _) = play(
        on_probation(),
        [
            Event::Unhealthy(Reason::HealthFailed.into()),
            Event::Returned,
        ],
    );
    let order = |again| {
        let mut order = job(&record, 1, Action::Rollback, 0);
        order.again = again;
        Event::Assigned(order, 9)
    };
    let (refused, effects) = step(record.clone(), order(false));
    assert!(effects.is_empty() && refused.phase == Phase::Idle);
    let told = refused.outbox.last().unwrap();
    assert_eq!(told.state, State::Failed);
    assert_eq!(told.reason.as_ref().unwrap().code, Reason::Quarantined);
    let (taken, _) = step(record.clone(), order(true));
    assert!(matches!(taken.phase, Phase::Downloading { .. }));
}

#[test]
fn a_good_update_reports_every_state_in_order_and_commits_at_the_end_of_the_window() {
    let (record, _) = play(
        on_probation(),
        [Event::WindowPassed(30), Event::WindowPassed(30)],
    );
    assert_eq!(record.phase, Phase::Idle);
    assert_eq!(record.running(), Some(&installed(1)));
    assert_eq!(record.a, Some(installed(0)), "the old slot is kept");
    assert_eq!(
        states(&record),
        [
            State::Downloading,
            State::Installing,
            State::Verifying,
            State::Probation,
            State::Succeeded
        ]
    );
    let numbers: Vec<u64> = record.outbox.iter().map(|r| r.seq).collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

#[test]
fn a123_a_report_that_was_acknowledged_and_not_recorded_is_sent_again_under_its_number() {
    let (record, _) = play(on_probation(), [Event::WindowPassed(60)]);
    let last = record.outbox.last().cloned().unwrap();
    assert_eq!((last.seq, last.state), (5, State::Succeeded));
    // Somebody else acknowledges all of them; the true server has two, and says so.
    let (record, _) = play(record, [Event::Acknowledged(5)]);
    assert!(record.outbox.is_empty());
    let (again, effects) = play(record.clone(), [Event::Recorded(2)]);
    assert_eq!(
        (again.outbox.as_slice(), effects),
        (&[last.clone()][..], vec![])
    );
    // Once it has it, nothing more is sent.
    let (done, _) = play(again, [Event::Acknowledged(5), Event::Recorded(5)]);
    assert!(done.outbox.is_empty());
    // The report of the next deployment comes after it.
    let offer = install(&record, 2);
    let (next, _) = play(record, [offer, Event::Recorded(2)]);
    assert_eq!(states(&next), [State::Succeeded, State::Downloading]);
}

#[test]
fn intent_comes_before_act_the_trial_is_recorded_with_the_switch_that_it_asks_for() {
    let record = device();
    let offer = install(&record, 1);
    let (record, effects) = play(
        record,
        [offer, Event::Downloaded { bytes: 5 }, Event::Staged],
    );
    assert!(matches!(record.phase, Phase::Trial { tries: 1, .. }));
    assert_eq!(effects, [Effect::DropDownload, Effect::Switch(SlotId::B)]);
}

#[test]
fn a_failed_health_check_returns_and_remembers_the_image() {
    let (record, effects) = play(
        on_probation(),
        [Event::Unhealthy(Reason::HealthFailed.into())],
    );
    assert_eq!(effects, [Effect::Return(Some(SlotId::A))]);
    let (record, _) = step(record, Event::Returned);
    assert_eq!(record.running(), Some(&installed(0)));
    assert_eq!(record.bad, [image(1).sha256]);
    assert_eq!(
        states(&record)[4..],
        [State::RollingBack, State::RolledBack]
    );
    // It is not tried again, whoever assigns it.
    let again = install(&record, 1);
    let (record, effects) = step(record, again);
    assert!(effects.is_empty());
    assert_eq!(states(&record).last(), Some(&State::Failed));
}

#[test]
fn an_order_back_within_the_window_needs_no_download() {
    let record = on_probation();
    let order = Event::Assigned(job(&record, 0, Action::Rollback, 0), 2);
    let (record, effects) = step(record, order);
    assert_eq!(effects, [Effect::Return(Some(SlotId::A))]);
    let (record, _) = step(record, Event::Returned);
    assert_eq!(record.running(), Some(&installed(0)));
    assert!(
        record.bad.is_empty(),
        "an order says nothing against the image"
    );
}

#[test]
fn an_order_back_after_the_window_takes_the_kept_slot_if_it_still_holds_the_image() {
    let (record, _) = play(on_probation(), [Event::WindowPassed(60)]);
    let order = Event::Assigned(job(&record, 0, Action::Rollback, 0), 2);
    let (record, effects) = step(record, order);
    // It is verified before it is put to use.
    assert!(matches!(&effects[..], [Effect::Stage(job)] if job.kept));
    let (record, effects) = step(record, Event::Staged);
    assert_eq!(effects, [Effect::Switch(SlotId::A)]);
    let (record, _) = step(record, Event::Healthy);
    assert_eq!(record.running(), Some(&installed(0)));
    assert_eq!(states(&record).last(), Some(&State::RolledBack));
}

#[test]
fn a_kept_version_that_cannot_be_read_just_now_stays_and_is_not_fetched() {
    let (record, _) = play(on_probation(), [Event::WindowPassed(60)]);
    let order = Event::Assigned(job(&record, 0, Action::Rollback, 0), 2);
    let moment = Event::StageFailed(Reason::StorageError.into());
    let (record, effects) = play(record, [order, moment]);
    assert_eq!(effects, []);
    assert_eq!(record.slot(SlotId::A), Some(&installed(0)));
    let told = record.outbox.last().unwrap();
    assert_eq!(told.state, State::Failed);
    assert!(told.reason.as_ref().unwrap().code.retryable());
}

#[test]
fn a_switch_that_the_place_has_no_room_for_is_a_failure_to_retry_and_no_verdict_and_no_download() {
    let record = device();
    let offer = install(&record, 1);
    let staged = [offer, Event::Downloaded { bytes: 5 }, Event::Staged];
    let (record, effects) = play(record, staged);
    assert!(effects.contains(&Effect::Switch(SlotId::B)));
    for reason in Reason::ALL.iter().filter(|r| r.is_of_the_place()) {
        let hindered = Event::Unhealthy((*reason).into());
        let (record, effects) = step(record.clone(), hindered);
        assert_eq!(effects, [Effect::Return(Some(SlotId::A))]);
        // What was kept may be damaged besides: that is not the release's fault either.
        let lost = Event::NotReturned(Reason::PreviousDamaged.into());
        let (lost, _) = step(record.clone(), lost);
        assert!(lost.bad.is_empty(), "{reason}: the release is not to blame");
        let (record, effects) = step(record, Event::Returned);
        let lacks_room = *reason == Reason::DiskFull;
        match &effects[..] {
            [Effect::GiveBack(job)] => assert!(lacks_room && job.slot == SlotId::B),
            effects => assert!(!lacks_room && effects.is_empty(), "{effects:?}"),
        }
        assert!(
            record.bad.is_empty(),
            "{reason}: the release is not to blame"
        );
        let told = record.outbox.last().unwrap();
        assert_eq!(told.state, State::Failed);
        assert_eq!(told.reason.as_ref().unwrap().code, *reason);
        assert_eq!(record.running(), Some(&installed(0)));
        // It is taken from where it was staged, and verified first. There may still be no room.
        let offer = install(&record, 1);
        let (record, effects) = step(record, offer);
        assert!(matches!(&effects[..], [Effect::Stage(job)] if job.kept));
        let (record, _) = step(record, Event::StageFailed((*reason).into()));
        assert_eq!(record.slot(SlotId::B), Some(&installed(1)));
        // What was given back is fetched again.
        let (emptied, _) = step(record.clone(), Event::Emptied(SlotId::B));
        let offer = install(&emptied, 1);
        let (_, effects) = step(emptied, offer);
        assert!(matches!(&effects[..], [Effect::Download(_)]));
        // Another version takes its place.
        let offer = install(&record, 2);
        let (record, effects) = step(record, offer);
        assert!(matches!(&effects[..], [Effect::Download(_)]));
        assert_eq!(record.slot(SlotId::B), None);
    }
}

#[test]
fn what_was_fetched_stays_for_the_next_attempt_unless_it_is_at_fault_or_takes_the_room() {
    let record = device();
    let offer = install(&record, 1);
    let (record, _) = step(record, offer);
    let after = |reason: Reason| {
        let (record, effects) = step(record.clone(), Event::DownloadFailed(reason.into()));
        assert_eq!(record.phase, Phase::Idle);
        effects
    };
    for reason in [Reason::ReadOnly, Reason::StorageError] {
        assert_eq!(after(reason), []);
    }
    assert!(matches!(
        &after(Reason::DiskFull)[..],
        [Effect::GiveBack(_)]
    ));
    for reason in [Reason::DownloadFailed, Reason::ArchiveRefused] {
        assert_eq!(after(reason), [Effect::DropDownload]);
    }
}

#[test]
fn a_kept_version_that_is_damaged_is_fetched_and_not_put_to_use() {
    let (record, _) = play(on_probation(), [Event::WindowPassed(60)]);
    let order = Event::Assigned(job(&record, 0, Action::Rollback, 0), 2);
    let damaged = Event::StageFailed(Reason::PreviousDamaged.into());
    // Also if the machine restarts in the middle of the verification.
    let started = agent_starts(Medium::only(Some(SlotId::B)));
    let (record, effects) = play(record, [order, started.clone()]);
    assert!(matches!(&effects[..], [Effect::Stage(job)] if job.kept));
    let (record, effects) = step(record, damaged);
    assert!(matches!(&effects[..], [Effect::Download(_)]));
    assert_eq!(record.slot(SlotId::A), None);
    let told = record.outbox.last().unwrap();
    assert_eq!(told.state, State::Downloading);
    assert_eq!(told.reason.as_ref().unwrap().code, Reason::PreviousDamaged);
    let (record, effects) = step(record, started);
    assert!(matches!(effects[0], Effect::Download(_)));
    let (record, _) = play(
        record,
        [
            Event::Downloaded { bytes: 5 },
            Event::Staged,
            Event::Healthy,
        ],
    );
    assert_eq!(record.running(), Some(&installed(0)));
}

#[test]
fn what_brings_the_agent_down_while_it_is_made_is_made_from_another_payload_and_then_given_up() {
    let record = device();
    let offer = install(&record, 1);
    let (mut record, _) = play(record, [offer, Event::Downloaded { bytes: 5 }]);
    let started = agent_starts(Medium::only(Some(SlotId::A)));
    for payload in [0, 1] {
        for _ in 0..8 {
            let effects;
            (record, effects) = step(record, started.clone());
            assert!(matches!(&effects[..], [Effect::Stage(job)] if job.payload == payload));
        }
        (record, _) = step(record, started.clone());
        (record, _) = step(record, Event::Downloaded { bytes: 5 });
    }
    assert_eq!(record.phase, Phase::Idle);
    assert_eq!(record.running(), Some(&installed(0)));
    let told = record.outbox.last().unwrap();
    assert_eq!(told.reason.as_ref().unwrap().code, Reason::DeltaFailed);
}

#[test]
fn a_device_that_cannot_go_back_stays_where_it_is_and_says_so() {
    let failed = Event::Unhealthy(Reason::HealthFailed.into());
    let gone = Event::NotReturned(Explained::new(Reason::PreviousDamaged, "gone"));
    let (record, _) = play(on_probation(), [failed, gone]);
    assert_eq!(record.running(), Some(&installed(1)));
    assert_eq!(record.slot(SlotId::A), None);
    assert_eq!(record.phase, Phase::Idle);
    assert_eq!(record.bad, [image(1).sha256]);
    let told = record.outbox.last().unwrap();
    assert_eq!(told.state, State::Failed);
    let reason = told.reason.as_ref().unwrap();
    assert_eq!(reason.code, Reason::NoPreviousSlot);
    assert!(reason.detail.contains("1.1.0 stays"), "{reason}");
}

#[test]
fn a_delta_that_does_not_apply_is_followed_by_the_whole_image_once() {
    let record = device();
    let offer = install(&record, 1);
    let failed = || Event::StageFailed(Reason::DeltaFailed.into());
    let (record, effects) = play(record, [offer, Event::Downloaded { bytes: 5 }, failed()]);
    assert!(
        matches!(&effects[..], [Effect::DropDownload, Effect::Download(job)] if job.payload == 1)
    );
    let (record, _) = play(record, [Event::Downloaded { bytes: 9 }, failed()]);
    assert_eq!(record.phase, Phase::Idle);
    assert_eq!(record.running(), Some(&installed(0)));
    assert_eq!(states(&record).last(), Some(&State::Failed));
}

#[test]
fn a_machine_that_stops_in_every_trial_goes_back() {
    let record = device();
    let offer = install(&record, 1);
    let (mut record, _) = play(
        record,
        [offer, Event::Downloaded { bytes: 5 }, Event::Staged],
    );
    let medium = Medium::only(Some(SlotId::B));
    for _ in 0..2 {
        let effects;
        (record, effects) = step(record, agent_starts(medium));
        assert_eq!(effects[0], Effect::Switch(SlotId::B));
    }
    let (record, effects) = step(record, agent_starts(medium));
    assert_eq!(effects, [Effect::Return(Some(SlotId::A))]);
    let (record, _) = step(record, Event::Returned);
    assert_eq!(record.bad, [image(1).sha256]);
}

#[test]
fn what_failed_here_is_taken_again_only_on_a_persons_word() {
    let (record, _) = play(
        on_probation(),
        [
            Event::Unhealthy(Reason::HealthFailed.into()),
            Event::Returned,
        ],
    );
    assert_eq!(record.bad, [image(1).sha256]);
    let (refused, effects) = step(record.clone(), install(&record, 1));
    assert!(effects.is_empty() && refused.phase == Phase::Idle);
    let mut again = job(&record, 1, Action::Install, 60);
    again.again = true;
    let (record, _) = step(record, Event::Assigned(again, 9));
    assert!(matches!(record.phase, Phase::Downloading { .. }));
    assert!(record.bad.is_empty());
}

#[test]
fn a_version_that_never_keeps_the_machine_up_for_long_goes_back_in_its_window() {
    let starts = |name: &str| Event::Started {
        medium: Medium::only(Some(SlotId::B)),
        start: name.into(),
    };
    let (record, _) = step(device(), starts("first"));
    let offer = install(&record, 1);
    let window = Event::KeepPrevious(86_400);
    let events = [
        Event::Downloaded { bytes: 5 },
        Event::Staged,
        Event::Healthy,
        window,
    ];
    let (on_trial, _) = play(record, std::iter::once(offer).chain(events));
    // Restarts of the agent alone are not reboots.
    let (record, _) = play(on_trial.clone(), (0..9).map(|_| starts("first")));
    assert!(matches!(record.phase, Phase::Probation { .. }));
    let short = Event::WindowPassed(30);
    let crash = |n: u8| [starts(&n.to_string()), short.clone()];
    let (record, _) = play(record, (0..2).flat_map(crash));
    // A start that lasts, then a power cut long after it: not the version's fault.
    let (steady, _) = play(record.clone(), [Event::WindowPassed(600), starts("later")]);
    assert!(matches!(steady.phase, Phase::Probation { .. }));
    let (record, effects) = step(record, starts("third"));
    assert_eq!(effects, [Effect::Return(Some(SlotId::A))]);
    let (record, _) = step(record, Event::Returned);
    assert_eq!(record.bad, [image(1).sha256]);
    let told = record.outbox.last().unwrap().reason.as_ref().unwrap();
    assert_eq!(told.code, Reason::CrashedInTrial);
    // Without boot ids no reboot is blamed on the version.
    let (record, _) = play(
        on_trial,
        (0..9).map(|_| agent_starts(Medium::only(Some(SlotId::B)))),
    );
    assert!(matches!(record.phase, Phase::Probation { .. }));
}

#[test]
fn a_first_version_that_never_keeps_the_machine_up_stays_for_want_of_another() {
    let record = Record::new();
    let offer = install(&record, 1);
    let events = [
        offer,
        Event::Downloaded { bytes: 5 },
        Event::Staged,
        Event::Healthy,
    ];
    let (record, _) = play(record, events);
    let starts = (0..9u8).map(|n| Event::Started {
        medium: Medium::only(Some(SlotId::A)),
        start: n.to_string(),
    });
    let (record, _) = play(record, starts);
    assert!(matches!(record.phase, Phase::Probation { .. }));
}

#[test]
fn a_cancel_counts_before_the_switch_and_not_after_it() {
    let record = device();
    let offer = install(&record, 1);
    let id = DeploymentId::from_random([1; 16]);
    let (record, _) = step(record, offer);
    let (cancelled, effects) = step(record, Event::CalledOff(id));
    assert_eq!(
        (cancelled.phase, effects),
        (Phase::Idle, vec![Effect::DropDownload])
    );
    let (record, effects) = step(on_probation(), Event::CalledOff(id));
    assert!(matches!(record.phase, Phase::Probation { .. }) && effects.is_empty());
}

#[test]
fn a_first_installation_that_fails_leaves_nothing_and_says_so() {
    let record = Record::new();
    let offer = install(&record, 1);
    let (record, effects) = play(
        record,
        [
            offer,
            Event::Downloaded { bytes: 5 },
            Event::Staged,
            Event::Unhealthy(Reason::HealthFailed.into()),
        ],
    );
    assert_eq!(effects, [Effect::Return(None)]);
    let (record, _) = step(record, Event::Returned);
    assert_eq!((record.active, record.running()), (None, None));
    let last = record.outbox.last().unwrap();
    assert_eq!(last.state, State::Failed);
    assert_eq!(last.reason.as_ref().unwrap().code, Reason::NoPreviousSlot);
}

#[test]
fn the_floor_rises_with_a_healthy_start_and_not_before() {
    let record = device();
    let mut wanted = job(&record, 1, Action::Install, 60);
    wanted.min_release = Some("1.1.0".parse().unwrap());
    let (record, _) = play(
        record,
        [
            Event::Assigned(wanted, 1),
            Event::Downloaded { bytes: 5 },
            Event::Staged,
        ],
    );
    assert_eq!(record.floor, None);
    let (record, _) = step(record, Event::Healthy);
    assert_eq!(record.floor, Some("1.1.0".parse().unwrap()));
}
