//! The store on both engines: every statement prepares, and one suite gives the same answers.
#![expect(clippy::unwrap_used, reason = "a panic is how a test reports")]

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_domain::BasisPoints;
use tidegate_domain::admission::DeploymentFacts;
use tidegate_domain::ring::{Frontier, Ring};
use tidegate_domain::rollout::{Gate, OnBreach, Pace, RolloutState, Wave, WaveState};
use tidegate_protocol::{
    Battery, Channel, DeploymentId, DeploymentState, DeviceId, Explained, JobId, Power, Reason,
    RolloutId, Sha256, Stage, Timestamp,
};
use tidegate_server::store::deployments::{self, Deployment};
use tidegate_server::store::devices::{self, Device};
use tidegate_server::store::events::{self, EventKind, NewEvent};
use tidegate_server::store::rollouts::{self, Rollout, WaveRow};
use tidegate_server::store::{Db, all_statements, jobs, operators, products};
use tidegate_tests::Cluster;

const NOW: Timestamp = Timestamp::from_micros(1_800_000_000_123_456);

async fn sqlite() -> (tempfile::TempDir, Db) {
    let dir = tempfile::tempdir().unwrap();
    let db = Db::open(&format!("sqlite:{}", dir.path().join("t.db").display()))
        .await
        .unwrap();
    (dir, db)
}

#[tokio::test]
async fn every_statement_prepares_on_sqlite() {
    let (_dir, db) = sqlite().await;
    prepare_all(&db).await;
}

#[tokio::test]
async fn every_statement_prepares_on_postgresql() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    prepare_all(&Db::open(&cluster.url()).await.unwrap()).await;
}

async fn prepare_all(db: &Db) {
    assert!(all_statements().len() > 50);
    for (name, sql) in all_statements() {
        // Row locks are PostgreSQL's; SQLite has one writer.
        if sql.contains("FOR ") && !db.is_shared() {
            continue;
        }
        if let Err(error) = db.prepare(sql).await {
            panic!("{name}: {error:?}");
        }
    }
}

#[test]
fn the_two_migrations_differ_in_the_type_of_bytes_alone() {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
    let names = |dialect: &str| -> Vec<String> {
        let dir = std::fs::read_dir(format!("{root}/{dialect}")).unwrap();
        let mut names: Vec<String> = dir
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("sqlite"), names("postgres"));
    for name in names("sqlite") {
        let read = |dialect| std::fs::read_to_string(format!("{root}/{dialect}/{name}")).unwrap();
        assert_eq!(
            read("sqlite").replace(" BLOB ", " BYTEA "),
            read("postgres"),
            "{name}"
        );
    }
}

#[tokio::test]
async fn the_suite_holds_on_sqlite() {
    let (_dir, db) = sqlite().await;
    suite(&db).await;
}

#[tokio::test]
async fn the_suite_holds_on_postgresql() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    suite(&Db::open(&cluster.url()).await.unwrap()).await;
}

fn device(n: u8) -> Device {
    Device {
        id: DeviceId::from_random([n; 16]),
        name: format!("d{n}"),
        product: "app".parse().unwrap(),
        platform: "linux-x86_64".parse().unwrap(),
        region: "NA".parse().unwrap(),
        channel: Channel::Stable,
        labels: BTreeMap::from([("canary".into(), "true".into())]),
        ring: Ring::from_random(u64::MAX),
        public_key: format!("key-{n}"),
        active: true,
        release: Some("1.0.0".parse().unwrap()),
        image: Some(Sha256::from_bytes([n; 32])),
        agent_version: String::new(),
        battery: Battery::default(),
        report_seq: 0,
        enrolled_at: NOW,
        last_seen: NOW,
        flushed_at: NOW,
    }
}

fn rollout(n: u8) -> Rollout {
    Rollout {
        id: RolloutId::from_random([n; 16]),
        product: "app".parse().unwrap(),
        version: "1.1.0".parse().unwrap(),
        state: RolloutState::Running,
        reason: Explained::new(Reason::WaveInFlight, "ünïcode"),
        generation: 1,
        revision: 1,
        salt: Ring::from_random(77),
        gate: Gate {
            max_failure: BasisPoints::new(200).unwrap(),
            min_failures: 2,
            min_success: BasisPoints::new(9_000).unwrap(),
            soak: Duration::from_mins(1),
            on_breach: OnBreach::HaltAndRollBack,
        },
        pace: Pace::Evidence { start: 8 },
        window_s: 1_800,
        max_attempts: 3,
        timeout_s: 60,
        created_at: NOW,
        created_by: "t".into(),
        started_at: None,
        halted_at: None,
        ended_at: None,
    }
}

fn deployment(rollout: &Rollout, device: &Device) -> Deployment {
    Deployment {
        rollout: rollout.id,
        device: device.id,
        facts: DeploymentFacts {
            id: DeploymentId::from_random([9; 16]),
            wave: 0,
            state: DeploymentState::Offered,
            from: Some("1.0.0".parse().unwrap()),
            leg: "1.1.0".parse().unwrap(),
            reason: None,
            attempts: 1,
            updated_at: NOW,
        },
        bytes_downloaded: 0,
        created_at: NOW,
    }
}

async fn suite(db: &Db) {
    let app = "app".parse().unwrap();
    let version = "1.1.0".parse().unwrap();
    let mut tx = db.write().await.unwrap();
    assert!(products::insert_product(&mut tx, &app, NOW).await.unwrap());
    assert!(!products::insert_product(&mut tx, &app, NOW).await.unwrap());
    assert!(
        products::insert_release(&mut tx, &app, &version, "n", "t", NOW)
            .await
            .unwrap()
    );
    let release = products::release(&mut tx, &app, &version)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((release.stage, release.revision), (Stage::Draft, 1));
    assert!(
        products::set_stage(&mut tx, &release, Stage::Ga, Some("r"))
            .await
            .unwrap()
    );
    // The revision has moved on.
    assert!(
        !products::set_stage(&mut tx, &release, Stage::Eol, None)
            .await
            .unwrap()
    );

    let one = device(1);
    assert!(devices::insert(&mut tx, &one).await.unwrap());
    assert!(!devices::insert(&mut tx, &one).await.unwrap());
    assert!(devices::insert(&mut tx, &device(2)).await.unwrap());
    assert_eq!(devices::one(&mut tx, one.id).await.unwrap().unwrap(), one);
    assert_eq!(
        devices::page(&mut tx, "", "app", "NA", 1)
            .await
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        devices::page(&mut tx, "", "", "EU", 10)
            .await
            .unwrap()
            .len(),
        0
    );
    tx.commit().await.unwrap();

    let mut tx = db.write().await.unwrap();
    assert!(devices::take_report(&mut tx, one.id, 1).await.unwrap());
    assert!(!devices::take_report(&mut tx, one.id, 1).await.unwrap());
    assert_eq!(devices::report_seq(&mut tx, one.id).await.unwrap(), Some(1));
    let mut heard = one.clone();
    heard.last_seen = NOW.plus(Duration::from_secs(5));
    heard.battery = Battery {
        percent: Some(14),
        power: Power::Battery,
    };
    devices::heartbeat(&mut tx, &heard, NOW).await.unwrap();
    // An older heartbeat never overwrites a newer one.
    devices::heartbeat(&mut tx, &one, NOW).await.unwrap();
    let read = devices::one(&mut tx, one.id).await.unwrap().unwrap();
    assert_eq!(
        (read.last_seen, read.battery),
        (heard.last_seen, heard.battery)
    );
    devices::quarantine(&mut tx, one.id, &version, "health_failed", NOW)
        .await
        .unwrap();
    devices::quarantine(&mut tx, one.id, &version, "again", NOW)
        .await
        .unwrap();
    assert_eq!(
        devices::quarantined(&mut tx, one.id).await.unwrap(),
        std::slice::from_ref(&version)
    );
    assert!(devices::lift(&mut tx, one.id, &version).await.unwrap());

    let r = rollout(5);
    let wave = Wave {
        name: "NA".into(),
        selector: "region=NA".parse().unwrap(),
        size: "20%".parse().unwrap(),
    };
    rollouts::insert(&mut tx, &r, std::slice::from_ref(&wave))
        .await
        .unwrap();
    assert_eq!(rollouts::one(&mut tx, r.id).await.unwrap().unwrap(), r);
    let mut row = WaveRow {
        wave,
        state: WaveState::Running,
        frontier: Frontier::ALL,
        started_at: Some(NOW),
        soak_started: None,
        ended_at: None,
    };
    rollouts::set_wave(&mut tx, r.id, 0, &row).await.unwrap();
    assert_eq!(rollouts::waves(&mut tx, r.id).await.unwrap(), [row.clone()]);
    // A frontier only rises.
    row.frontier = Frontier::from_stored(5);
    assert!(rollouts::set_wave(&mut tx, r.id, 0, &row).await.is_err());
    tx.commit().await.unwrap();

    let mut tx = db.write().await.unwrap();
    let d = deployment(&r, &one);
    assert!(deployments::insert(&mut tx, &d, 1).await.unwrap());
    // One at a time on a device, and one in a rollout.
    let mut other = deployment(&r, &one);
    other.facts.id = DeploymentId::from_random([10; 16]);
    assert!(!deployments::insert(&mut tx, &other, 1).await.unwrap());
    let mut failed = d.clone();
    failed.facts.state = DeploymentState::Failed;
    failed.facts.reason = Some(Explained::new(Reason::DownloadFailed, "x"));
    assert!(
        deployments::update(&mut tx, &failed, DeploymentState::Offered)
            .await
            .unwrap()
    );
    assert!(
        !deployments::update(&mut tx, &failed, DeploymentState::Offered)
            .await
            .unwrap()
    );
    assert_eq!(
        deployments::one(&mut tx, d.facts.id)
            .await
            .unwrap()
            .unwrap(),
        failed
    );
    let retried = deployments::retry(
        &mut tx,
        d.facts.id,
        DeploymentState::Failed,
        &version,
        1,
        NOW,
    )
    .await;
    assert!(retried.unwrap());
    let later = NOW.plus(Duration::from_mins(2));
    assert_eq!(
        deployments::silent(&mut tx, later, 10).await.unwrap().len(),
        1
    );
    assert_eq!(
        deployments::silent(&mut tx, NOW, 10).await.unwrap().len(),
        0
    );
    assert_eq!(deployments::all(&mut tx).await.unwrap().len(), 1);

    // A halt raises the generation, once for each revision.
    let halt = Explained::new(Reason::RolloutHalted, "h");
    assert_eq!(
        rollouts::fence(&mut tx, r.id).await.unwrap(),
        Some((RolloutState::Running, 1))
    );
    assert!(
        rollouts::set_state(&mut tx, &r, RolloutState::Halted, &halt, NOW)
            .await
            .unwrap()
    );
    assert!(
        !rollouts::set_state(&mut tx, &r, RolloutState::Halted, &halt, NOW)
            .await
            .unwrap()
    );
    assert_eq!(
        rollouts::fence(&mut tx, r.id).await.unwrap(),
        Some((RolloutState::Halted, 2))
    );
    tx.commit().await.unwrap();

    let mut tx = db.write().await.unwrap();
    let lease = Duration::from_secs(10);
    assert!(
        jobs::claim_lease(&mut tx, "l", "a", NOW, lease)
            .await
            .unwrap()
    );
    assert!(
        jobs::claim_lease(&mut tx, "l", "a", NOW, lease)
            .await
            .unwrap()
    );
    assert!(
        !jobs::claim_lease(&mut tx, "l", "b", NOW, lease)
            .await
            .unwrap()
    );
    let lapsed = NOW.plus(Duration::from_secs(11));
    assert!(
        jobs::claim_lease(&mut tx, "l", "b", lapsed, lease)
            .await
            .unwrap()
    );
    let id = JobId::from_random([3; 16]);
    assert!(
        jobs::enqueue(&mut tx, id, "k", "s", "{}", NOW)
            .await
            .unwrap()
    );
    assert!(
        !jobs::enqueue(&mut tx, JobId::from_random([4; 16]), "k", "s", "{}", NOW)
            .await
            .unwrap()
    );
    let job = jobs::take(&mut tx, "a", NOW, lease).await.unwrap().unwrap();
    assert_eq!((job.id, job.attempts), (id, 1));
    assert!(
        jobs::take(&mut tx, "b", NOW, lease)
            .await
            .unwrap()
            .is_none()
    );
    // Its worker vanished: another takes it over, and the first can no longer finish it.
    assert_eq!(
        jobs::take(&mut tx, "b", lapsed, lease)
            .await
            .unwrap()
            .unwrap()
            .attempts,
        2
    );
    assert!(!jobs::extend(&mut tx, id, "a", lapsed).await.unwrap());
    jobs::finish(&mut tx, id, "b", &jobs::Outcome::Done, lapsed)
        .await
        .unwrap();
    assert_eq!(jobs::of_kind(&mut tx, "k").await.unwrap()[0].state, "done");
    let (first, new) = operators::secret_or_insert(&mut tx, "n", "v1", NOW)
        .await
        .unwrap();
    let (second, again) = operators::secret_or_insert(&mut tx, "n", "v2", NOW)
        .await
        .unwrap();
    assert_eq!(
        (first.as_str(), new, second.as_str(), again),
        ("v1", true, "v1", false)
    );
    tx.commit().await.unwrap();

    // Events are numbered without gaps in commit order; what is rolled back leaves none.
    let event = NewEvent {
        kind: EventKind::Rollout,
        actor: "t".into(),
        product: Some(app),
        rollout: Some(r.id),
        device: None,
        text: "x".into(),
    };
    let mut tx = db.write().await.unwrap();
    events::append(&mut tx, "o", NOW, &event).await.unwrap();
    drop(tx);
    let mut tx = db.write().await.unwrap();
    assert_eq!(events::append(&mut tx, "o", NOW, &event).await.unwrap(), 1);
    assert_eq!(events::append(&mut tx, "o", NOW, &event).await.unwrap(), 2);
    tx.commit().await.unwrap();
    let mut tx = db.read().await.unwrap();
    assert_eq!(events::head(&mut tx).await.unwrap(), 2);
    let list = events::of_rollout(&mut tx, r.id, 1, 10).await.unwrap();
    assert_eq!((list.len(), list[0].seq, list[0].at), (1, 2, NOW));
}
