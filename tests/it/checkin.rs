//! The check-in path does no database work when nothing changes.

use std::time::Duration;

use futures::FutureExt as _;
use tidegate_protocol::{CheckIn, Timestamp};
use tidegate_server::config::{Clock, JobSettings, Settings};
use tidegate_tests::{Device, Server, eventually};

pub(crate) fn request(device: &serde_json::Value) -> CheckIn {
    CheckIn {
        format: tidegate_protocol::Format::CURRENT,
        nonce: "ab".repeat(32),
        counter: 0,
        turn: 0,
        acknowledged: None,
        wait: 0,
        agent_version: "0.1.0".into(),
        release: device["release"].as_str().map(|v| v.parse().unwrap()),
        image: device["image"].as_str().map(|v| v.parse().unwrap()),
        metered: false,
        abilities: tidegate_protocol::Abilities::default(),
        healthy: None,
        battery: tidegate_protocol::Battery::default(),
        refused: None,
        restore: None,
        left: None,
        diagnosis: None,
        deployment: None,
        kept: None,
    }
}

/// Settings for a server in this process on the data of one that ran as a process: it has the same
/// rows, and its statements can be counted.
pub(crate) fn settings(data: &std::path::Path, max_requests: usize) -> Settings {
    Settings {
        metrics_listen: Some("127.0.0.1:0".parse().unwrap()),
        // Background work is paused, so that only the requests count.
        jobs: JobSettings {
            tick: Duration::from_hours(1),
            flush: Duration::from_hours(1),
            ..JobSettings::default()
        },
        max_requests,
        clock: Clock::manual(Timestamp::from_secs(1_900_000_000)),
        ..tidegate_tests::settings(data)
    }
}

/// Time of this machine, for an injected clock: tokens of people end within a year from it.
pub(crate) fn present() -> Timestamp {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    Timestamp::from_secs(i64::try_from(since.as_secs()).unwrap())
}

/// Waits until the tasks that run once at startup are done.
pub(crate) async fn at_rest(app: &tidegate_core::App) {
    let mut last = 0;
    eventually("the server is at rest", async || {
        let now = app.statements_run();
        let rests = now == last && now > 0;
        last = now;
        rests.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_thousand_check_ins_with_nothing_new_run_no_statement() {
    let mut server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let device = Device::enroll(
        server.dir.path(),
        "one",
        &server.url,
        &token,
        "NA",
        installed,
    );
    let row = server.devices().await.pop().unwrap();
    let id = device.id().parse().unwrap();
    server.kill();
    let running = tidegate_server::start(settings(&server.dir.path().join("data"), 1_000))
        .await
        .unwrap();
    let app = running.app().clone();
    at_rest(&app).await;
    let request = request(&row);
    // An agent of before names no format; it is told what to do rather than misread.
    let mut of_before = serde_json::to_value(&request).unwrap();
    of_before.as_object_mut().unwrap().remove("format");
    let of_before = serde_json::from_value(of_before).unwrap();
    let refused = app
        .check_in((id, 0), "", &of_before)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("the agent uses format 1 and this server uses format 2: install a newer"),
        "{refused}"
    );
    let before = app.statements_run();
    for _ in 0..1_000 {
        // Answered at once: a request that is not held takes no timer.
        let answer = app
            .check_in((id, 0), "", &request)
            .now_or_never()
            .unwrap()
            .unwrap();
        assert!(answer.assignment.is_none());
        assert_eq!(answer.reason.code.as_str(), "no_rollout");
    }
    let during = app.statements_run() - before;
    // The follower looks for events once a second, however long a thousand check-ins take here.
    assert!(during <= 250, "{during} statements for 1,000 check-ins");
    drop(app);
    running.stop().await;
}

/// Nobody signs an acknowledgement: one may be forged, or be lost with a database. The device says in its
/// check-in what it was told, and learns what is missing at once, not at the end of a hold.
#[tokio::test]
async fn a128_a_device_that_believes_a_report_taken_which_is_not_is_answered_at_once() {
    let mut server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let dir = server.dir.path();
    let token = server.join_token();
    let device = Device::enroll(dir, "one", &server.url, &token, "NA", None);
    let row = server.devices().await.pop().unwrap();
    let id = device.id().parse().unwrap();
    server.kill();
    let running = tidegate_server::start(settings(&server.dir.path().join("data"), 1_000))
        .await
        .unwrap();
    let app = running.app().clone();
    at_rest(&app).await;
    let with = |acknowledged| CheckIn {
        acknowledged,
        wait: 30,
        ..request(&row)
    };
    let (nothing, all, more) = (with(None), with(Some(0)), with(Some(3)));
    let answer = tokio::select! {
        biased;
        _ = app.check_in((id, 0), "", &nothing) => panic!("an earlier agent is held as ever"),
        _ = app.check_in((id, 0), "", &all) => panic!("nothing is missing, and it is held"),
        answer = app.check_in((id, 0), "", &more) => answer.unwrap(),
    };
    assert_eq!(answer.reported, Some(0));
    drop(app);
    running.stop().await;
}

#[tokio::test]
async fn a_page_of_rollouts_costs_as_many_statements_with_twelve_rollouts_as_with_one() {
    let mut server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    server.kill();
    // Not years ahead: the operator's token has an end.
    let settings = Settings {
        clock: Clock::manual(Clock::System.now()),
        ..settings(&server.dir.path().join("data"), 1_000)
    };
    let running = tidegate_server::start(settings).await.unwrap();
    let app = running.app().clone();
    let by = app.authenticate(&server.token).unwrap();
    let body = |index: u64| tidegate_api::RolloutBody {
        product: "app".into(),
        release: "1.0.0".into(),
        waves: vec![tidegate_api::WaveBody {
            name: format!("wave {index}"),
            selector: String::new(),
            size: "all".into(),
        }],
        preset: None,
        regions: Vec::new(),
        batch: None,
        policy: tidegate_api::PolicyBody::default(),
        rest: tidegate_api::NothingElse,
        rollback_window_s: None,
        max_attempts: None,
        timeout_s: None,
        dry_run: false,
    };
    let mut counts = Vec::new();
    for rollouts in [1, 12] {
        for index in counts.len() as u64..rollouts {
            app.create_rollout(&by, &body(index), None).await.unwrap();
        }
        let newest = (Timestamp::from_micros(i64::MAX), "");
        let mut page = Vec::new();
        let mut fewest = u64::MAX;
        // Other tasks of the server run statements too, once a second.
        for _ in 0..10 {
            let before = app.statements_run();
            page = app.rollouts(newest, "", 200).await.unwrap();
            fewest = fewest.min(app.statements_run() - before);
        }
        counts.push(fewest);
        assert_eq!(page.len() as u64, rollouts);
        assert!(page.iter().all(|s| s.waves.len() == 1));
        // Each is the same as when it is asked for alone.
        let one = app.rollout(page[0].rollout.id).await.unwrap();
        assert_eq!(format!("{one:?}"), format!("{:?}", page[0]));
    }
    assert_eq!(counts[0], counts[1], "{counts:?}");
    drop(app);
    running.stop().await;
}

#[tokio::test]
async fn too_many_requests_at_once_are_told_to_come_back_later_and_people_get_through() {
    let dir = tempfile::tempdir().unwrap();
    let running = tidegate_server::start(settings(dir.path(), 0))
        .await
        .unwrap();
    let get = async |path: &str| {
        reqwest::get(format!("http://{}{path}", running.address))
            .await
            .unwrap()
    };
    for path in ["/metadata/timestamp.json", "/v1/gate/app/1.0.0"] {
        let answer = get(path).await;
        assert_eq!(answer.status().as_u16(), 429, "{path}");
        assert_eq!(answer.headers()["retry-after"], "5");
    }
    // People and what watches the server get through: a halt is for exactly such a moment.
    assert_eq!(get("/healthz").await.status().as_u16(), 200);
    assert_eq!(get("/api/v1/rollouts").await.status().as_u16(), 401);
    running.stop().await;
}
