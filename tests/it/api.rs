//! The API: roles, problems, pages, idempotency, dry runs, ranges, uploads.

use serde_json::{Value, json};
use tidegate_server::openapi;
use tidegate_tests::{Device, Server};

/// Walks every route of the OpenAPI document as every role, and as nobody.
#[tokio::test]
async fn every_route_lets_in_exactly_the_roles_that_it_declares() {
    let server = Server::start().await;
    let mut tokens = vec![("nobody", String::new())];
    for role in ["viewer", "responder", "release_manager", "admin"] {
        let made = server
            .post(
                "/api/v1/tokens",
                json!({ "name": format!("a {role}"), "role": role }),
            )
            .await;
        tokens.push((role, made["secret"].as_str().unwrap().to_owned()));
    }
    let document: Value = serde_json::from_str(&openapi().to_json().unwrap()).unwrap();
    let mut walked = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let Some(need) = operation["security"][0]["token"][0].as_str() else {
                // Devices sign their requests; business servers ask for what anyone may know.
                let open = ["/device/v1/", "/v1/gate/"];
                assert!(
                    open.iter().any(|prefix| path.starts_with(prefix)),
                    "{method} {path} declares no role"
                );
                continue;
            };
            let concrete = path
                .replace("{product}", "app")
                .replace("{version}", "1.0.0")
                .replace("{id}", "rol_00000000000000000000000000000000");
            for (role, token) in &tokens {
                let allowed = match need {
                    "read" => *role != "nobody",
                    "respond" => matches!(*role, "responder" | "release_manager" | "admin"),
                    "release" => matches!(*role, "release_manager" | "admin"),
                    "administer" => *role == "admin",
                    other => panic!("{path} declares {other}"),
                };
                let body = (method != "get" && method != "delete").then(|| json!({}));
                let method = method.to_uppercase();
                let (status, answer) = server.call(&method, &concrete, body, token).await;
                let refused = status == 401 || status == 403;
                assert_eq!(
                    refused, !allowed,
                    "{method} {path} as {role}: {status} {answer}"
                );
                assert_eq!(
                    status == 401,
                    *role == "nobody",
                    "{method} {path} as {role}: {status}"
                );
                assert_ne!(status, 500, "{method} {path} as {role}: {answer}");
            }
            walked += 1;
        }
    }
    assert!(walked >= 25, "{walked} routes walked");
}

#[tokio::test]
async fn refusals_are_problems_with_stable_codes() {
    let server = Server::start().await;
    let cases = [
        ("GET", "/nowhere", None, 404, "not_found"),
        (
            "DELETE",
            "/api/v1/products",
            None,
            405,
            "method_not_allowed",
        ),
        (
            "POST",
            "/api/v1/products",
            Some(json!({ "name": "../etc" })),
            400,
            "invalid_request",
        ),
        (
            "POST",
            "/api/v1/products",
            Some(json!({})),
            400,
            "invalid_request",
        ),
        (
            "GET",
            "/api/v1/rollouts?limit=0",
            None,
            400,
            "invalid_request",
        ),
        (
            "GET",
            "/api/v1/rollouts?cursor=%21",
            None,
            400,
            "invalid_request",
        ),
        ("GET", "/api/v1/devices/dev_x", None, 400, "invalid_request"),
        ("GET", "/blobs/../../etc/passwd", None, 404, "not_found"),
        ("GET", "/metadata/..%2f..%2fsecret", None, 404, "not_found"),
    ];
    for (method, path, body, status, code) in cases {
        let (got, problem) = server.call(method, path, body, &server.token).await;
        assert_eq!(
            (got, problem["code"].as_str()),
            (status, Some(code)),
            "{method} {path}"
        );
        assert_eq!(problem["status"], status);
    }
    let huge = json!({ "name": "a".repeat(3 << 20) });
    let (status, problem) = server
        .call("POST", "/api/v1/products", Some(huge), &server.token)
        .await;
    assert_eq!((status, problem["code"].as_str()), (413, Some("too_large")));
}

#[tokio::test]
async fn creating_a_rollout_twice_with_one_key_makes_one() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let body = json!({ "product": "app", "release": "1.0.0", "waves": [{ "name": "all" }] });
    let send = async |body: &Value| {
        let response = reqwest::Client::new()
            .post(format!("{}/api/v1/rollouts", server.url))
            .bearer_auth(&server.token)
            .header("idempotency-key", "k-1")
            .json(body)
            .send()
            .await
            .unwrap();
        (
            response.status().as_u16(),
            response.json::<Value>().await.unwrap(),
        )
    };
    let (status, first) = send(&body).await;
    assert_eq!(status, 201, "{first}");
    let (_, again) = send(&body).await;
    assert_eq!(first["id"], again["id"]);
    let mut other = body.clone();
    other["soak_s"] = json!(1);
    let (status, problem) = send(&other).await;
    assert_eq!(
        (status, problem["code"].as_str()),
        (422, Some("idempotency_mismatch"))
    );
    let list = server.get("/api/v1/rollouts").await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_a_stale_edit_is_refused_but_a_halt_never_is() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let mut body = json!({ "product": "app", "release": "1.0.0", "waves": [{ "name": "all" }] });
    body["dry_run"] = json!(true);
    let would = server.post("/api/v1/rollouts", body.clone()).await;
    assert_eq!(would["dry_run"], true);
    assert_eq!(server.get("/api/v1/rollouts").await["items"], json!([]));
    body["dry_run"] = json!(false);
    let id = server.post("/api/v1/rollouts", body).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/api/v1/rollouts/{id}");
    // A device that never answers, so that the wave has one to wait for.
    let token = server.join_token();
    Device::enroll(server.dir.path(), "silent", &server.url, &token, "NA", None);
    let tried = server
        .post(&format!("{path}/start"), json!({ "dry_run": true }))
        .await;
    assert_eq!(tried["state"], "running");
    assert_eq!(server.get(&path).await["state"], "draft");
    server.post(&format!("{path}/start"), json!({})).await;
    let order = |what: &str| {
        reqwest::Client::new()
            .post(format!("{}{path}/{what}", server.url))
            .bearer_auth(&server.token)
            .header("if-match", "\"1\"")
            .json(&json!({ "reason": "test" }))
            .send()
    };
    assert_eq!(order("pause").await.unwrap().status().as_u16(), 412);
    assert_eq!(order("halt").await.unwrap().status().as_u16(), 200);
    let (status, problem) = server
        .call(
            "POST",
            &format!("{path}/halt"),
            Some(json!({})),
            &server.token,
        )
        .await;
    assert_eq!(status, 400, "a halt needs a reason: {problem}");
}

#[tokio::test]
async fn lists_are_read_page_by_page() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    for _ in 0..5 {
        let body = json!({ "product": "app", "release": "1.0.0", "waves": [{ "name": "all" }] });
        server.post("/api/v1/rollouts", body).await;
    }
    let mut ids = Vec::new();
    let mut path = "/api/v1/rollouts?limit=2".to_owned();
    loop {
        let page = server.get(&path).await;
        ids.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|r| r["id"].to_string()),
        );
        let Some(cursor) = page["next_cursor"].as_str() else {
            break;
        };
        path = format!("/api/v1/rollouts?limit=2&cursor={cursor}");
    }
    assert_eq!(ids.len(), 5);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 5);
}

#[tokio::test]
async fn the_link_to_the_next_page_keeps_the_filters() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let token = server.join_token();
    let dir = server.dir.path();
    for (name, region) in [
        ("a", "EU"),
        ("b", "NA"),
        ("c", "EU"),
        ("d", "NA"),
        ("e", "EU"),
    ] {
        Device::enroll(dir, name, &server.url, &token, region, None);
    }
    let client = reqwest::Client::new();
    let mut next = Some("/api/v1/devices?product=app&region=EU&limit=1".to_owned());
    let mut regions = Vec::new();
    while let Some(path) = next {
        let answer = client
            .get(format!("{}{path}", server.url))
            .bearer_auth(&server.token)
            .send()
            .await
            .unwrap();
        let link = answer.headers().get("link").map(|v| v.to_str().unwrap());
        next = link.map(|link| link[1..link.find('>').unwrap()].to_owned());
        let page: Value = answer.json().await.unwrap();
        let items = page["items"].as_array().unwrap();
        regions.extend(
            items
                .iter()
                .map(|d| d["region"].as_str().unwrap().to_owned()),
        );
    }
    assert_eq!(regions, ["EU"; 3]);
    let nobody = "0".repeat(32);
    for path in [
        "devices?product=No%20Name".to_owned(),
        "devices?region=%3Cx%3E".into(),
        format!("rollouts/rol_{nobody}/deployments?state=done"),
        // Filters that these lists do not have would be ignored.
        "rollouts?state=running".into(),
        "devices?state=offered".into(),
        "incidents?product=app".into(),
        format!("devices/dev_{nobody}/events?region=EU"),
    ] {
        let path = format!("/api/v1/{path}");
        let (status, problem) = server.call("GET", &path, None, &server.token).await;
        let code = &problem["code"];
        assert_eq!((status, code), (400, &json!("invalid_request")), "{path}");
    }
}

#[tokio::test]
async fn edits_at_the_same_time_all_count() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let waves = json!([{ "name": "all" }]);
    let body = json!({ "product": "app", "release": "1.0.0", "waves": waves });
    let draft = server.post("/api/v1/rollouts", body).await;
    let path = format!("/api/v1/rollouts/{}", draft["id"].as_str().unwrap());
    let edits = [
        ("max_in_flight", json!(7)),
        ("per_minute", json!(11)),
        ("soak_s", json!(13)),
        ("min_sample", json!(17)),
        ("metered", json!("never")),
    ];
    let sent = edits.iter().map(|(name, value)| {
        let edit = json!({ *name: value });
        server.call("PATCH", &path, Some(edit), &server.token)
    });
    for (status, answer) in futures::future::join_all(sent).await {
        assert_eq!(status, 200, "{answer}");
    }
    let policy = &server.get(&path).await["policy"];
    for (name, value) in edits {
        assert_eq!(policy[name], value, "{policy}");
    }
}

#[tokio::test]
async fn blobs_are_served_in_ranges_and_refused_under_a_wrong_name() {
    let server = Server::start().await;
    let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_be_bytes).collect();
    let sha256 = tidegate_delta::sha256(&bytes).to_string();
    let http = reqwest::Client::new();
    let put = |name: &str, body: Vec<u8>| {
        http.put(format!("{}/api/v1/blobs/{name}", server.url))
            .bearer_auth(&server.token)
            .body(body)
            .send()
    };
    let wrong = put(&"0".repeat(64), bytes.clone()).await.unwrap();
    assert_eq!(wrong.status().as_u16(), 400);
    let get = |name: &str, range: &str, tag: &str| {
        http.get(format!("{}/blobs/{name}", server.url))
            .header("range", range)
            .header("if-range", tag)
            .send()
    };
    assert_eq!(
        get(&"0".repeat(64), "bytes=0-", "")
            .await
            .unwrap()
            .status()
            .as_u16(),
        404
    );
    assert!(
        put(&sha256, bytes.clone())
            .await
            .unwrap()
            .status()
            .is_success()
    );
    let tag = format!("\"{sha256}\"");
    let part = get(&sha256, "bytes=100-199", &tag).await.unwrap();
    assert_eq!(part.status().as_u16(), 206);
    assert_eq!(part.headers()["content-range"], "bytes 100-199/400000");
    assert!(part.bytes().await.unwrap() == bytes[100..200]);
    // Another tag: the whole blob again.
    let whole = get(&sha256, "bytes=100-199", "\"other\"").await.unwrap();
    assert_eq!(whole.status().as_u16(), 200);
    assert!(whole.bytes().await.unwrap() == bytes);
    let outside = get(&sha256, "bytes=400000-", &tag).await.unwrap();
    assert_eq!(outside.status().as_u16(), 416);
    assert_eq!(outside.headers()["content-range"], "bytes */400000");
    assert!(!outside.headers().contains_key("cache-control"));
    let problem: serde_json::Value = outside.json().await.unwrap();
    assert_eq!(problem["code"], "range_not_satisfiable", "{problem}");
}

#[tokio::test]
async fn health_readiness_and_the_document_are_served() {
    let server = Server::start().await;
    assert_eq!(server.get("/healthz").await["status"], "ok");
    let ready = server.get("/readyz").await;
    assert_eq!(
        (&ready["database"], &ready["blobs"]),
        (&true.into(), &true.into())
    );
    assert_eq!(
        server.get("/api/v1/openapi.json").await["info"]["title"],
        "Tidegate"
    );
    server.cli(&["healthcheck", "--url", &server.url]);
    // A mount that is lost leaves its folder behind, empty.
    let blobs = server.dir.path().join("data/blobs");
    std::fs::remove_dir_all(&blobs).unwrap();
    std::fs::create_dir(&blobs).unwrap();
    let answer = reqwest::get(format!("{}/readyz", server.url))
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 503);
    let ready: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(ready["blobs"], false);
}

#[tokio::test]
async fn a_release_goes_forward_only_and_skipping_needs_a_reason() {
    let server = Server::start().await;
    server.cli(&["keys", "init", "--no-passphrase"]);
    let tree = tidegate_tests::application(server.dir.path(), "1.0.0", true);
    let tree = tree.display().to_string();
    let publish = [
        "release",
        "publish",
        &tree,
        "--product",
        "app",
        "--release",
        "1.0.0",
    ];
    server.cli(&publish);
    // Publishing the same again is idempotent.
    server.cli(&publish);
    let (code, _, err) = server.cli_raw(&["release", "promote", "app", "1.0.0", "--to", "ga"]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("skips alpha"), "{err}");
    for stage in ["alpha", "beta", "ga"] {
        server.cli(&["release", "promote", "app", "1.0.0", "--to", stage]);
    }
    let (code, _, err) = server.cli_raw(&["release", "promote", "app", "1.0.0", "--to", "alpha"]);
    assert_eq!(code, 5, "{err}");
    assert!(err.contains("forward only"), "{err}");
    server.cli(&["release", "withdraw", "app", "1.0.0", "--reason", "leaks"]);
    let (code, _, err) = server.cli_raw(&[
        "rollout",
        "start",
        "--product",
        "app",
        "--release",
        "1.0.0",
        "--regions",
        "NA",
    ]);
    assert_eq!(code, 5, "{err}");
    // Other bytes under the same version are refused before anything is uploaded.
    std::fs::write(format!("{tree}/VERSION"), "changed").unwrap();
    let (code, _, err) = server.cli_raw(&publish);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("never changes"), "{err}");
}

#[tokio::test]
async fn a_cursor_of_one_list_is_refused_by_another_and_by_other_filters() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let mut path = String::new();
    for _ in 0..2 {
        let body = json!({ "product": "app", "release": "1.0.0", "waves": [{ "name": "all" }] });
        let rollout = server.post("/api/v1/rollouts", body).await;
        path = format!("/api/v1/rollouts/{}", rollout["id"].as_str().unwrap());
        let hold = json!({ "product": "app", "release": "1.0.0", "reason": "x" });
        server.post("/api/v1/holds", hold).await;
    }
    let start = json!({ "at": "2200-01-01T00:00:00Z" });
    server.post(&format!("{path}/start"), start).await;
    let lists = [
        "/api/v1/rollouts?".to_owned(),
        "/api/v1/rollouts?product=app&".into(),
        "/api/v1/holds?".into(),
        "/api/v1/holds?product=app&".into(),
        format!("{path}/events?"),
    ];
    for of in &lists {
        let first = server.get(&format!("{of}limit=1")).await;
        let cursor = first["next_cursor"]
            .as_str()
            .unwrap_or_else(|| panic!("{of}: {first}"));
        for list in &lists {
            let path = format!("{list}limit=1&cursor={cursor}");
            let (status, answer) = server.call("GET", &path, None, &server.token).await;
            if list == of {
                assert_eq!(status, 200, "{path}: {answer}");
                assert_ne!(answer["items"], first["items"], "{path}");
                continue;
            }
            assert_eq!(status, 400, "{path}: {answer}");
            let detail = answer["detail"].as_str().unwrap();
            assert!(
                detail.contains("another list, or of other filters"),
                "{detail}"
            );
        }
    }
    // Events: of each rollout its own. The number alone is what a command line of before writes.
    let other = server.get("/api/v1/rollouts").await["items"][1]["id"].clone();
    let other = format!("/api/v1/rollouts/{}/events", other.as_str().unwrap());
    let cursor = tidegate_api::cursor(&format!("{path}/events"), "1");
    let (status, _) = server
        .call(
            "GET",
            &format!("{other}?cursor={cursor}"),
            None,
            &server.token,
        )
        .await;
    assert_eq!(status, 400);
    // "1", as `rollout watch` wrote it: understood by the list of events, by no other.
    for (list, status) in [
        (other.as_str(), 200),
        ("/api/v1/holds", 400),
        ("/api/v1/rollouts", 400),
    ] {
        let path = format!("{list}?cursor=MQ");
        assert_eq!(
            server.call("GET", &path, None, &server.token).await.0,
            status,
            "{path}"
        );
    }
}

#[tokio::test]
async fn what_is_said_of_a_release_that_is_offered_no_more_names_what_helps() {
    let server = Server::start().await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    server.cli(&["release", "withdraw", "app", "1.0.0", "--reason", "leaks"]);
    let promote = |release: &str, to: &str| {
        let path = format!("/api/v1/products/app/releases/{release}/promote");
        let body = Some(json!({ "to": to, "reason": "r" }));
        let (server, token) = (&server, &server.token);
        async move { server.call("POST", &path, body, token).await }
    };
    assert_eq!(promote("1.1.0", "eol").await.0, 200);
    let roll_out = |release: &str| {
        let body = json!({ "product": "app", "release": release, "waves": [{ "name": "all" }] });
        let (server, token) = (&server, &server.token);
        async move {
            server
                .call("POST", "/api/v1/rollouts", Some(body), token)
                .await
        }
    };
    for (release, remedy) in [
        ("1.0.0", "under a new version"),
        ("1.1.0", "a newer release"),
    ] {
        let (status, refused) = roll_out(release).await;
        let detail = refused["detail"].as_str().unwrap();
        assert_eq!(status, 409, "{refused}");
        assert!(
            detail.contains(remedy) && !detail.contains("promote"),
            "{detail}"
        );
        // Nor does a promotion help, and that says so too.
        let (status, refused) = promote(release, "ga").await;
        assert_eq!(status, 409, "{refused}");
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("under a new version"), "{detail}");
    }
    let tree = trees[0].display().to_string();
    let publish = [
        "release",
        "publish",
        &tree,
        "--product",
        "app",
        "--release",
        "1.2.0",
        "--yes",
    ];
    server.cli(&publish);
    let (status, refused) = roll_out("1.2.0").await;
    assert_eq!(status, 409, "{refused}");
    assert!(
        refused["detail"].to_string().contains("promote it to"),
        "{refused}"
    );
}
