//! Cost of a planner tick on PostgreSQL with a million devices and fifty rollouts, compared with
//! counting rows: `cargo bench -p tidegate-tests --bench planner`.
//!
//! Figures are ratios within one run: to a round trip to the database (the floor), and to counting
//! the devices of one product (which a tick must not do).
#![expect(clippy::unwrap_used, reason = "a panic is how a benchmark reports")]

use std::time::{Duration, Instant};

use tidegate_core::memory::watch::Watch;
use tidegate_domain::rollout::plan;
use tidegate_protocol::Timestamp;
use tidegate_server::config::{JobSettings, Settings};
use tidegate_tests::Cluster;

const DEVICES: u32 = 1_000_000;
const ROLLOUTS: u32 = 50;
const ROUNDS: u32 = 20;

fn settings(url: &str, dir: &std::path::Path) -> Settings {
    Settings {
        database: url.into(),
        // The benchmark drives the ticks itself.
        jobs: JobSettings {
            tick: Duration::from_hours(1),
            ..JobSettings::default()
        },
        ..tidegate_tests::settings(dir)
    }
}

fn fill(cluster: &Cluster) {
    let run = |what: &str, sql: &str| {
        let began = Instant::now();
        cluster.psql(sql).unwrap();
        println!("{what}: {:.1} s", began.elapsed().as_secs_f64());
    };
    let micros = 1_000_000u64 * 1_800_000_000;
    run(
        "product and releases",
        &format!(
            "INSERT INTO product (name, created_at) VALUES ('app', 0);
             INSERT INTO release (product, version, stage, notes, revision, created_at, created_by)
             SELECT 'app', '1.' || n || '.0', 'ga', '', 1, {micros} + n, 'bench' FROM generate_series(0, {ROLLOUTS}) n;
             INSERT INTO artifact (product, version, platform, sha256, length, created_at)
             SELECT 'app', '1.' || n || '.0', 'linux-x86_64', lpad(to_hex(n + 1), 64, '0'), 1000, 0
             FROM generate_series(0, {ROLLOUTS}) n;"
        ),
    );
    run(
        "a million devices",
        &format!(
            "INSERT INTO device (id, name, product, platform, region, channel, labels, ring, public_key, active, release,
                 agent_version, power, report_seq, enrolled_at, last_seen, flushed_at)
             SELECT 'dev_' || lpad(to_hex(n), 32, '0'), 'd' || n, 'app', 'linux-x86_64',
                 (ARRAY['NA', 'EU', 'APAC'])[n % 3 + 1], 'stable', '{{}}',
                 (random() * 9223372036854774784)::bigint, 'key-' || n, 1, '1.0.0', '', 'unknown', 0, 0, {micros}, 0
             FROM generate_series(1, {DEVICES}) n;
             ANALYZE device;"
        ),
    );
    run(
        "fifty rollouts of 24 waves",
        &format!(
            "INSERT INTO rollout (id, product, version, state, reason, generation, revision, salt, max_failure_bp,
                 min_failures, min_success_bp, soak_s, on_breach, pace_start, rollback_window_s, max_attempts, timeout_s,
                 created_at, created_by, started_at)
             SELECT 'rol_' || lpad(to_hex(n), 32, '0'), 'app', '1.' || n || '.0', 'running',
                 '{{\"code\":\"wave_in_flight\",\"detail\":\"\"}}', 1, 1, (n * 184467440737095516), 200, 2, 9000, 600, 'halt',
                 8, 1800, 10, 86400, {micros}, 'bench', {micros}
             FROM generate_series(1, {ROLLOUTS}) n;
             INSERT INTO wave (rollout_id, idx, name, selector, size, state, frontier, quota, started_at)
             SELECT 'rol_' || lpad(to_hex(n), 32, '0'), w, 'wave ' || w,
                 'region=' || (ARRAY['NA', 'EU', 'APAC'])[w / 8 + 1], '5000',
                 CASE WHEN w < 4 THEN 'passed' WHEN w = 4 THEN 'running' ELSE 'pending' END,
                 w * 140000000000000000, 5000, {micros}
             FROM generate_series(1, {ROLLOUTS}) n, generate_series(0, 23) w;
             INSERT INTO progress (rollout_id, exposed, granted, done, done_s)
             SELECT 'rol_' || lpad(to_hex(n), 32, '0'), 22000, 22000, 20000, 12000000
             FROM generate_series(1, {ROLLOUTS}) n;
             INSERT INTO tally (rollout_id, wave, region, platform, model, from_release, outcome, reason, count)
             SELECT 'rol_' || lpad(to_hex(n), 32, '0'), w, 'NA', 'linux-x86_64', 'x' || m, '1.0.0', o,
                 CASE WHEN o = 'failed' THEN 'health_failed' ELSE '' END, 100
             FROM generate_series(1, {ROLLOUTS}) n, generate_series(0, 4) w, generate_series(1, 10) m,
                 unnest(ARRAY['waiting', 'taking', 'succeeded', 'probation']) o;
             INSERT INTO deployment (id, rollout_id, device_id, wave, state, active, from_release, leg, detail, attempts,
                 generation, bytes_downloaded, created_at, updated_at, region, platform, outcome)
             SELECT 'dep_' || lpad(to_hex(n * 2000 + k), 32, '0'), 'rol_' || lpad(to_hex(n), 32, '0'),
                 'dev_' || lpad(to_hex(n * 2000 + k), 32, '0'), 4, 'probation', 1, '1.0.0', '1.' || n || '.0', '', 1, 1, 0,
                 {micros}, {micros}, 'NA', 'linux-x86_64', 'probation'
             FROM generate_series(1, {ROLLOUTS}) n, generate_series(1, 2000) k;
             ANALYZE;"
        ),
    );
}

#[tokio::main]
async fn main() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    tidegate_store::Db::open(&cluster.url())
        .await
        .unwrap()
        .close()
        .await;
    fill(&cluster);
    let began = Instant::now();
    let running = tidegate_server::start(settings(&cluster.url(), dir.path()))
        .await
        .unwrap();
    println!(
        "start, all devices read: {:.1} s",
        began.elapsed().as_secs_f64()
    );
    let app = running.app();
    let snapshot = app.plan();
    let mut watch = Watch::default();
    let now = Timestamp::from_secs(1_800_000_100);

    let floor = app.round_trip().await.unwrap();
    let mut ticks = Vec::new();
    for _ in 0..ROUNDS {
        let began = Instant::now();
        let views = app.views(&snapshot, &mut watch).await.unwrap();
        assert_eq!(views.len(), ROLLOUTS as usize);
        for (_, view) in &views {
            let _ = plan(view, now);
        }
        ticks.push(began.elapsed());
    }
    ticks.sort_unstable();
    let tick = ticks[ticks.len() / 2];
    let began = Instant::now();
    app.look(&mut watch).await.unwrap();
    let look = began.elapsed();
    let mut starts = Vec::new();
    for (rollout, waves) in snapshot.rollouts.values().take(5) {
        let began = Instant::now();
        let found = app.population(&snapshot, rollout, waves, 5).await.unwrap();
        assert_eq!(found.quota, 5_000);
        starts.push(began.elapsed());
    }
    starts.sort_unstable();
    let start = starts[starts.len() / 2];
    let began = Instant::now();
    cluster
        .psql("SELECT COUNT(*) FROM device WHERE product = 'app' AND release <> '1.9.0'")
        .unwrap();
    let count = began.elapsed();
    let ms = |d: Duration| d.as_secs_f64() * 1_000.0;
    let ratio = |d: Duration, to: Duration| d.as_secs_f64() / to.as_secs_f64();
    println!(
        "\n{DEVICES} devices, {ROLLOUTS} running rollouts of 24 waves, PostgreSQL on loopback"
    );
    println!("a round trip (the floor)              {:8.2} ms", ms(floor));
    println!(
        "a tick: two queries, {ROLLOUTS} plans         {:8.2} ms  {:6.1} x the floor",
        ms(tick),
        ratio(tick, floor)
    );
    println!(
        "every 5 s: the silent of 100,000 in their windows {:.2} ms  {:.1} x the floor",
        ms(look),
        ratio(look, floor)
    );
    println!(
        "a wave starts: 5,000 exactly, by index {:7.2} ms  {:6.1} x the floor",
        ms(start),
        ratio(start, floor)
    );
    println!(
        "counting a product's rows once        {:8.2} ms  {:6.1} x a tick",
        ms(count),
        ratio(count, tick)
    );
    running.stop().await;
}
