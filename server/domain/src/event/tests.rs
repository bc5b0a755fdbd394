use tidegate_protocol::{
    ChangeId, DeploymentId, DeploymentState, DeviceId, HoldId, Reason, RolloutId, Sha256, Stage,
};

use super::*;
use crate::approval::ChangeKind;
use crate::rollout::{RolloutEvent, RolloutState};

fn rollout() -> RolloutId {
    RolloutId::from_random([7; 16])
}

fn device() -> DeviceId {
    DeviceId::from_random([9; 16])
}

#[test]
fn each_kind_has_a_word_of_its_own() {
    let mut kinds = Event::KINDS.to_vec();
    kinds.sort_unstable();
    kinds.dedup();
    assert_eq!(kinds.len(), Event::KINDS.len());
    assert!(
        kinds
            .iter()
            .all(|k| k.chars().all(|c| c == '_' || c.is_ascii_lowercase()))
    );
}

#[test]
fn a_sentence_says_what_the_fields_say() {
    let product = "app".parse().unwrap();
    let moved = |order, from, to, reason: &str| Event::RolloutMoved {
        product: "app".parse().unwrap(),
        rollout: rollout(),
        order,
        from,
        to,
        change: None,
        reason: reason.into(),
    };
    let hold = HoldId::from_random([1; 16]);
    let reported = |taken, was, code, detail: &str| Event::DeploymentReported {
        rollout: rollout(),
        device: device(),
        deployment: DeploymentId::from_random([2; 16]),
        report: 4,
        leg: "1.1.0".parse().unwrap(),
        state: DeploymentState::Failed,
        was,
        taken,
        code,
        detail: detail.into(),
    };
    let cases = [
        (
            moved(
                RolloutEvent::Halt,
                RolloutState::Running,
                RolloutState::Halted,
                "orders are lost",
            ),
            "halt: running -> halted: orders are lost".to_owned(),
        ),
        (
            moved(
                RolloutEvent::Complete,
                RolloutState::Running,
                RolloutState::Completed,
                "",
            ),
            "completed".into(),
        ),
        (
            moved(
                RolloutEvent::CompletePartly,
                RolloutState::Running,
                RolloutState::CompletedPartly,
                "8 of 10 devices run the release",
            ),
            "completed partly: 8 of 10 devices run the release".into(),
        ),
        (
            moved(
                RolloutEvent::DoNothing,
                RolloutState::Running,
                RolloutState::NothingToDo,
                "",
            ),
            "completed: there was nothing to do".into(),
        ),
        (
            moved(
                RolloutEvent::Returned,
                RolloutState::RollingBack,
                RolloutState::RolledBack,
                "",
            ),
            "rolled back: the last device is back".into(),
        ),
        (
            moved(
                RolloutEvent::ReturnedPartly,
                RolloutState::RollingBack,
                RolloutState::RolledBackPartly,
                "",
            ),
            "rolled back partly: the other devices cannot go back".into(),
        ),
        (
            Event::ReleasePromoted {
                product,
                release: "1.1.0".parse().unwrap(),
                from: Stage::Beta,
                to: Stage::Ga,
                reason: Some("tested".into()),
            },
            "release 1.1.0 beta -> ga: tested".into(),
        ),
        (
            Event::HoldMade {
                hold,
                product: "app".parse().unwrap(),
                release: None,
                selector: "region=EU".into(),
                reason: "audit".into(),
            },
            format!("{hold} holds every release from \"region=EU\": audit"),
        ),
        (
            reported(
                true,
                DeploymentState::Verifying,
                Some(Reason::HealthFailed),
                "exit 3",
            ),
            "1.1.0 failed: the health check failed: exit 3".into(),
        ),
        (
            reported(false, DeploymentState::Cancelled, None, ""),
            "1.1.0 failed (ignored: it is cancelled)".into(),
        ),
        (
            reported(false, DeploymentState::RollingBack, None, ""),
            "1.1.0 failed (on the way back)".into(),
        ),
        (
            Event::ApprovalAsked {
                product: "app".parse().unwrap(),
                rollout: rollout(),
                change: ChangeId::from_random([3; 16]),
                asked: ChangeKind::Start,
                needed: 2,
                plan: "abc".into(),
                reason: "for Monday".into(),
            },
            "start requested: 2 other people must approve plan abc: for Monday".into(),
        ),
    ];
    for (event, sentence) in cases {
        assert_eq!(event.to_string(), sentence);
    }
}

#[test]
fn names_and_free_text_are_never_in_the_body() {
    let event = Event::DeploymentOffered {
        rollout: rollout(),
        device: device(),
        deployment: DeploymentId::from_random([2; 16]),
        leg: "1.1.0".parse().unwrap(),
        wave: 1,
        name: "Jane's desk".into(),
    };
    let body = event.body();
    assert_eq!(body["wave"], Scalar::Number(1));
    assert_eq!(body["leg"], Scalar::Text("1.1.0".into()));
    assert!(!format!("{body:?}").contains("Jane"));
    assert_eq!(event.said()["name"], Scalar::Text("Jane's desk".into()));
    let sorted: Vec<_> = body.keys().collect();
    assert!(sorted.is_sorted());
}

#[test]
fn what_is_not_there_is_left_out() {
    let event = Event::DeviceIsolated {
        device: device(),
        request: None,
        reason: "stolen".into(),
    };
    assert_eq!(event.body().keys().collect::<Vec<_>>(), [&"device"]);
    let runs = Event::DeviceRuns {
        device: device(),
        release: None,
        image: Some(Sha256::from_bytes([1; 32])),
    };
    assert_eq!(runs.to_string(), "claims to run nothing");
}

#[test]
fn touches_add_up() {
    let plan = Touches {
        plan: true,
        ..Touches::default()
    };
    let device = Touches {
        device: true,
        ..Touches::default()
    };
    let both = plan.and(device);
    assert!(both.plan && both.device && !both.access);
}

#[test]
fn a_log_line_of_an_event_says_whose_word_it_is() {
    let refused = Event::DeviceRefused {
        device: device(),
        code: Reason::HealthFailed,
        detail: "all is well\nserver: OK".into(),
    };
    let actor = Actor::Device {
        device: device(),
        name: "d\u{202e}1".into(),
    };
    assert_eq!(
        spoken(&actor, &refused),
        "device says: device d\\u202e1: says: the health check failed: all is well\\nserver: OK"
    );
    assert!(spoken(&Actor::CheckIn, &refused).starts_with("check-in: "));
}
