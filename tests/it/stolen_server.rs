//! A68: the whole server is stolen. The thief has its database, every online key, its address and
//! its place on the network, and tries to make a device run a single byte of the thief's own.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tidegate_core::memory::secrets::{OnlineKeys, Secrets};
use tidegate_delta::{Manifest, sha256};
use tidegate_protocol::{
    CheckIn, DeploymentId, DeploymentState, DeviceId, Explained, Image, Report, ReportBatch,
    Timestamp,
};
use tidegate_store::Db;
use tidegate_tests::{Device, Server, eventually};
use tidegate_trust::assignment::{Action, Draft, Payload, Terms};
use tidegate_trust::{
    FileFacts, ImagePath, RootRole, SecretKey, lifetime, sign, snapshot_body, timestamp_body,
};

/// Content that the thief serves now.
#[derive(Clone, Default)]
struct Loot {
    /// Metadata by file name.
    files: BTreeMap<String, Vec<u8>>,
    /// Blobs by hash.
    blobs: BTreeMap<String, Vec<u8>>,
    /// Assignment for the device; `None` for nothing.
    order: Option<Order>,
    /// Whether the device has received the current order.
    served: bool,
    /// The device's refusal, if it has reported one.
    refused: Option<Explained>,
    /// Check-ins answered.
    check_ins: u64,
    /// Reports of the device.
    reports: Vec<Report>,
}

#[derive(Clone)]
struct Order {
    path: ImagePath,
    image: Image,
    action: Action,
    payload: Payload,
}

struct Thief {
    keys: OnlineKeys,
    device: DeviceId,
    loot: Mutex<Loot>,
}

impl Thief {
    /// Listens on the server's port.
    async fn take_over(self, port: u16) -> (Arc<Self>, tokio::task::JoinHandle<()>) {
        let thief = Arc::new(self);
        let router = Router::new()
            .route("/device/v1/session", post(session))
            .route("/device/v1/checkin", post(check_in))
            .route("/device/v1/reports", post(reports))
            .route("/metadata/{file}", get(metadata))
            .route("/blobs/{sha256}", get(blob))
            .with_state(thief.clone());
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
            .await
            .unwrap();
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.unwrap();
        });
        (thief, serving)
    }

    /// Signs snapshot and timestamp over the served files, with ever newer versions.
    fn sign_online(&self, loot: &mut Loot, version: u64) {
        let mut pins = BTreeMap::new();
        for (name, bytes) in &loot.files {
            let mut parts = name.splitn(3, '.');
            let (Some(v), Some(role)) = (parts.next(), parts.next()) else {
                continue;
            };
            let Ok(v) = v.parse::<u64>() else { continue };
            if !matches!(role, "root" | "snapshot" | "timestamp") {
                let facts = FileFacts::of(v, bytes);
                let newest: &mut FileFacts = pins.entry(role.to_owned()).or_insert(facts);
                if newest.version <= v {
                    *newest = facts;
                }
            }
        }
        let body = snapshot_body(version, now().plus(lifetime::SNAPSHOT), &pins);
        let bytes = sign(body, &[&self.keys.snapshot]).unwrap().to_bytes();
        let facts = FileFacts::of(version, &bytes);
        loot.files.insert(format!("{version}.snapshot.json"), bytes);
        let body = timestamp_body(version, now().plus(lifetime::TIMESTAMP), facts);
        let bytes = sign(body, &[&self.keys.timestamp]).unwrap().to_bytes();
        loot.files.insert("timestamp.json".into(), bytes);
    }

    /// Serves a change and waits until the device reports why it refuses it.
    async fn is_refused(&self, what: &str, change: impl FnOnce(&mut Loot)) -> Explained {
        {
            let mut loot = self.loot.lock().unwrap();
            (loot.refused, loot.served) = (None, false);
            change(&mut loot);
        }
        let refused = eventually(&format!("the device refuses {what}"), async || {
            self.loot.lock().unwrap().refused.clone()
        })
        .await;
        // Serve an empty round, so that the device comes back soon.
        let before = {
            let mut loot = self.loot.lock().unwrap();
            loot.order = None;
            loot.check_ins
        };
        eventually("a quiet round", async || {
            (self.loot.lock().unwrap().check_ins > before).then_some(())
        })
        .await;
        refused
    }
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    Timestamp::from_secs(Timestamp::ZERO.plus(since).as_secs())
}

async fn session() -> Json<Value> {
    Json(json!({ "ticket": "whatever", "expires_in_s": 3600 }))
}

async fn check_in(State(thief): State<Arc<Thief>>, Json(request): Json<CheckIn>) -> Json<Value> {
    let mut loot = thief.loot.lock().unwrap();
    loot.check_ins += 1;
    if loot.served {
        loot.refused.clone_from(&request.refused);
    }
    loot.served |= loot.order.is_some();
    let assignment = loot.order.clone().map(|order| {
        let draft = Draft {
            counter: request.counter + 1,
            time: now(),
            path: order.path,
            image: order.image,
            terms: Terms {
                device: thief.device,
                nonce: request.nonce.clone(),
                action: order.action,
                deployment: DeploymentId::from_random([7; 16]),
                rollback_window_s: 0,
                again: false,
                switch_within_s: None,
                payloads: vec![order.payload],
            },
        };
        let signed = draft.sign(&thief.keys.director).unwrap();
        String::from_utf8(signed.to_bytes()).unwrap()
    });
    Json(json!({
        "time": now(),
        "reason": { "code": "no_rollout", "detail": "" },
        "poll_after_s": 1,
        "assignment": assignment,
    }))
}

async fn reports(State(thief): State<Arc<Thief>>, Json(batch): Json<ReportBatch>) -> Json<Value> {
    let highest = batch.reports.iter().map(|r| r.seq).max().unwrap_or(0);
    thief.loot.lock().unwrap().reports.extend(batch.reports);
    Json(json!({ "acknowledged": highest }))
}

async fn metadata(
    State(thief): State<Arc<Thief>>,
    Path(file): Path<String>,
) -> Result<Vec<u8>, StatusCode> {
    let loot = thief.loot.lock().unwrap();
    loot.files.get(&file).cloned().ok_or(StatusCode::NOT_FOUND)
}

async fn blob(
    State(thief): State<Arc<Thief>>,
    Path(sha256): Path<String>,
) -> Result<Vec<u8>, StatusCode> {
    let loot = thief.loot.lock().unwrap();
    loot.blobs
        .get(&sha256)
        .cloned()
        .ok_or(StatusCode::NOT_FOUND)
}

/// Every metadata file that the server has served.
async fn metadata_of(server: &Server) -> BTreeMap<String, Vec<u8>> {
    let trust = server.get("/api/v1/trust").await;
    let mut files = BTreeMap::new();
    for (role, version) in trust["versions"].as_object().unwrap() {
        for v in 1..=version.as_u64().unwrap() {
            let name = format!("{v}.{role}.json");
            let answer = reqwest::get(format!("{}/metadata/{name}", server.url))
                .await
                .unwrap();
            if answer.status().is_success() {
                files.insert(name, answer.bytes().await.unwrap().to_vec());
            }
        }
    }
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_holds_the_server_and_its_keys_cannot_make_a_device_run_a_byte_of_their_own() {
    let mut server = Server::start().await;
    let trees = server.publish(&[("0.9.0", true), ("1.0.0", true), ("1.1.0", true)]);
    server.cli(&["release", "policy", "app", "--min-release", "1.0.0"]);
    let token = server.join_token();
    let installed = Some((trees[1].as_path(), "1.0.0"));
    let mut device = Device::enroll(
        server.dir.path(),
        "victim",
        &server.url,
        &token,
        "NA",
        installed,
    );
    // The thief's loot: the database, the keys in it, every file.
    let files = metadata_of(&server).await;
    let artifact = |release: &str| -> Image {
        let view: Value =
            serde_json::from_str(&server.cli(&["-o", "json", "release", "get", "app", release]))
                .unwrap();
        Image {
            sha256: view["artifacts"][0]["sha256"]
                .as_str()
                .unwrap()
                .parse()
                .unwrap(),
            length: view["artifacts"][0]["length"].as_u64().unwrap(),
        }
    };
    let (old, next) = (artifact("0.9.0"), artifact("1.1.0"));
    let genuine = std::fs::read(server.blob(&next.sha256.to_string())).unwrap();
    let port: u16 = server.url.rsplit(':').next().unwrap().parse().unwrap();
    server.kill();
    let database = server.dir.path().join("data/tidegate.db");
    let db = Db::open(&format!("sqlite:{}", database.display()))
        .await
        .unwrap();
    let secrets = Secrets::load(&mut db.read().await.unwrap()).await.unwrap();
    let keys = secrets.newest().clone();
    db.close().await;
    let thief = Thief {
        keys,
        device: device.id().parse().unwrap(),
        loot: Mutex::new(Loot {
            files: files.clone(),
            ..Loot::default()
        }),
    };
    let (thief, serving) = thief.take_over(port).await;
    let mut version = 1_000;
    let mut fresh = |loot: &mut Loot| {
        version += 1;
        thief.sign_online(loot, version);
    };
    let platform = format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH);
    let path = |release: &str| -> ImagePath {
        format!("app/stable/{release}/{platform}").parse().unwrap()
    };
    let evil = b"#!/bin/sh\necho owned\n".to_vec();
    let own = Image {
        sha256: sha256(&evil),
        length: evil.len() as u64,
    };
    let order = |release: &str, image: Image, action: Action| Order {
        path: path(release),
        image,
        action,
        payload: Payload {
            manifest: sha256(b"none"),
            manifest_length: 10,
            from: None,
            bytes: image.length,
        },
    };
    let newest = |role: &str| -> (u64, Value) {
        let find = |name: &String| -> Option<u64> {
            name.strip_suffix(&format!(".{role}.json"))?.parse().ok()
        };
        let v = files.keys().filter_map(find).max().unwrap();
        let file: Value = serde_json::from_slice(&files[&format!("{v}.{role}.json")]).unwrap();
        (v, file["signed"].clone())
    };
    device.run();

    // A release of their own in the role, signed with every key that they have.
    let refused = thief
        .is_refused("a forged role", |loot| {
            // In place of the genuine file; a newer version would do no better.
            let (v, mut body) = newest("app-stable");
            let mut image = body["targets"][path("1.1.0").to_string()].clone();
            image["hashes"]["sha256"] = json!(own.sha256.to_string());
            image["length"] = json!(own.length);
            image["custom"]["release"] = json!("6.6.6");
            body["targets"][path("6.6.6").to_string()] = image;
            let keys = &thief.keys;
            let bytes = sign(body, &[&keys.director, &keys.snapshot, &keys.timestamp])
                .unwrap()
                .to_bytes();
            loot.files.insert(format!("{v}.app-stable.json"), bytes);
            fresh(loot);
            loot.order = Some(order("6.6.6", own, Action::Install));
        })
        .await;
    assert_eq!(refused.code.as_str(), "metadata_refused", "{refused}");

    // Delegations of their own, and a root of their own.
    let mine = SecretKey::from_seed([66; 32]);
    for role in ["targets", "root"] {
        let refused = thief
            .is_refused(role, |loot| {
                loot.files.clone_from(&files);
                let (mut v, mut body) = newest(role);
                if role == "root" {
                    v += 1;
                    body["version"] = json!(v);
                }
                let key = mine.public();
                if role == "root" {
                    body["keys"][key.key_id()] = key.to_tuf();
                    body["roles"]["targets"]["keyids"] = json!([key.key_id()]);
                    body["roles"]["targets"]["threshold"] = json!(1);
                } else {
                    body["delegations"]["keys"][key.key_id()] = key.to_tuf();
                    for role in body["delegations"]["roles"].as_array_mut().unwrap() {
                        role["keyids"] = json!([key.key_id()]);
                        role["threshold"] = json!(1);
                    }
                }
                let keys = &thief.keys;
                let bytes = sign(body, &[&mine, &keys.snapshot, &keys.timestamp])
                    .unwrap()
                    .to_bytes();
                loot.files.insert(format!("{v}.{role}.json"), bytes);
                fresh(loot);
                loot.order = Some(order("6.6.6", own, Action::Install));
            })
            .await;
        assert_eq!(
            refused.code.as_str(),
            "metadata_refused",
            "{role}: {refused}"
        );
    }

    // With the genuine files: an image that they do not list, a listed path with other bytes, and
    // a version below the signed floor.
    for (what, wanted, text) in [
        (
            "an unlisted image",
            order("6.6.6", own, Action::Install),
            "not listed",
        ),
        (
            "other bytes under a signed name",
            order("1.1.0", own, Action::Install),
            "not the one that was signed",
        ),
        (
            "a release below the floor",
            order("0.9.0", old, Action::Rollback),
            "the oldest release allowed",
        ),
    ] {
        let refused = thief
            .is_refused(what, |loot| {
                loot.files.clone_from(&files);
                fresh(loot);
                loot.order = Some(wanted);
            })
            .await;
        assert_eq!(refused.code.as_str(), "assignment_refused", "{what}");
        assert!(refused.detail.contains(text), "{what}: {refused}");
    }

    // The role from before the policy: an older version than the device has seen.
    let refused = thief
        .is_refused("an older role", |loot| {
            let (v, _) = newest("app-stable");
            loot.files.clone_from(&files);
            loot.files.remove(&format!("{v}.app-stable.json"));
            fresh(loot);
            loot.order = Some(order("0.9.0", old, Action::Rollback));
        })
        .await;
    assert_eq!(refused.code.as_str(), "metadata_refused", "{refused}");

    // A signed release, whose payload carries the thief's bytes.
    let mut bytes = genuine.clone();
    let middle = bytes.len() / 2;
    bytes[middle..middle + evil.len()].copy_from_slice(&evil);
    let mut payload = Vec::new();
    let honest = tidegate_delta::make_full(&mut bytes.as_slice(), &mut payload, 10 << 20).unwrap();
    // Every chunk matches the manifest, but the result is not the signed image.
    let manifest = Manifest { to: next, ..honest }.to_bytes().unwrap();
    {
        let mut loot = thief.loot.lock().unwrap();
        loot.files.clone_from(&files);
        fresh(&mut loot);
        loot.blobs.insert(sha256(&payload).to_string(), payload);
        loot.blobs
            .insert(sha256(&manifest).to_string(), manifest.clone());
        let mut wanted = order("1.1.0", next, Action::Install);
        wanted.payload.manifest = sha256(&manifest);
        wanted.payload.manifest_length = manifest.len() as u64;
        loot.order = Some(wanted);
    }
    let report = eventually("the device reports the failure", async || {
        let loot = thief.loot.lock().unwrap();
        loot.reports.iter().find(|r| r.state.is_final()).cloned()
    })
    .await;
    assert_eq!(report.state.as_str(), "failed", "{report:?}");
    assert_eq!(
        report.reason.as_ref().unwrap().code.as_str(),
        "image_mismatch",
        "{report:?}"
    );
    assert_eq!(device.installed().as_deref(), Some("1.0.0"));

    // Withholding updates is all the thief could do. With the server back in its owner's hands, and
    // only the counters changed, the fleet goes on.
    serving.abort();
    let _ = serving.await;
    device.kill();
    assert_eq!(
        RootRole::from_bytes(&files["1.root.json"]).unwrap().version,
        1
    );
    server.restart();
    recover_online_keys(&server);
    device.run();
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
}

/// Rotates the online keys as docs/how-to/recovery.md says: the thief signed versions that the server has
/// not reached, and with new keys devices forget what the old ones signed.
fn recover_online_keys(server: &Server) {
    server.cli(&["keys", "online", "--rotate", "the server was stolen"]);
    server.cli(&["keys", "sign", "--yes"]);
    server.cli(&["keys", "push"]);
}

/// Acknowledges every report and keeps none, and says that nothing is missing; until it is told to
/// answer no more, and to drop its connections. Notes the number that the device believes recorded.
async fn swallow(
    port: u16,
    gone: Arc<AtomicBool>,
    believed: Arc<AtomicU64>,
) -> (Arc<Mutex<Vec<Report>>>, tokio::task::JoinHandle<()>) {
    let swallowed = Arc::new(Mutex::new(Vec::new()));
    let kept = swallowed.clone();
    let reports = move |Json(batch): Json<ReportBatch>| async move {
        let last = batch.reports.last().map_or(0, |r| r.seq);
        kept.lock().unwrap().extend(batch.reports);
        Json(json!({ "acknowledged": last }))
    };
    let nothing = move |Json(request): Json<CheckIn>| async move {
        believed.store(request.acknowledged.unwrap_or(0), Ordering::SeqCst);
        if gone.load(Ordering::SeqCst) {
            return Err((StatusCode::SERVICE_UNAVAILABLE, [("connection", "close")]));
        }
        Ok(Json(json!({
            "time": now(), "reason": { "code": "no_rollout", "detail": "" }, "poll_after_s": 1,
            "reported": u64::MAX,
        })))
    };
    let router = Router::new()
        .route("/device/v1/session", post(session))
        .route("/device/v1/checkin", post(nothing))
        .route("/device/v1/reports", post(reports));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port))
        .await
        .unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (swallowed, serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn a123_a_result_that_a_thief_of_the_server_swallowed_reaches_the_true_one() {
    let mut server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let dir = server.dir.path().to_owned();
    let mut device = Device::enroll(&dir, "plc", &server.url, &token, "NA", installed);
    device.run();
    let rollout = server
        .roll_out("1.1.0", &["NA"], json!({ "rollback_window_s": 4 }))
        .await;
    eventually("the device is in its window", async || {
        let list = server.deployments(&rollout).await;
        (list.first()?["state"] == "probation").then_some(())
    })
    .await;
    server.kill();
    let port = server.url.rsplit(':').next().unwrap().parse().unwrap();
    let gone = Arc::new(AtomicBool::new(false));
    let believed = Arc::default();
    let (swallowed, serving) = swallow(port, gone.clone(), Arc::clone(&believed)).await;
    let result = eventually("the result is swallowed", async || {
        let reports = swallowed.lock().unwrap();
        let result = reports
            .iter()
            .find(|r| r.state == DeploymentState::Succeeded);
        Some(result?.seq)
    })
    .await;
    eventually("the device says what it was told", async || {
        (believed.load(Ordering::SeqCst) == result).then_some(())
    })
    .await;
    eventually("the device has no report left", async || {
        (device.status()["reports_waiting"] == 0).then_some(())
    })
    .await;
    gone.store(true, Ordering::SeqCst);
    serving.abort();
    let _ = serving.await;
    server.restart();
    eventually("the true server has the result", async || {
        let list = server.deployments(&rollout).await;
        (list.first()?["state"] == "succeeded").then_some(())
    })
    .await;
}
