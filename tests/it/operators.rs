//! Operators of the control plane: their requests, their tokens, and who counts as whom.

use serde_json::{Value, json};
use tidegate_server::openapi;
use tidegate_tests::Server;

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
