//! One device that says more than all others: attack A99 of `docs/explain/security-model.md`.

use std::time::Duration;

use serde_json::Value;
use tidegate_protocol::{
    DeploymentId, DeploymentState, DeviceId, Explained, Format, Reason, Report, ReportBatch,
    SessionRequest,
};
use tidegate_server::config::{Clock, Settings};
use tidegate_tests::{Cluster, Database, Device, Server};
use tidegate_trust::http_signature::Signer;
use tidegate_trust::{SecretKey, sign_report};

use crate::checkin::{at_rest, present, request, settings};

const FLOOD: u64 = 1_000;

async fn flood(database: Database) {
    let mut server = Server::start_on(database.clone()).await;
    server.publish(&[("1.0.0", true)]);
    let token = server.join_token();
    let dir = server.dir.path().to_owned();
    let device = Device::enroll(&dir, "plc", &server.url, &token, "NA", None);
    let id: DeviceId = device.id().parse().unwrap();
    let row = server.devices().await.pop().unwrap();
    server.kill();
    let clock = Clock::manual(present());
    let mut settings = Settings {
        clock: clock.clone(),
        ..settings(&dir.join("data"), 1_000)
    };
    if let Database::Postgres(url) = database {
        settings.database = url;
    }
    let running = tidegate_server::start(settings).await.unwrap();
    let app = running.app().clone();
    at_rest(&app).await;
    let http = reqwest::Client::new();
    let get = async |path: &str| -> Value {
        let url = format!("http://{}/api/v1/devices/{id}{path}", running.address);
        let answer = http.get(url).bearer_auth(&server.token).send().await;
        answer.unwrap().json().await.unwrap()
    };
    let events = async || {
        get("/events?limit=200").await["items"]
            .as_array()
            .unwrap()
            .clone()
    };
    let before = events().await.len();

    let pem = std::fs::read_to_string(device.state.join("identity.pem")).unwrap();
    let key = SecretKey::from_pem(&pem).unwrap();
    let mut seq = 0;
    let unknown = || {
        seq += 1;
        let report = Report {
            seq,
            deployment: DeploymentId::from_random([7; 16]),
            state: DeploymentState::Failed,
            reason: None,
            release: Some(format!("7.0.{seq}").parse().unwrap()),
            image: None,
            bytes_downloaded: 0,
            downtime_ms: None,
            signature: None,
        };
        sign_report(&key, id, report).unwrap()
    };
    let reports: Vec<_> = std::iter::repeat_with(unknown)
        .take(usize::try_from(FLOOD).unwrap())
        .collect();
    for n in 0..FLOOD {
        let mut request = request(&row);
        request.release = Some(format!("6.0.{n}").parse().unwrap());
        let detail = format!("{n} {}", "x".repeat(100_000));
        request.refused = Some(Explained {
            code: Reason::AssignmentRefused,
            detail,
        });
        app.check_in((id, 0), "127.0.0.1", &request).await.unwrap();
    }
    let signer = |n: u64| Signer {
        key: key.public(),
        nonce: n.to_string(),
    };
    for counter in 1..=FLOOD {
        let session = SessionRequest {
            format: Format::CURRENT,
            device: id,
            counter,
        };
        let signer = signer(counter);
        let granted = app.grant_session(&session, &signer, "127.0.0.1").await;
        granted.unwrap();
    }
    for batch in reports.chunks(ReportBatch::MAX) {
        let reports = batch.to_vec();
        app.take_reports(id, ReportBatch { reports }).await.unwrap();
    }
    // What is not kept counts all the same.
    let view = get("").await;
    assert_eq!(view["release"], format!("7.0.{FLOOD}"), "{view}");
    let rows = events().await;
    assert_eq!(rows.len() - before, 20);
    let longest = rows.iter().map(|row| row.to_string().len()).max().unwrap();
    assert!(longest < 10_000, "{longest}");
    // Another hour: the rest becomes one row, and the next events are kept again.
    clock.advance(Duration::from_hours(1));
    app.tell_withheld().await.unwrap();
    let rows = events().await;
    assert_eq!(rows.len() - before, 21);
    let told = rows.last().unwrap();
    assert_eq!(told["kind"], "events_withheld", "{told}");
    assert_eq!(told["body"]["count"], 3 * FLOOD - 20, "{told}");
    app.tell_withheld().await.unwrap();
    let mut request = request(&row);
    request.release = Some("8.0.0".parse().unwrap());
    app.check_in((id, 0), "127.0.0.1", &request).await.unwrap();
    let rows = events().await;
    assert_eq!(rows.len() - before, 22);
    assert_eq!(rows.last().unwrap()["kind"], "device_runs");
    drop(app);
    running.stop().await;
}

#[tokio::test]
async fn a99_a_device_that_floods_leaves_twenty_rows_an_hour_and_one_with_the_count() {
    flood(Database::Sqlite).await;
}

#[tokio::test]
async fn a99_a_device_that_floods_leaves_as_few_rows_on_postgresql() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    flood(Database::Postgres(cluster.url())).await;
}
