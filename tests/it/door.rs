//! The one door for writes: a commit stands whatever fails after it, changes that belong together
//! are atomic, and every event tells what was done and by whom.

use serde_json::{Value, json};
use tidegate_tests::{Cluster, Database, Device, Server, eventually};

/// Starts a rollout whose only wave selects no existing device: it runs and exposes nobody.
async fn quiet_rollout(server: &Server) -> String {
    server.roll_out("1.1.0", &["NOWHERE"], json!({})).await
}

async fn events(server: &Server, path: &str) -> Vec<Value> {
    let page = server.get(&format!("{path}/events?limit=200")).await;
    page["items"].as_array().unwrap().clone()
}

fn find<'a>(events: &'a [Value], kind: &str) -> &'a Value {
    let found = events.iter().find(|e| e["kind"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {events:#?}"))
}

/// Halts a rollout and has Ann request its resume; returns the hash of the plan to approve.
async fn asked_to_resume(server: &Server, id: &str, ann: &str) -> String {
    let path = format!("/api/v1/rollouts/{id}");
    let halt = json!({ "reason": "orders are lost" });
    server.post(&format!("{path}/halt"), halt).await;
    server.cli(&["product", "set", "app", "--approvals", "1"]);
    let resume = Some(json!({ "reason": "a false alarm" }));
    let (status, asked) = server
        .call("POST", &format!("{path}/resume"), resume, ann)
        .await;
    assert_eq!(status, 200, "{asked}");
    asked["asked"]["plan"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_approved_change_that_is_refused_meanwhile_goes_on_waiting() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let (ann, bob) = (
        server.person("ann", "admin").await,
        server.person("bob", "admin").await,
    );
    let rules = json!({ "by_hand": true });
    let id = server
        .roll_out("1.1.0", &["NOWHERE", "NOR-HERE"], rules)
        .await;
    let path = format!("/api/v1/rollouts/{id}");
    let plan = asked_to_resume(&server, &id, &ann).await;
    server
        .post(&format!("{path}/cancel"), json!({ "reason": "over" }))
        .await;
    let approve = Some(json!({ "plan": plan }));
    let (status, answer) = server
        .call("POST", &format!("{path}/approve"), approve, &bob)
        .await;
    assert_eq!(status, 409, "{answer}");
    // Nothing is written: neither the approval nor its effect.
    let rollout = server.get(&path).await;
    assert_eq!(rollout["state"], "cancelled");
    assert_eq!(rollout["asked"]["missing"], 1, "{rollout}");
    assert!(
        events(&server, &path)
            .await
            .iter()
            .all(|e| e["kind"] != "approved")
    );
}

#[tokio::test]
async fn an_approval_and_what_it_lets_happen_are_one_change() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let server = Server::start_on(Database::Postgres(cluster.url())).await;
    server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let (ann, bob) = (
        server.person("ann", "admin").await,
        server.person("bob", "admin").await,
    );
    let rules = json!({ "by_hand": true });
    let id = server
        .roll_out("1.1.0", &["NOWHERE", "NOR-HERE"], rules)
        .await;
    let path = format!("/api/v1/rollouts/{id}");
    let plan = asked_to_resume(&server, &id, &ann).await;
    // The database refuses the second half, as if the server had died in between.
    let trigger = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
                   $$ BEGIN RAISE EXCEPTION 'not now'; END $$; \
                   CREATE TRIGGER refuse BEFORE UPDATE OF state ON rollout FOR EACH ROW \
                   EXECUTE FUNCTION refuse()";
    cluster.psql(trigger).unwrap();
    let approve = json!({ "plan": plan });
    let url = format!("{path}/approve");
    let (status, _) = server.call("POST", &url, Some(approve.clone()), &bob).await;
    assert_eq!(status, 503);
    assert_eq!(
        server.get(&path).await["asked"]["missing"],
        1,
        "it still waits"
    );
    cluster.psql("DROP TRIGGER refuse ON rollout").unwrap();
    let (status, resumed) = server.call("POST", &url, Some(approve), &bob).await;
    assert_eq!(
        (status, &resumed["state"]),
        (200, &json!("running")),
        "{resumed}"
    );
    let events = events(&server, &path).await;
    let (asked, moved) = (find(&events, "approval_asked"), events.last().unwrap());
    assert_eq!(asked["said"]["reason"], "a false alarm");
    // The last approval moved the rollout, and names the change that was requested.
    let resume = events
        .iter()
        .find(|e| e["body"]["order"] == "resume")
        .unwrap_or(moved);
    assert_eq!(resume["actor"], "operator bob");
    assert_eq!(resume["body"]["change"], asked["body"]["change"]);
}

#[tokio::test]
async fn a_rollout_that_does_not_take_the_order_is_named_in_the_answer() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let server = Server::start_on(Database::Postgres(cluster.url())).await;
    server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let (good, bad) = (quiet_rollout(&server).await, quiet_rollout(&server).await);
    let trigger = format!(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE EXCEPTION 'not now'; END $$; \
         CREATE TRIGGER refuse BEFORE UPDATE OF state ON rollout FOR EACH ROW \
         WHEN (OLD.id = '{bad}') EXECUTE FUNCTION refuse()"
    );
    cluster.psql(&trigger).unwrap();
    let path = "/api/v1/products/app/releases/1.1.0/rollback";
    let body = Some(json!({ "reason": "orders are lost" }));
    let (status, sheet) = server.call("POST", path, body, &server.token).await;
    assert_eq!(status, 200, "{sheet}");
    let taken: Vec<&str> = sheet["rollouts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["id"].as_str().unwrap())
        .collect();
    let failed: Vec<&str> = sheet["failed"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["rollout"].as_str().unwrap())
        .collect();
    assert_eq!(
        (taken, failed),
        (vec![good.as_str()], vec![bad.as_str()]),
        "{sheet}"
    );
    let said = server
        .cli_raw(&["incident", "show", sheet["id"].as_str().unwrap()])
        .1;
    assert!(said.contains("orders are lost"), "{said}");
}

#[tokio::test]
async fn an_incident_opens_and_closes_with_an_event() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let id = quiet_rollout(&server).await;
    let path = format!("/api/v1/rollouts/{id}");
    let sheet = server
        .post(
            &format!("{path}/rollback"),
            json!({ "reason": "orders are lost" }),
        )
        .await;
    let list = eventually("the incident is over", async || {
        let list = events(&server, &path).await;
        list.iter()
            .any(|e| e["kind"] == "incident_closed")
            .then_some(list)
    })
    .await;
    let opened = find(&list, "incident_opened");
    assert_eq!(opened["topic"], "incident");
    // One change with the order: no crash leaves a release on its way back without an incident.
    let moved = list
        .iter()
        .find(|e| e["kind"] == "rollout_moved" && e["body"]["to"] == "rolling_back")
        .unwrap();
    assert_eq!(opened["at"], moved["at"]);
    let seq = |event: &serde_json::Value| event["seq"].as_i64().unwrap();
    assert_eq!(seq(opened), seq(moved) + 1);
    assert_eq!(opened["body"]["incident"], sheet["id"]);
    assert_eq!(opened["body"]["rollouts"], json!([id]));
    assert_eq!(opened["said"]["reason"], "orders are lost");
    assert_eq!(opened["actor"], "operator admin");
    assert_eq!(find(&list, "incident_closed")["actor_kind"], "planner");
}

#[tokio::test]
async fn a_memory_that_cannot_be_read_anew_fails_no_write_and_is_made_good() {
    let Some(cluster) = Cluster::start().await else {
        return;
    };
    let server = Server::start_on(Database::Postgres(cluster.url())).await;
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let (joins, installed) = (server.join_token(), Some((trees[0].as_path(), "1.0.0")));
    let dir = server.dir.path();
    let device = Device::enroll(dir, "one", &server.url, &joins, "NA", installed);
    let path = format!("/api/v1/devices/{}", device.id());
    // Reloading a device reads its quarantine; writing an operator's order does not.
    cluster
        .psql("ALTER TABLE quarantine RENAME TO away")
        .unwrap();
    let body = Some(json!({ "reason": "stolen" }));
    let (status, answer) = server
        .call("POST", &format!("{path}/isolate"), body, &server.token)
        .await;
    assert_eq!(status, 200, "{answer}");
    // Memory could not follow, so the device still shows as before; the order is written all the
    // same.
    assert!(server.get(&path).await["isolated"].is_null());
    cluster
        .psql("ALTER TABLE away RENAME TO quarantine")
        .unwrap();
    eventually("memory follows", async || {
        (server.get(&path).await["isolated"] == "stolen").then_some(())
    })
    .await;
    let list = events(&server, &path).await;
    let isolated = list.iter().filter(|e| e["kind"] == "device_isolated");
    assert_eq!(isolated.count(), 1, "{list:#?}");
    assert_eq!(find(&list, "device_isolated")["actor"], "operator admin");
    assert_eq!(find(&list, "device_joined")["actor_kind"], "device");
}
