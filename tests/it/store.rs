//! The store on both engines: every statement prepares, and one suite returns the same results.

use std::collections::BTreeMap;
use std::time::Duration;
use tidegate_store::budgets;
use tidegate_store::quarantine;
use tidegate_store::waves;

use tidegate_core::memory::fleet::Fleet;
use tidegate_core::memory::secrets::Secrets;
use tidegate_domain::BasisPoints;
use tidegate_domain::admission::{DeploymentFacts, Metered};
use tidegate_domain::event::budget::Budget;
use tidegate_domain::event::{Actor, Event, Topic};
use tidegate_domain::hold::Hold;
use tidegate_domain::ring::{Frontier, Ring};
use tidegate_domain::rollout::policy::Policy;
use tidegate_domain::rollout::{
    Gate, Limits, OnBreach, Outcome, Pace, RolloutEvent, RolloutState, Stratum, Wave, WaveProgress,
    WaveState,
};
use tidegate_domain::window::Windows;
use tidegate_protocol::{
    Battery, ChangeId, Channel, DeploymentId, DeploymentState, DeviceId, Explained, HoldId,
    IncidentId, JobId, Power, Reason, RolloutId, Sha256, Stage, Timestamp, TokenId,
};
use tidegate_store::aggregates::{self, Tallies};
use tidegate_store::changes::{self, Change, ChangeKind, ChangeState};
use tidegate_store::deployments::{self, Deployment};
use tidegate_store::devices::{self, Device};
use tidegate_store::events;
use tidegate_store::holds::{self, HoldRow};
use tidegate_store::incidents::{self, Incident};
use tidegate_store::products::ProductSettings;
use tidegate_store::rollouts::{self, Rollout};
use tidegate_store::waves::WaveRow;
use tidegate_store::{Db, Tx, all_statements, jobs, operators, products};
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

#[tokio::test]
async fn no_statement_reads_a_large_table_from_end_to_end() {
    // Tables that are loaded once, at startup.
    const ON_PURPOSE: [(&str, &str); 2] = [("ALL", "deployment"), ("ALL", "device")];
    let (_dir, db) = sqlite().await;
    let mut found = Vec::new();
    for (name, sql) in all_statements() {
        if sql.contains("FOR ") {
            continue;
        }
        for step in db.plan_of(sql).await.unwrap() {
            for table in ["deployment", "device", "event"] {
                let scans = step.split(' ').take(2).eq(["SCAN", table]) && !step.contains("USING");
                if scans && !ON_PURPOSE.contains(&(name, table)) {
                    found.push(format!("{name} reads all of {table}: {sql}"));
                }
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

#[cfg(unix)]
#[tokio::test]
async fn nobody_but_its_owner_reads_the_database_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tidegate.db");
    let mode = |name: &str| {
        let meta = std::fs::metadata(dir.path().join(name)).unwrap();
        meta.permissions().mode() & 0o777
    };
    let open = async || {
        Db::open(&format!("sqlite:{}", path.display()))
            .await
            .unwrap()
    };
    let db = open().await;
    for name in ["tidegate.db", "tidegate.db-wal", "tidegate.db-shm"] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
    db.close().await;
    // The mode of a database created before is corrected.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let _db = open().await;
    assert_eq!(mode("tidegate.db"), 0o600);
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
        awaiting: false,
        isolated: String::new(),
        new_key: false,
        lifted: std::collections::BTreeSet::new(),
        release: Some("1.0.0".parse().unwrap()),
        image: Some(Sha256::from_bytes([n; 32])),
        agent_version: String::new(),
        battery: Battery::default(),
        metered: false,
        low_since: None,
        unhealthy_at: None,
        report_seq: 0,
        enrolled_at: NOW,
        last_seen: NOW,
        flushed_at: NOW,
        claimed: false,
        contact: None,
    }
}

fn policy() -> Policy {
    Policy {
        pace: Pace::Evidence { start: 8 },
        limits: Limits::default(),
        windows: Windows {
            general: Some("daily 20:00-04:00 UTC".parse().unwrap()),
            ..Windows::default()
        },
        deadline: Some(NOW),
        battery_wait: Duration::from_hours(24),
        metered: Metered::DeltasOnly,
        by_hand: true,
        gate: Gate {
            max_failure: BasisPoints::new(200).unwrap(),
            min_failures: 2,
            min_success: BasisPoints::new(9_000).unwrap(),
            min_sample: 3,
            max_silent: BasisPoints::new(500).unwrap(),
            silent_after: Duration::from_mins(10),
            compare: true,
            soak: Duration::from_mins(1),
            on_breach: OnBreach::HaltAndRollBack,
        },
    }
}

fn rollout(n: u8) -> Rollout {
    Rollout {
        id: RolloutId::from_random([n; 16]),
        product: "app".parse().unwrap(),
        release: "1.1.0".parse().unwrap(),
        state: RolloutState::Running,
        reason: Explained::new(Reason::WaveInFlight, "ünïcode"),
        generation: 1,
        revision: 1,
        salt: Ring::from_random(77),
        policy: policy(),
        released: 0,
        extended_s: 0,
        frozen: false,
        starts_at: None,
        starts_by: None,
        approvals: 0,
        excused: BTreeMap::new(),
        rollback_window_s: 1_800,
        max_attempts: 3,
        accepted_no_way_back: None,
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
            took: false,
            failures: BTreeMap::new(),
            updated_at: NOW,
        },
        bytes_downloaded: 0,
        downtime_ms: None,
        created_at: NOW,
        region: "NA".into(),
        platform: "linux-x86_64".into(),
        model: "x2".into(),
        outcome: Outcome::Waiting,
    }
}

/// Running aggregates.
/// An end that is only partly what it is called is told apart, and moved on by the version before it is not.
async fn partial_end(tx: &mut Tx, id: RolloutId, why: &Explained) {
    let now = rollouts::one(tx, id).await.unwrap().unwrap();
    let partly = RolloutState::RolledBackPartly;
    assert!(
        rollouts::set_state(tx, &now, partly, why, NOW)
            .await
            .unwrap()
    );
    let ended = rollouts::one(tx, id).await.unwrap().unwrap();
    assert_eq!((ended.state, ended.ended_at), (partly, Some(NOW)));
    // To the version before, and to the fence, it is rolled back.
    let fence = rollouts::fence(tx, id).await.unwrap().unwrap();
    assert_eq!(fence.0, RolloutState::RolledBack);
    let later = NOW.plus(Duration::from_mins(1));
    let whole = RolloutState::RolledBack;
    assert!(
        rollouts::set_state(tx, &ended, whole, why, later)
            .await
            .unwrap()
    );
    let again = rollouts::one(tx, id).await.unwrap().unwrap();
    assert_eq!((again.state, again.ended_at), (whole, Some(later)));
    let mut last = again;
    for state in [
        RolloutState::CompletedPartly,
        RolloutState::NothingToDo,
        RolloutState::Completed,
    ] {
        assert!(
            rollouts::set_state(tx, &last, state, why, later)
                .await
                .unwrap()
        );
        last = rollouts::one(tx, id).await.unwrap().unwrap();
        assert_eq!(last.state, state);
        // They go on to serve late devices, for the version before as well.
        let fence = rollouts::fence(tx, id).await.unwrap().unwrap();
        assert_eq!(fence.0, RolloutState::Completed);
        let planned = rollouts::planned(tx).await.unwrap();
        assert!(planned.iter().any(|r| r.id == id && r.state == state));
    }
    rollouts::accept_no_way_back(tx, id, 12).await.unwrap();
    let noted = rollouts::one(tx, id).await.unwrap().unwrap();
    assert_eq!(noted.accepted_no_way_back, Some(12));
    let halted = RolloutState::Halted;
    assert!(
        rollouts::set_state(tx, &last, halted, why, later)
            .await
            .unwrap()
    );
}

async fn aggregates_suite(
    tx: &mut Tx,
    r: &Rollout,
    one: &Device,
    was: &Deployment,
    is: &Deployment,
) {
    let mut tallies = Tallies::default();
    tallies.moved(None, was.key());
    tallies.flush(tx).await.unwrap();
    let mut tallies = Tallies::default();
    tallies.moved(Some(was.key()), is.key());
    tallies.flush(tx).await.unwrap();
    let counts = aggregates::tallies_of(tx, r.id).await.unwrap();
    let of = |outcome: Outcome| -> u64 {
        counts
            .iter()
            .filter(|c| c.outcome == outcome)
            .map(|c| c.count)
            .sum()
    };
    assert_eq!((of(Outcome::Waiting), of(Outcome::Failed)), (0, 1));
    assert_eq!(aggregates::tallies(tx).await.unwrap().len(), counts.len());
    let samples = aggregates::samples(tx, r.id).await.unwrap();
    assert_eq!(samples[0].model, "x2");
    assert_eq!(samples[0].reason, Some(Reason::DownloadFailed));

    // An offer uses up the grant, while there is room.
    assert!(!aggregates::expose(tx, r.id, NOW).await.unwrap());
    assert!(aggregates::grant(tx, r.id, 0, 1, NOW).await.unwrap());
    assert!(!aggregates::grant(tx, r.id, 0, 9, NOW).await.unwrap());
    assert!(aggregates::expose(tx, r.id, NOW).await.unwrap());
    assert!(!aggregates::expose(tx, r.id, NOW).await.unwrap());
    aggregates::done(tx, r.id, 2, 30).await.unwrap();
    let progress = aggregates::progress_of(tx, r.id).await.unwrap();
    assert_eq!(progress, aggregates::progress(tx).await.unwrap()[&r.id]);
    assert_eq!((progress.exposed, progress.permits()), (1, 0));
    assert_eq!((progress.done, progress.done_s), (2, 30));
    assert_eq!(progress.last_offer, Some(NOW));

    let stratum = Stratum {
        risk_new: 1,
        risk_old: 2,
        bad_new: 3,
        bad_old: 4,
    };
    aggregates::add_stratum(tx, r.id, NOW, stratum)
        .await
        .unwrap();
    assert_eq!(aggregates::strata(tx, r.id).await.unwrap(), [stratum]);
    let mut ill = one.clone();
    ill.last_seen = NOW.plus(Duration::from_secs(9));
    ill.unhealthy_at = Some(NOW);
    ill.metered = true;
    ill.low_since = Some(NOW);
    devices::heartbeat(tx, &ill, NOW).await.unwrap();
    let read = devices::one(tx, one.id).await.unwrap().unwrap();
    assert_eq!(
        (read.unhealthy_at, read.low_since, read.metered),
        (Some(NOW), Some(NOW), true)
    );
    let before = NOW.minus(Duration::from_secs(1));
    // It is in the rollout but not on its release: neither new nor old.
    let bad = aggregates::turned_bad(tx, &r.product, r.id, before, NOW)
        .await
        .unwrap();
    assert_eq!(bad, (0, 0));

    // Devices along the ring, in its order, from a position on.
    let last = (1 << 63) - 1;
    let walk = devices::along_ring(tx, &r.product, None, (0, last), &r.release, 10).await;
    assert_eq!(walk.unwrap().len(), 2);
    let region = "NA".parse().unwrap();
    let walk =
        devices::along_ring(tx, &r.product, Some(&region), (0, last - 1), &r.release, 10).await;
    assert!(walk.unwrap().is_empty());
}

/// Holds, incidents, changes, settings.
async fn people_suite(tx: &mut Tx, r: &Rollout) {
    let hold = HoldRow {
        product: r.product.clone(),
        hold: Hold {
            id: HoldId::from_random([1; 16]),
            release: None,
            selector: "model=x2".parse().unwrap(),
            reason: "driver".into(),
            link: String::new(),
        },
        created_at: NOW,
        created_by: "t".into(),
    };
    holds::insert(tx, &hold).await.unwrap();
    assert_eq!(holds::open(tx).await.unwrap(), std::slice::from_ref(&hold));
    assert_eq!(
        holds::page(tx, "", "app", 5).await.unwrap(),
        std::slice::from_ref(&hold)
    );
    assert!(holds::lift(tx, hold.hold.id, "t", NOW).await.unwrap());
    assert!(!holds::lift(tx, hold.hold.id, "t", NOW).await.unwrap());
    assert!(holds::open(tx).await.unwrap().is_empty());

    let incident = Incident {
        id: IncidentId::from_random([2; 16]),
        product: r.product.clone(),
        release: r.release.clone(),
        selector: "region=NA".parse().unwrap(),
        rollouts: vec![RolloutId::from_random([8; 16]), r.id],
        reason: "bad".into(),
        opened_at: NOW,
        opened_by: "t".into(),
        closed_at: None,
    };
    incidents::insert(tx, &incident).await.unwrap();
    assert_eq!(
        incidents::one(tx, incident.id).await.unwrap(),
        Some(incident.clone())
    );
    assert_eq!(
        incidents::open_of(tx, r.id).await.unwrap(),
        Some(incident.clone())
    );
    let end = Timestamp::from_micros(i64::MAX);
    assert_eq!(
        incidents::page(tx, end, "", 5).await.unwrap(),
        std::slice::from_ref(&incident)
    );
    assert!(incidents::close(tx, incident.id, NOW).await.unwrap());
    assert_eq!(incidents::open_of(tx, r.id).await.unwrap(), None);

    let change = |n: u8| Change {
        id: ChangeId::from_random([n; 16]),
        rollout: r.id,
        kind: ChangeKind::Start,
        body: String::new(),
        plan: "p".into(),
        asked_by: "ann".into(),
        asked_at: NOW,
        state: ChangeState::Waiting,
    };
    changes::insert(tx, &change(1)).await.unwrap();
    changes::insert(tx, &change(2)).await.unwrap();
    // A new request voids the previous one.
    assert_eq!(changes::waiting(tx, r.id).await.unwrap(), Some(change(2)));
    changes::approve(tx, change(2).id, "p", "bob", NOW)
        .await
        .unwrap();
    changes::approve(tx, change(2).id, "p", "bob", NOW)
        .await
        .unwrap();
    assert_eq!(
        changes::approvals(tx, change(2).id, "p")
            .await
            .unwrap()
            .len(),
        1
    );
    assert!(
        changes::approvals(tx, change(2).id, "other")
            .await
            .unwrap()
            .is_empty()
    );
    assert!(
        changes::end(tx, change(2).id, ChangeState::Applied)
            .await
            .unwrap()
    );
    assert_eq!(changes::waiting(tx, r.id).await.unwrap(), None);

    let settings = ProductSettings {
        min_version: Some("1.0.0".parse().unwrap()),
        approvals: 2,
        ..ProductSettings::default()
    };
    assert!(
        products::set_settings(tx, &r.product, &settings)
            .await
            .unwrap()
    );
    let all = products::all_settings(tx).await.unwrap();
    assert_eq!(all, [(r.product.clone(), settings)]);
    products::set_eol(tx, &r.product, &r.release, NOW, "call us")
        .await
        .unwrap();
    let due = products::due_eol(tx, NOW).await.unwrap();
    assert_eq!(due[0].eol, Some((NOW, "call us".into())));
    let before = NOW.minus(Duration::from_secs(1));
    assert!(products::due_eol(tx, before).await.unwrap().is_empty());
}

/// The plan is reloaded when a delta is done or a person acts, the grants when the planner changes
/// them: when both happen at once, a stale read must not win.
#[tokio::test(flavor = "multi_thread")]
async fn the_places_of_a_rollout_are_those_that_were_granted_last() {
    let (_dir, db) = sqlite().await;
    let (app, version) = ("app".parse().unwrap(), "1.1.0".parse().unwrap());
    let r = rollout(1);
    let mut tx = db.begin_write().await.unwrap();
    products::insert_product(&mut tx, &app, NOW).await.unwrap();
    products::insert_release(&mut tx, &app, &version, "n", "t", NOW)
        .await
        .unwrap();
    rollouts::insert(&mut tx, &r, &[]).await.unwrap();
    tx.commit().await.unwrap();
    let mut tx = db.begin_write().await.unwrap();
    Secrets::ensure_in(&mut tx, NOW).await.unwrap();
    tx.commit().await.unwrap();
    let fleet = Fleet::load(&db).await.unwrap();
    for granted in 1..=300 {
        let act = async {
            let mut tx = db.begin_write().await.unwrap();
            let was = granted - 1;
            assert!(
                aggregates::grant(&mut tx, r.id, was, granted, NOW)
                    .await
                    .unwrap()
            );
            tx.commit().await.unwrap();
            fleet.reload_permits(&db).await.unwrap();
        };
        let (plan, ()) = tokio::join!(fleet.reload_plan(&db), act);
        plan.unwrap();
        assert_eq!(fleet.permits_left(r.id), granted, "granted {granted}");
    }
}

async fn suite(db: &Db) {
    let app = "app".parse().unwrap();
    let version = "1.1.0".parse().unwrap();
    let mut tx = db.begin_write().await.unwrap();
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

    let mut tx = db.begin_write().await.unwrap();
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
    quarantine::quarantine(&mut tx, one.id, &version, "health_failed", NOW)
        .await
        .unwrap();
    quarantine::quarantine(&mut tx, one.id, &version, "again", NOW)
        .await
        .unwrap();
    assert_eq!(
        quarantine::quarantined(&mut tx, one.id).await.unwrap(),
        std::slice::from_ref(&version)
    );
    assert!(quarantine::lift(&mut tx, one.id, &version).await.unwrap());

    // A budget begins when it is first held, and is what was written last.
    let mut budget = budgets::hold(&mut tx, one.id, NOW).await.unwrap();
    assert_eq!(budget, Budget::new(NOW));
    while budget.take() {}
    budgets::set(&mut tx, one.id, &budget).await.unwrap();
    let later = NOW.plus(Duration::from_secs(9));
    assert_eq!(budgets::hold(&mut tx, one.id, later).await.unwrap(), budget);
    let due = budgets::due(&mut tx, NOW, 10).await.unwrap();
    assert_eq!(due, [one.id]);
    let before = NOW.minus(Duration::from_secs(1));
    assert!(budgets::due(&mut tx, before, 10).await.unwrap().is_empty());

    let r = rollout(5);
    let wave = Wave {
        name: "NA".into(),
        selector: "region=NA".parse().unwrap(),
        size: "20%".parse().unwrap(),
    };
    let mut row = WaveRow {
        wave,
        progress: WaveProgress::pending(4),
    };
    rollouts::insert(&mut tx, &r, std::slice::from_ref(&row))
        .await
        .unwrap();
    assert_eq!(rollouts::one(&mut tx, r.id).await.unwrap().unwrap(), r);
    row.progress = WaveProgress {
        state: WaveState::Running,
        frontier: Frontier::ALL,
        quota: 5,
        started_at: Some(NOW),
        ..row.progress
    };
    waves::set_wave(&mut tx, r.id, 0, &row.progress)
        .await
        .unwrap();
    assert_eq!(waves::waves(&mut tx, r.id).await.unwrap(), [row.clone()]);
    // A frontier only rises.
    row.progress.frontier = Frontier::from_stored(5);
    let fallen = waves::set_wave(&mut tx, r.id, 0, &row.progress).await;
    assert!(fallen.is_err());
    tx.commit().await.unwrap();

    let mut tx = db.begin_write().await.unwrap();
    let d = deployment(&r, &one);
    assert!(deployments::insert(&mut tx, &d, 1).await.unwrap());
    // A device is in one active deployment at a time, and in one per rollout.
    let mut other = deployment(&r, &one);
    other.facts.id = DeploymentId::from_random([10; 16]);
    assert!(!deployments::insert(&mut tx, &other, 1).await.unwrap());
    let mut failed = d.clone();
    failed.facts.state = DeploymentState::Failed;
    failed.facts.reason = Some(Explained::new(Reason::DownloadFailed, "x"));
    failed.facts.took = true;
    failed.facts.failures.insert(Reason::DownloadFailed, 3);
    failed.outcome = Outcome::Failed;
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

    aggregates_suite(&mut tx, &r, &one, &d, &failed).await;
    people_suite(&mut tx, &r).await;

    // A halt raises the generation, once per revision.
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
    partial_end(&mut tx, r.id, &halt).await;
    tx.commit().await.unwrap();

    let mut tx = db.begin_write().await.unwrap();
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
    // Its worker has vanished: another one takes it over, and the first can no longer finish it.
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

    // Events are numbered without gaps in commit order; a rolled-back one leaves no gap.
    let actor = Actor::Operator {
        token: TokenId::from_random([5; 16]),
        name: "Jane".into(),
    };
    let event = Event::RolloutMoved {
        product: app,
        rollout: r.id,
        order: RolloutEvent::Halt,
        from: RolloutState::Running,
        to: RolloutState::Halted,
        change: None,
        reason: "orders are lost".into(),
    };
    let two = [(actor.clone(), event.clone()), (Actor::Planner, event)];
    let mut tx = db.begin_write().await.unwrap();
    events::append(&mut tx, "o", NOW, &two).await.unwrap();
    drop(tx);
    let mut tx = db.begin_write().await.unwrap();
    let numbers = events::append(&mut tx, "o", NOW, &two).await.unwrap();
    assert_eq!(numbers, 1..3);
    tx.commit().await.unwrap();
    let mut tx = db.read().await.unwrap();
    assert_eq!(events::head(&mut tx).await.unwrap(), 2);
    let list = events::of_rollout(&mut tx, r.id, 0, 10).await.unwrap();
    assert_eq!((list.len(), list[1].seq, list[1].at), (2, 2, NOW));
    let first = &list[0];
    assert_eq!(
        (first.kind.as_str(), first.topic),
        ("rollout_moved", Some(Topic::Rollout))
    );
    assert_eq!(
        (first.actor_kind.as_str(), first.actor.as_str()),
        ("operator", "operator Jane")
    );
    assert_eq!(first.body["to"], "halted");
    assert_eq!(first.said["reason"], "orders are lost");
    assert!(!first.body.contains_key("reason") && !first.body.contains_key("change"));
    assert_eq!(first.text, "halt: running -> halted: orders are lost");
    assert_eq!(
        (list[1].actor_id.as_deref(), list[1].actor.as_str()),
        (None, "planner")
    );
}
