//! HTTP as RFC 9110 and 9112 say: what has no case, what is a list, what a HEAD and a path are.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tidegate_tests::Server;

/// Uploads a blob of 1,000 bytes; returns its SHA-256.
async fn blob(server: &Server) -> String {
    let bytes: Vec<u8> = (0..1_000u32).map(|n| n.to_be_bytes()[3]).collect();
    let sha256 = tidegate_delta::sha256(&bytes).to_string();
    let put = reqwest::Client::new()
        .put(format!("{}/api/v1/blobs/{sha256}", server.url))
        .bearer_auth(&server.token)
        .body(bytes);
    assert!(put.send().await.unwrap().status().is_success());
    sha256
}

#[tokio::test]
async fn the_scheme_of_a_token_has_no_case_and_its_secret_has() {
    let server = Server::start().await;
    let http = reqwest::Client::new();
    let whoami = async |authorization: String| {
        let request = http.get(format!("{}/api/v1/whoami", server.url));
        let request = request.header("authorization", authorization);
        request.send().await.unwrap().status().as_u16()
    };
    let token = &server.token;
    for scheme in ["Bearer ", "bearer ", "BEARER    ", "bEARER "] {
        assert_eq!(whoami(format!("{scheme}{token}")).await, 200, "{scheme:?}");
    }
    for other in ["Bearer", "Bearer,", "Basic ", "Bearer=", ""] {
        assert_eq!(whoami(format!("{other}{token}")).await, 401, "{other:?}");
    }
    assert_eq!(
        whoami(format!("Bearer {}", token.to_uppercase())).await,
        401
    );
}

#[tokio::test]
async fn a_head_is_answered_like_its_get_and_has_no_body() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let sha256 = blob(&server).await;
    let body = json!({ "product": "app", "release": "1.0.0", "waves": [{ "name": "all" }] });
    let rollout = server.post("/api/v1/rollouts", body).await;
    let doc = server.get("/api/v1/openapi.json").await;
    let mut paths = vec![
        "/healthz".to_owned(),
        "/readyz".into(),
        "/api/v1/openapi.json".into(),
        "/metadata/timestamp.json".into(),
        format!("/blobs/{sha256}"),
    ];
    for (path, item) in doc["paths"].as_object().unwrap() {
        if item.get("get").is_none() {
            continue;
        }
        let id = rollout["id"].as_str().unwrap();
        let path = path.replace("{product}", "app");
        paths.push(path.replace("{version}", "1.0.0").replace("{id}", id));
    }
    let http = reqwest::Client::new();
    let mut answered = 0;
    for path in &paths {
        let ask = async |method: Method| {
            let request = http.request(method, format!("{}{path}", server.url));
            let answer = request.bearer_auth(&server.token).send().await.unwrap();
            let (status, mut headers) = (answer.status(), answer.headers().clone());
            for of_each in ["date", "x-request-id", "transfer-encoding"] {
                headers.remove(of_each);
            }
            (status, headers, answer.bytes().await.unwrap())
        };
        let (got, head) = (ask(Method::GET).await, ask(Method::HEAD).await);
        assert_eq!((got.0, got.1), (head.0, head.1), "{path}");
        assert!(head.2.is_empty(), "{path}");
        answered += usize::from(got.0.is_success());
    }
    assert!(
        answered > 15,
        "{answered} of {} paths are served",
        paths.len()
    );
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_refused_with_those_that_it_has() {
    let server = Server::start().await;
    let http = reqwest::Client::new();
    let zeros = "0".repeat(64);
    for (method, path, allowed) in [
        ("DELETE", "/api/v1/products".to_owned(), "GET,HEAD,POST"),
        ("PUT", "/healthz".into(), "GET,HEAD"),
        ("POST", format!("/blobs/{zeros}"), "GET,HEAD"),
        ("GET", "/device/v1/session".into(), "POST"),
    ] {
        let request = http.request(method.parse().unwrap(), format!("{}{path}", server.url));
        let answer = request.bearer_auth(&server.token).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.headers()["allow"], allowed, "{path}");
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "method_not_allowed");
    }
}

#[tokio::test]
async fn conditions_on_a_blob_take_lists_weak_tags_and_the_star() {
    let server = Server::start().await;
    let sha256 = blob(&server).await;
    let tag = format!("\"{sha256}\"");
    let http = reqwest::Client::new();
    let ask = async |method: Method, headers: &[(&'static str, String)]| {
        let mut request = http.request(method, format!("{}/blobs/{sha256}", server.url));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let answer = request.send().await.unwrap();
        (
            answer.status().as_u16(),
            answer.bytes().await.unwrap().len(),
        )
    };
    let if_none_match = |value: &str| vec![("if-none-match", value.to_owned())];
    for same in [
        tag.clone(),
        format!("W/{tag}"),
        "*".into(),
        format!("\"a,b\", {tag}"),
        format!("\"other\",W/{tag} ,"),
    ] {
        let answer = ask(Method::GET, &if_none_match(&same)).await;
        assert_eq!(answer, (304, 0), "{same}");
    }
    for other in [format!("\"x\", {}", tag.to_uppercase()), sha256.clone()] {
        let answer = ask(Method::GET, &if_none_match(&other)).await;
        assert_eq!(answer, (200, 1_000), "{other}");
    }
    // On two lines.
    let lines = [
        ("if-none-match", "\"x\"".to_owned()),
        ("if-none-match", tag.clone()),
    ];
    assert_eq!(ask(Method::GET, &lines).await.0, 304);
    // Only a strong tag is good for a part.
    for (value, status) in [
        (tag.clone(), 200),
        ("*".into(), 200),
        (format!("\"x\", {tag}"), 200),
        (format!("W/{tag}"), 412),
        ("\"x\"".into(), 412),
    ] {
        let answer = ask(Method::GET, &[("if-match", value.clone())]).await;
        assert_eq!(answer.0, status, "{value}");
    }
    let range = |unit: &str| ("range", format!("{unit}=10-19"));
    for unit in ["bytes", "Bytes", "BYTES"] {
        assert_eq!(ask(Method::GET, &[range(unit)]).await, (206, 10), "{unit}");
    }
    assert_eq!(ask(Method::GET, &[range("lines")]).await, (200, 1_000));
    // Ranges are for GET alone.
    assert_eq!(ask(Method::HEAD, &[range("bytes")]).await, (200, 0));
    let weak = [range("bytes"), ("if-range", format!("W/{tag}"))];
    assert_eq!(ask(Method::GET, &weak).await, (200, 1_000));
}

#[tokio::test]
async fn an_if_match_of_a_rollout_may_be_a_list_and_never_matches_weakly() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let body = json!({ "product": "app", "release": "1.0.0", "waves": [{ "name": "all" }] });
    let rollout = server.post("/api/v1/rollouts", body).await;
    let path = format!("/api/v1/rollouts/{}", rollout["id"].as_str().unwrap());
    let http = reqwest::Client::new();
    let edit = async |if_match: String| {
        let request = http.patch(format!("{}{path}", server.url));
        let request = request.bearer_auth(&server.token);
        let request = request.header("if-match", if_match);
        let answer = request.json(&json!({ "max_in_flight": 1 })).send().await;
        answer.unwrap().status().as_u16()
    };
    let now = async || server.get(&path).await["revision"].as_i64().unwrap();
    for (form, status) in [
        ("\"NOW\"", 200),
        ("\"99\", \"NOW\"", 200),
        ("\"NOW\",\"99\"", 200),
        ("*", 200),
        ("NOW", 200),
        ("W/\"NOW\"", 412),
        ("\"99\"", 412),
        ("\"98\", \"99\"", 412),
        ("\"none-of-ours\"", 412),
        ("nonsense", 400),
    ] {
        let value = form.replace("NOW", &now().await.to_string());
        assert_eq!(edit(value.clone()).await, status, "{value}");
    }
}

#[tokio::test]
async fn the_type_of_a_body_has_no_case_and_may_have_parameters() {
    let server = Server::start().await;
    let http = reqwest::Client::new();
    let create = async |name: &str, kind: Option<&str>| {
        let request = http.post(format!("{}/api/v1/products", server.url));
        let mut request = request.bearer_auth(&server.token);
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let request = request.body(format!("{{\"name\":\"{name}\"}}"));
        request.send().await.unwrap().status().as_u16()
    };
    for (name, kind) in [
        ("a", "application/json"),
        ("b", "Application/JSON; Charset=UTF-8"),
        ("c", "application/json;charset=\"utf-8\""),
    ] {
        assert_eq!(create(name, Some(kind)).await, 201, "{kind}");
    }
    for kind in [None, Some("text/plain"), Some("application/jsonx")] {
        assert_eq!(create("d", kind).await, 400, "{kind:?}");
    }
}

#[tokio::test]
async fn part_of_a_path_may_be_escaped_and_no_path_ends_with_a_slash() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    for path in [
        "/api/v1/products/%61pp/releases",
        "/api/v1/products/app/releases/1%2E0%2e0",
        "/api/v1/devices?product=%61pp",
    ] {
        let (status, answer) = server.call("GET", path, None, &server.token).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    for path in [
        "/api/v1/products/",
        "/api/v1/products/app/releases/",
        "/healthz/",
    ] {
        let (status, answer) = server.call("GET", path, None, &server.token).await;
        assert_eq!(status, 404, "{path}: {answer}");
        assert!(answer["detail"].to_string().contains("slash"), "{answer}");
    }
    // An escaped slash parts nothing.
    let path = "/api/v1/products/app%2Freleases";
    assert_eq!(server.call("GET", path, None, &server.token).await.0, 404);
}

#[tokio::test]
async fn capabilities_on_several_lines_are_one_list() {
    let server = Server::start().await;
    let path = "/api/v1/products";
    server.post(path, json!({ "name": "app" })).await;
    let settings = Some(json!({ "capabilities": ["fix44", "tls13"] }));
    let path = "/api/v1/products/app/settings";
    assert_eq!(
        server.call("PUT", path, settings, &server.token).await.0,
        200
    );
    let ask = async |lines: &[&str]| {
        let mut request = reqwest::Client::new().get(format!("{}/v1/gate/app/1.0.0", server.url));
        for line in lines {
            request = request.header("tidegate-client-capabilities", *line);
        }
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(ask(&["fix44, tls13"]).await, ask(&["fix44", "tls13"]).await);
    assert_eq!(ask(&["fix44"]).await, 426);
    assert_eq!(ask(&[","]).await, 426, "sent, and empty");
}

/// Sends bytes to the server and reads until the answer's head and body are there.
fn raw(server: &Server, sent: &str) -> String {
    let address = server.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(tidegate_tests::PATIENCE))
        .unwrap();
    stream.write_all(sent.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_expectations_and_chunk_sizes_have_no_case() {
    let server = Server::start().await;
    let head = |rest: &str| {
        format!(
            "POST /api/v1/products HTTP/1.1\r\nhOsT: x\r\nAUTHORIZATION: bearer {}\r\n\
             cOnTeNt-TyPe: application/json\r\nConnection: Close\r\n{rest}\r\n",
            server.token
        )
    };
    // 26 bytes, as a size in either case of its digits, with an extension and a trailer.
    for (name, size) in [("aaaaaaaaaaaaaaa", "1A"), ("bbbbbbbbbbbbbbb", "01a;note=x")] {
        let body = format!("{{\"name\":\"{name}\"}}");
        assert_eq!(body.len(), 26);
        let chunked = head("Transfer-Encoding: Chunked\r\n");
        let answer = raw(
            &server,
            &format!("{chunked}{size}\r\n{body}\r\n0\r\nx-t: y\r\n\r\n"),
        );
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    }
    for expectation in ["100-continue", "100-Continue", "100-CONTINUE"] {
        let body = "{\"name\":\"app\"}";
        let expects = format!(
            "Expect: {expectation}\r\nContent-Length: {}\r\n",
            body.len()
        );
        let answer = raw(&server, &format!("{}{body}", head(&expects)));
        assert!(
            answer.starts_with("HTTP/1.1 100"),
            "{expectation}: {answer}"
        );
        assert!(answer.contains("HTTP/1.1 20"), "{expectation}: {answer}");
    }
}
