//! Operators of the control plane: their requests, their tokens, and who counts as whom.

use serde_json::{Value, json};
use tidegate_protocol::Timestamp;
use tidegate_server::config::{Clock, Settings};
use tidegate_server::openapi;
use tidegate_tests::{Database, Server};

/// Field that no body has and parameter that no operation has.
const STRAY: &str = "stray_field";

/// Smallest value that a schema of the document allows.
fn smallest(document: &Value, schema: &Value) -> Value {
    let schema = resolved(document, schema);
    match schema["type"].as_str() {
        Some("object") => {
            let mut object = json!({});
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().unwrap();
                object[name] = smallest(document, &schema["properties"][name]);
            }
            object
        }
        Some("array") => json!([]),
        Some("integer") => json!(1),
        Some("boolean") => json!(false),
        Some("string") => json!("x"),
        other => panic!("a body of type {other:?}: {schema}"),
    }
}

/// Follows a reference, and joins the parts of a schema that has several.
fn resolved(document: &Value, schema: &Value) -> Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let path = reference.trim_start_matches('#');
        return resolved(document, document.pointer(path).unwrap());
    }
    let Some(parts) = schema["allOf"].as_array() else {
        return schema.clone();
    };
    let mut joined = json!({ "type": "object", "properties": {}, "required": [] });
    for part in parts {
        let part = resolved(document, part);
        for (name, property) in part["properties"].as_object().into_iter().flatten() {
            joined["properties"][name] = property.clone();
        }
        let needed = part["required"].as_array().cloned().unwrap_or_default();
        joined["required"].as_array_mut().unwrap().extend(needed);
    }
    joined
}

/// Bodies of a schema with a stray field: in the body itself, and in each object of its lists.
fn strays(document: &Value, schema: &Value) -> Vec<Value> {
    let body = smallest(document, schema);
    let mut outer = body.clone();
    outer[STRAY] = json!(true);
    let mut all = vec![outer];
    let schema = resolved(document, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let items = resolved(document, &property["items"]);
        if items["type"] == "object" {
            let mut inner = smallest(document, &items);
            inner[STRAY] = json!(true);
            let mut with = body.clone();
            with[name] = json!([inner]);
            all.push(with);
        }
    }
    all
}

#[tokio::test]
async fn a94_a_field_or_parameter_that_nobody_knows_is_refused_by_name_everywhere() {
    let server = Server::start().await;
    let document: Value = serde_json::from_str(&openapi().to_json().unwrap()).unwrap();
    let (mut bodies, mut parameters) = (0, 0);
    for (path, methods) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/api/v1/") {
            continue;
        }
        let concrete = path
            .replace("{product}", "app")
            .replace("{version}", "1.0.0")
            .replace(
                "/rollouts/{id}",
                &format!("/rollouts/rol_{}", "0".repeat(32)),
            )
            .replace("{id}", &format!("dev_{}", "0".repeat(32)));
        for (method, operation) in methods.as_object().unwrap() {
            let send = async |path: &str, body: Option<Value>| {
                let sent = format!("{method} {path} {body:?}");
                let method = method.to_uppercase();
                let (status, problem) = server.call(&method, path, body, &server.token).await;
                let text = problem.to_string();
                assert_eq!(status, 400, "{sent}: {text}");
                assert_eq!(problem["code"], "invalid_request", "{sent}: {text}");
                assert!(text.contains(STRAY), "{sent}: {text}");
            };
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            // What a person carries back from a device is in the device's words, and a newer agent may
            // have written it.
            let carried = path.ends_with("/reports");
            if !schema.is_null() && !carried {
                for body in strays(&document, schema) {
                    send(&concrete, Some(body)).await;
                    bodies += 1;
                }
            }
            let body = (!schema.is_null()).then(|| json!({}));
            send(&format!("{concrete}?{STRAY}=1"), body).await;
            parameters += 1;
        }
    }
    assert!(bodies >= 35 && parameters >= 55, "{bodies}, {parameters}");
    // Refused before anything is done: neither of these made a token.
    for body in [
        json!({ "name": "eve", "role": "viewer", "admin": true }),
        json!({ "name": "eve", "role": "viewer", "valid_for_s": 60 }),
    ] {
        let made = server.call("POST", "/api/v1/tokens", Some(body), &server.token);
        assert_eq!(made.await.0, 400);
    }
    assert_eq!(
        server.get("/api/v1/tokens").await.as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn a_dry_run_asked_for_in_the_address_is_refused_and_not_carried_out() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let id = server.roll_out("1.0.0", &["NOWHERE"], json!({})).await;
    let path = format!("/api/v1/rollouts/{id}/halt?dry_run=true");
    let body = Some(json!({ "reason": "what if" }));
    let (status, problem) = server.call("POST", &path, body, &server.token).await;
    assert_eq!(status, 400, "{problem}");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("`dry_run`"), "{detail}");
    let rollout = server.get(&format!("/api/v1/rollouts/{id}")).await;
    assert_ne!(rollout["state"], "halted");
}

/// Makes a token by the API; returns its id and its secret.
async fn token(server: &Server, by: &str, body: Value) -> (String, String) {
    let (status, made) = server.call("POST", "/api/v1/tokens", Some(body), by).await;
    assert_eq!(status, 201, "{made}");
    let text = |name: &str| made[name].as_str().unwrap().to_owned();
    (text("id"), text("secret"))
}

async fn names(server: &Server, query: &str) -> Vec<String> {
    let list = server.get(&format!("/api/v1/tokens{query}")).await;
    let names = list.as_array().unwrap().iter();
    names
        .map(|t| t["name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn a95_a_name_is_never_given_again_and_every_token_has_an_end() {
    let server = Server::start().await;
    let make = async |body: Value| {
        server
            .call("POST", "/api/v1/tokens", Some(body), &server.token)
            .await
    };
    let (status, ann) = make(json!({ "name": "ann", "role": "viewer" })).await;
    assert_eq!((status, &ann["state"]), (201, &json!("live")));
    let days = |token: &Value| {
        let at = |name: &str| -> jiff::Timestamp { token[name].as_str().unwrap().parse().unwrap() };
        at("expires_at").duration_since(at("created_at")).as_hours() / 24
    };
    assert_eq!(days(&ann), 90);
    let year = json!({ "name": "ci", "role": "viewer", "valid_s": 365 * 86_400 });
    assert_eq!(days(&make(year).await.1), 365);
    for (body, word) in [
        (
            json!({ "name": "x", "role": "viewer", "valid_s": 365 * 86_400 + 1 }),
            "valid_s",
        ),
        (
            json!({ "name": "x", "role": "viewer", "valid_s": u64::MAX }),
            "valid_s",
        ),
        (
            json!({ "name": "x", "role": "admin", "break_glass": true }),
            "role",
        ),
        (json!({ "name": "planner", "role": "viewer" }), "name"),
        (json!({ "name": "bob\u{200b}", "role": "viewer" }), "name"),
        (json!({ "name": "bob ", "role": "viewer" }), "name"),
    ] {
        let sent = body.to_string();
        let (status, problem) = make(body).await;
        let text = problem["detail"].as_str().unwrap();
        assert!(status == 400 && text.starts_with(word), "{sent}: {problem}");
    }
    // Neither while it is there nor after it is gone, and not in capital letters either.
    let taken = async |name: &str| {
        let (status, problem) = make(json!({ "name": name, "role": "admin" })).await;
        assert_eq!(
            (status, &problem["code"]),
            (409, &json!("conflict")),
            "{name}"
        );
    };
    taken("ann").await;
    let path = format!("/api/v1/tokens/{}", ann["id"].as_str().unwrap());
    let revoked = server.call("DELETE", &path, None, &server.token).await;
    assert_eq!(revoked.0, 204);
    for name in ["ann", "ANN", "admin"] {
        taken(name).await;
    }
    assert_eq!(names(&server, "").await, ["admin", "ci"]);
    assert_eq!(names(&server, "?all=true").await, ["admin", "ann", "ci"]);
    // Two who come with one name at the same time are not both let in.
    let same = (0..8).map(|_| make(json!({ "name": "eve", "role": "viewer" })));
    let all = futures::future::join_all(same).await;
    assert_eq!(all.iter().filter(|(status, _)| *status == 201).count(), 1);
    let first = server.get("/api/v1/whoami").await;
    assert!(
        first["expires_at"].is_string(),
        "the first one ends as well"
    );
}

#[tokio::test]
async fn a_token_that_has_expired_lets_nobody_in_and_is_not_listed_as_live() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(Timestamp::from_secs(1_900_000_000));
    let settings = Settings {
        clock: clock.clone(),
        ..tidegate_tests::settings(dir.path())
    };
    let running = tidegate_server::start(settings).await.unwrap();
    let first = running.first_token.clone().unwrap();
    let http = reqwest::Client::new();
    let url = format!("http://{}/api/v1", running.address);
    let get = async |path: &str, token: &str| {
        let sent = http.get(format!("{url}/{path}")).bearer_auth(token).send();
        let response = sent.await.unwrap();
        let status = response.status().as_u16();
        (status, response.json::<Value>().await.unwrap())
    };
    let body = json!({ "name": "guest", "role": "viewer", "valid_s": 60 });
    let made = http.post(format!("{url}/tokens")).bearer_auth(&first);
    let guest: Value = made.json(&body).send().await.unwrap().json().await.unwrap();
    let secret = guest["secret"].as_str().unwrap();
    assert_eq!(get("whoami", secret).await.0, 200);
    clock.advance(std::time::Duration::from_secs(61));
    assert_eq!(get("whoami", secret).await.0, 401);
    let (_, live) = get("tokens", &first).await;
    assert_eq!(live.as_array().unwrap().len(), 1, "{live}");
    let (_, all) = get("tokens?all=true", &first).await;
    let mut listed = all.as_array().unwrap().iter();
    let guest = listed.find(|token| token["name"] == "guest").unwrap();
    assert_eq!(guest["state"], "expired");
    running.stop().await;
}

#[tokio::test]
async fn a96_the_last_administrator_is_not_lost_without_a_word_and_the_host_lets_one_in_again() {
    let server = Server::start_with(Database::Sqlite, &["--metrics-listen", "127.0.0.1:0"]).await;
    let first = server.get("/api/v1/tokens").await[0]["id"].clone();
    let first = first.as_str().unwrap();
    let (code, _, said) = server.cli_raw(&["token", "revoke", first]);
    assert!(code != 0 && said.contains("--last-admin"), "{said}");
    // One that ends within days does not count as another, and the metric knows the longest.
    let short = json!({ "name": "guest", "role": "admin", "valid_s": 3_600 });
    token(&server, &server.token, short).await;
    assert_ne!(server.cli_raw(&["token", "revoke", first]).0, 0);
    let metrics = async || {
        reqwest::get(&server.metrics)
            .await
            .unwrap()
            .text()
            .await
            .unwrap()
    };
    let left = |text: &str| -> i64 {
        let line = text
            .lines()
            .find(|l| l.starts_with("tidegate_administrator_expires_seconds "));
        line.unwrap().rsplit(' ').next().unwrap().parse().unwrap()
    };
    let year = 365 * 86_400;
    assert!((year - 600..=year).contains(&left(&metrics().await)));
    let doctor = server.cli_raw(&["doctor"]).1;
    assert!(doctor.contains("last administrator's token"), "{doctor}");
    // With the word it goes, and nobody can make another by the API.
    server.cli(&["token", "revoke", first, "--last-admin"]);
    assert_eq!(
        server
            .call("GET", "/api/v1/whoami", None, &server.token)
            .await
            .0,
        401
    );
    // Somewhere else there is no database, and none is made.
    let elsewhere = server.dir.path().join("elsewhere").display().to_string();
    let (code, _, said) = server.cli_raw(&["token", "rescue", "ann", "--data", &elsewhere]);
    assert!(code != 0 && said.contains("no database"), "{said}");
    assert!(!std::path::Path::new(&elsewhere).exists());
    // The server runs on, and takes over who comes in by its host.
    let ann = server.person("ann", "admin").await;
    let (status, who) = server.call("GET", "/api/v1/whoami", None, &ann).await;
    assert_eq!((status, &who["role"]), (200, &json!("admin")), "{who}");
    let (_, tokens) = server.call("GET", "/api/v1/tokens", None, &ann).await;
    let made = tokens
        .as_array()
        .unwrap()
        .iter()
        .find(|t| t["name"] == "ann");
    assert!(made.unwrap()["made_by"].is_null(), "{tokens}");
    assert!(made.unwrap()["expires_at"].is_string(), "{tokens}");
    let (code, _, said) = server.rescue("ann", "admin");
    assert!(
        code != 0 && said.contains("ann-2"),
        "a name is never given again: {said}"
    );
}

/// Drafts a rollout of a product that needs one approval and has it asked for; returns its path and
/// plan.
async fn asked(server: &Server, by: &str) -> (String, String) {
    let body = json!({
        "product": "app", "release": "1.0.0", "waves": [{ "name": "all", "selector": "region=NOWHERE" }],
    });
    let (status, draft) = server
        .call("POST", "/api/v1/rollouts", Some(body), by)
        .await;
    assert_eq!(status, 201, "{draft}");
    let path = format!("/api/v1/rollouts/{}", draft["id"].as_str().unwrap());
    let start = format!("{path}/start");
    let (_, asked) = server.call("POST", &start, Some(json!({})), by).await;
    let plan = asked["asked"]["plan"].as_str().unwrap().to_owned();
    (path, plan)
}

async fn approve(server: &Server, path: &str, plan: &str, by: &str) -> (u16, Value) {
    let path = format!("{path}/approve");
    let body = Some(json!({ "plan": plan }));
    server.call("POST", &path, body, by).await
}

#[tokio::test]
async fn a97_four_eyes_are_two_people_however_many_tokens_one_of_them_makes() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    server.cli(&["product", "set", "app", "--approvals", "1"]);
    let admin = server.token.clone();
    let (path, plan) = asked(&server, &admin).await;
    // Made by the one who asks, made by what they made, and renewed after the first is gone.
    let body = |name: &str, role: &str| json!({ "name": name, "role": role });
    let (bob2_id, bob2) = token(&server, &admin, body("bob2", "admin")).await;
    let (_, bob3) = token(&server, &bob2, body("bob3", "release_manager")).await;
    for own in [&bob2, &bob3] {
        let (status, problem) = approve(&server, &path, &plan, own).await;
        assert_eq!(status, 403, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("counts as the same person as admin"),
            "{detail}"
        );
    }
    // The other way round, and between two that one person made.
    let (_, ann) = token(&server, &admin, body("ann", "release_manager")).await;
    let (of_ann, plan_of_ann) = asked(&server, &ann).await;
    for own in [&admin, &bob2, &bob3] {
        assert_eq!(approve(&server, &of_ann, &plan_of_ann, own).await.0, 403);
    }
    let revoke = format!("/api/v1/tokens/{bob2_id}");
    assert_eq!(server.call("DELETE", &revoke, None, &admin).await.0, 204);
    assert_eq!(
        approve(&server, &path, &plan, &bob3).await.0,
        403,
        "its maker is gone"
    );
    let (cid_id, cid) = token(&server, &admin, body("cid", "release_manager")).await;
    assert_eq!(
        approve(&server, &path, &plan, &cid).await.0,
        403,
        "a new name"
    );
    // Nobody confirms a token of their own making, with whatever they made.
    let confirm = format!("/api/v1/tokens/{cid_id}/confirm");
    let (_, dan) = token(&server, &admin, body("dan", "admin")).await;
    for own in [&admin, &dan] {
        let (status, problem) = server.call("POST", &confirm, None, own).await;
        assert_eq!(status, 403, "{problem}");
    }
    // Somebody else on the host does: from then on they are two.
    let eve = server.person("eve", "admin").await;
    let (status, problem) = server.call("POST", &confirm, None, &eve).await;
    assert_eq!(status, 204, "{problem}");
    let (_, tokens) = server.call("GET", "/api/v1/tokens", None, &eve).await;
    let person = |name: &str| {
        let tokens = tokens.as_array().unwrap();
        tokens.iter().find(|t| t["name"] == name).unwrap()["person"].clone()
    };
    assert_eq!(
        (person("cid"), person("ann")),
        (json!("cid"), json!("admin"))
    );
    let (status, started) = approve(&server, &path, &plan, &cid).await;
    assert_eq!(
        (status, &started["state"]),
        (200, &json!("running")),
        "{started}"
    );
    // Two tokens of hers are one approval.
    let (_, eve2) = token(&server, &eve, body("eve2", "release_manager")).await;
    server.cli(&["product", "set", "app", "--approvals", "2"]);
    let (path, plan) = asked(&server, &admin).await;
    for hers in [&eve, &eve2] {
        let (status, still) = approve(&server, &path, &plan, hers).await;
        assert_eq!(
            (status, &still["asked"]["missing"]),
            (200, &json!(1)),
            "{still}"
        );
    }
    let (_, started) = approve(&server, &path, &plan, &cid).await;
    assert_eq!(started["state"], "running", "{started}");
}

#[tokio::test]
async fn a116_fewer_approvals_wait_for_as_many_as_were_needed_so_far() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let path = "/api/v1/products/app/settings";
    let put = async |body: Value, by: &str| server.call("PUT", path, Some(body), by).await;
    let admin = server.token.clone();
    let guarded = json!({ "approvals": 2, "min_version": "1.0.0" });
    assert_eq!(put(guarded.clone(), &admin).await.0, 200, "more is at once");
    // Off, lower, left out, and hidden behind another change: each waits, and changes nothing.
    let mut plans = std::collections::BTreeSet::new();
    for weaker in [
        json!({ "approvals": 0 }),
        json!({ "approvals": 1 }),
        json!({}),
        json!({ "approvals": 1, "min_version": "9.0.0" }),
    ] {
        let (status, answer) = put(weaker, &admin).await;
        assert_eq!(status, 202, "{answer}");
        assert_eq!(
            (&answer["approvals"], &answer["min_version"]),
            (&json!(2), &json!("1.0.0"))
        );
        assert_eq!(answer["asked"]["missing"], 2, "{answer}");
        plans.insert(answer["asked"]["plan"].as_str().unwrap().to_owned());
    }
    // The way round it is shut, too: what the old rule guards still asks for two.
    let (rollout, _) = asked(&server, &admin).await;
    assert_eq!(server.get(&rollout).await["asked"]["needed"], 2);
    let shown = server.cli(&["product", "show", "app"]);
    assert!(shown.contains("2 of 2 approvals are missing"), "{shown}");
    let (_, answer) = put(json!({ "approvals": 1, "min_version": "1.0.0" }), &admin).await;
    let plan = answer["asked"]["plan"].as_str().unwrap().to_owned();
    assert!(!plans.contains(&plan), "another change is another plan");
    // Not the one who asked, nor what they made, nor for the plan of an earlier request.
    let body = json!({ "name": "bob2", "role": "admin" });
    let (_, bob2) = token(&server, &admin, body).await;
    for own in [&admin, &bob2] {
        assert_eq!(approve(&server, path, &plan, own).await.0, 403);
    }
    let ann = server.person("ann", "release_manager").await;
    let cid = server.person("cid", "admin").await;
    let old = plans.first().unwrap();
    assert_eq!(approve(&server, path, old, &ann).await.0, 412);
    let (status, still) = approve(&server, path, &plan, &ann).await;
    assert_eq!((status, &still["approvals"]), (202, &json!(2)), "{still}");
    assert_eq!(
        approve(&server, path, &plan, &ann).await.0,
        202,
        "twice is once"
    );
    let (status, lower) = approve(&server, path, &plan, &cid).await;
    assert_eq!((status, &lower["approvals"]), (200, &json!(1)), "{lower}");
    assert!(lower["asked"].is_null());
    // A request is void once the settings have changed.
    let (_, answer) = put(json!({ "approvals": 0 }), &admin).await;
    let plan = answer["asked"]["plan"].as_str().unwrap().to_owned();
    assert_eq!(put(guarded, &admin).await.0, 200);
    assert_eq!(approve(&server, path, &plan, &ann).await.0, 409);
}

#[tokio::test]
async fn a117_a_token_for_the_safe_stops_reads_incidents_alone_and_raises_an_alarm() {
    let options = ["--metrics-listen", "127.0.0.1:0"];
    let server = Server::start_with(Database::Sqlite, &options).await;
    server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let id = server.roll_out("1.1.0", &["NOWHERE"], json!({})).await;
    let safe = server.cli(&["token", "create", "safe", "--break-glass"]);
    let safe = safe.trim();
    let listed = server.get("/api/v1/tokens").await;
    let listed = &listed.as_array().unwrap()[1];
    assert_eq!(
        (&listed["break_glass"], &listed["role"]),
        (&json!(true), &json!("responder"))
    );
    assert!(listed["expires_at"].is_null(), "{listed}");
    for (method, path) in [
        ("GET", "/api/v1/devices"),
        ("GET", "/api/v1/rollouts"),
        ("GET", "/api/v1/tokens"),
        ("GET", "/api/v1/holds"),
        ("GET", "/api/v1/trust"),
    ] {
        let (status, problem) = server.call(method, path, None, safe).await;
        assert_eq!(status, 403, "{path}: {problem}");
    }
    let halt = format!("/api/v1/rollouts/{id}/halt");
    let body = Some(json!({ "reason": "fire" }));
    let (status, halted) = server.call("POST", &halt, body, safe).await;
    assert_eq!(
        (status, &halted["state"]),
        (200, &json!("halted")),
        "{halted}"
    );
    let back = "/api/v1/products/app/releases/1.1.0/rollback";
    let body = Some(json!({ "reason": "fire" }));
    let (status, incident) = server.call("POST", back, body, safe).await;
    assert_eq!(status, 200, "{incident}");
    assert_eq!(
        server.call("GET", "/api/v1/incidents", None, safe).await.0,
        200
    );
    // Each of the eight uses, refused ones as well, is counted and logged with what it was.
    let metrics = reqwest::get(&server.metrics)
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        metrics.contains("tidegate_break_glass_uses_total 8\n"),
        "{metrics}"
    );
    let log = server.log();
    assert!(log.contains("POST /api/v1/rollouts/{id}/halt"), "{log}");
    assert!(log.contains("GET /api/v1/tokens"), "{log}");
}
