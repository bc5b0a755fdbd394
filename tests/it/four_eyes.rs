//! Four eyes: the rule under which something was planned, the rule of the moment, and the ways round
//! both.

use serde_json::{Value, json};
use tidegate_tests::{Device, Server, eventually};

/// Drafts a rollout that concerns no device; returns its path. Once started it ends by itself.
async fn draft(server: &Server, by: &str) -> String {
    draft_for(server, by, "region=NOWHERE").await
}

async fn draft_for(server: &Server, by: &str, selector: &str) -> String {
    let body = json!({
        "product": "app", "release": "1.0.0", "waves": [{ "name": "all", "selector": selector }],
    });
    let (status, draft) = server
        .call("POST", "/api/v1/rollouts", Some(body), by)
        .await;
    assert_eq!(status, 201, "{draft}");
    format!("/api/v1/rollouts/{}", draft["id"].as_str().unwrap())
}

async fn order(server: &Server, path: &str, what: &str, body: Value, by: &str) -> (u16, Value) {
    let path = format!("{path}/{what}");
    server.call("POST", &path, Some(body), by).await
}

fn plan(asked: &Value) -> Value {
    json!({ "plan": asked["asked"]["plan"].as_str().unwrap() })
}

#[tokio::test]
async fn a138_a_start_scheduled_before_approvals_were_needed_asks_for_them_when_its_time_comes() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let (ann, bob) = (
        server.person("ann", "release_manager").await,
        server.person("bob", "release_manager").await,
    );
    let path = draft(&server, &bob).await;
    let at = jiff::Timestamp::now() + jiff::ToSpan::seconds(4);
    let (status, scheduled) = order(
        &server,
        &path,
        "start",
        json!({ "at": at.to_string() }),
        &ann,
    )
    .await;
    assert_eq!(
        (status, &scheduled["state"]),
        (200, &json!("scheduled")),
        "{scheduled}"
    );
    server.cli(&["product", "set", "app", "--approvals", "1"]);
    // It does not wait for its time to tell who asks to start it now.
    let (_, would) = order(&server, &path, "start", json!({ "dry_run": true }), &ann).await;
    assert_eq!(would["state"], "awaiting_approval", "{would}");
    let asked = eventually("the scheduled start to come due", async || {
        let rollout = server.get(&path).await;
        (rollout["state"] != "scheduled").then_some(rollout)
    })
    .await;
    assert_eq!(asked["state"], "awaiting_approval", "{asked}");
    assert_eq!(asked["asked"]["missing"], 1, "{asked}");
    let waiting = asked["reason"].to_string();
    assert!(
        waiting.contains("since ann scheduled it starts need approvals"),
        "{asked}"
    );
    // Whoever scheduled it has asked for it, and whoever wrote it is its author.
    for own in [&ann, &bob] {
        let (status, refused) = order(&server, &path, "approve", plan(&asked), own).await;
        assert_eq!(status, 403, "{refused}");
    }
    let (status, started) = order(&server, &path, "approve", plan(&asked), &server.token).await;
    assert_eq!(
        (status, &started["state"]),
        (200, &json!("running")),
        "{started}"
    );
}

#[tokio::test]
async fn a139_what_was_planned_while_approvals_were_needed_goes_on_needing_them() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    server.cli(&["product", "set", "app", "--approvals", "1"]);
    let (ann, bob) = (
        server.person("ann", "admin").await,
        server.person("bob", "admin").await,
    );
    let (planned, waits) = (draft(&server, &ann).await, draft(&server, &ann).await);
    let (_, asked) = order(&server, &waits, "start", json!({}), &ann).await;
    assert_eq!(asked["asked"]["missing"], 1, "{asked}");
    // Two people agree to switch approvals off: for what is planned from then on.
    let settings = "/api/v1/products/app/settings";
    let off = Some(json!({ "approvals": 0 }));
    let (_, lower) = server.call("PUT", settings, off, &ann).await;
    let (status, lower) = order(&server, settings, "approve", plan(&lower), &bob).await;
    assert_eq!((status, &lower["approvals"]), (200, &json!(0)), "{lower}");
    let at = json!({ "at": "2200-01-01T00:00:00Z" });
    for path in [&planned, &waits] {
        let (status, refused) = order(&server, path, "start", at.clone(), &ann).await;
        assert_eq!(status, 409, "{refused}");
        let (_, still) = order(&server, path, "start", json!({}), &ann).await;
        assert_eq!(still["state"], "awaiting_approval", "{still}");
        assert_eq!(still["asked"]["needed"], 1, "{still}");
        let page = server.get("/api/v1/rollouts").await;
        let listed = page["items"].as_array().unwrap();
        let listed = listed.iter().find(|r| r["id"] == still["id"]).unwrap();
        assert_eq!(listed["asked"]["missing"], 1, "the list says the same");
    }
    let fresh = draft(&server, &ann).await;
    let (_, started) = order(&server, &fresh, "start", json!({}), &ann).await;
    assert_eq!(started["state"], "running", "{started}");
}

#[tokio::test]
async fn a140_a_new_product_needs_as_many_approvals_as_the_strictest_one() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let ann = server.person("ann", "release_manager").await;
    let create = async |name: &str| {
        let body = Some(json!({ "name": name }));
        let made = server.call("POST", "/api/v1/products", body, &ann).await;
        assert_eq!(made.0, 201, "{}", made.1);
        server
            .get(&format!("/api/v1/products/{name}/settings"))
            .await
    };
    assert_eq!(create("before").await["approvals"], 0);
    server.cli(&["product", "set", "app", "--approvals", "2"]);
    assert_eq!(create("beside").await["approvals"], 2);
    // Fewer is what it is for every product: a change that waits for as many as are needed.
    let path = "/api/v1/products/beside/settings";
    let fewer = Some(json!({ "approvals": 0 }));
    let (status, answer) = server.call("PUT", path, fewer, &server.token).await;
    assert_eq!(
        (status, &answer["approvals"], &answer["asked"]["missing"]),
        (202, &json!(2), &json!(2)),
        "{answer}"
    );
}

#[tokio::test]
async fn a141_consent_to_end_a_pause_is_none_to_end_the_halt_that_came_after() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let (ann, bob) = (
        server.person("ann", "admin").await,
        server.person("bob", "admin").await,
    );
    // Never online: the rollout waits for it.
    let (dir, token) = (server.dir.path(), server.join_token());
    let _device = Device::enroll(dir, "one", &server.url, &token, "NA", None);
    let path = draft_for(&server, &ann, "region=NA").await;
    let (_, started) = order(&server, &path, "start", json!({}), &ann).await;
    assert_eq!(started["state"], "running", "{started}");
    server.cli(&["product", "set", "app", "--approvals", "1"]);
    order(&server, &path, "pause", json!({ "reason": "lunch" }), &ann).await;
    let resume = json!({ "reason": "after lunch" });
    let (_, asked) = order(&server, &path, "resume", resume, &ann).await;
    let halt = json!({ "reason": "orders are lost" });
    order(&server, &path, "halt", halt, &server.token).await;
    let (status, refused) = order(&server, &path, "approve", plan(&asked), &bob).await;
    assert_eq!(status, 412, "{refused}");
    let halted = server.get(&path).await;
    assert_eq!(halted["state"], "halted", "{halted}");
    // Whoever has seen the halt may agree all the same.
    let (status, resumed) = order(&server, &path, "approve", plan(&halted), &bob).await;
    assert_eq!(
        (status, &resumed["state"]),
        (200, &json!("running")),
        "{resumed}"
    );
}

#[tokio::test]
async fn a129_an_approval_of_a_token_that_was_revoked_since_counts_no_more() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    server.cli(&["product", "set", "app", "--approvals", "2"]);
    let (ann, bob, cid) = (
        server.person("ann", "admin").await,
        server.person("bob", "admin").await,
        server.person("cid", "admin").await,
    );
    let path = draft(&server, &ann).await;
    let (_, asked) = order(&server, &path, "start", json!({}), &ann).await;
    let settings = "/api/v1/products/app/settings";
    let off = Some(json!({ "approvals": 0 }));
    let (_, lower) = server.call("PUT", settings, off, &ann).await;
    for (path, asked) in [(path.as_str(), &asked), (settings, &lower)] {
        let (status, given) = order(&server, path, "approve", plan(asked), &bob).await;
        assert!(
            status < 300 && given["asked"]["missing"] == 1,
            "{status} {given}"
        );
    }
    let tokens = server.get("/api/v1/tokens").await;
    let tokens = tokens.as_array().unwrap();
    let bobs = tokens.iter().find(|t| t["name"] == "bob").unwrap();
    server.cli(&["token", "revoke", bobs["id"].as_str().unwrap()]);
    for (path, asked) in [(path.as_str(), &asked), (settings, &lower)] {
        let (status, given) = order(&server, path, "approve", plan(asked), &cid).await;
        assert!(
            status < 300 && given["asked"]["missing"] == 1,
            "{status} {given}"
        );
        assert_eq!(given["asked"]["given_by"], json!(["cid"]), "{given}");
        let (status, given) = order(&server, path, "approve", plan(asked), &server.token).await;
        assert_eq!(status, 200, "{given}");
        assert!(given["asked"].is_null(), "{given}");
    }
}
