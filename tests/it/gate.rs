//! The version gate, called directly and by nginx as documented.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tidegate_tests::{Server, eventually};

/// Publishes releases 1.0.0 to 3.0.0; 2.0.0 is a stepping stone.
fn published(server: &Server) {
    server.publish(&[("1.0.0", true)]);
    let tree = tidegate_tests::application(server.dir.path(), "2.0.0", true);
    server.publish_tree(&tree, "2.0.0", &["--stepping-stone"]);
    server.publish(&[("3.0.0", true)]);
}

#[tokio::test]
async fn the_gate_says_who_may_connect_and_where_the_others_are_to_go() {
    let server = Server::start().await;
    published(&server);
    let url = "https://example.com/upgrade";
    server.cli(&[
        "product",
        "set",
        "app",
        "--min-version",
        "1.5.0",
        "--upgrade-url",
        url,
    ]);
    let http = reqwest::Client::new();
    let ask = async |version: &str, headers: &[(&str, &str)]| {
        let mut request = http.get(format!("{}/v1/gate/app/{version}", server.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.send().await.unwrap()
    };
    let before = server.get("/api/v1/products/app/settings").await;
    assert_eq!(before["min_version"], "1.5.0");
    let welcome = ask("2.0.0", &[]).await;
    assert_eq!(welcome.status(), 204);
    assert_eq!(welcome.headers()["cache-control"], "public, max-age=30");
    let away = ask("1.0.0", &[]).await;
    assert_eq!(away.status(), 426);
    assert_eq!(away.headers()["tidegate-go-to"], "3.0.0");
    assert_eq!(away.headers()["tidegate-first"], "2.0.0");
    assert_eq!(away.headers()["content-type"], "application/problem+json");
    let problem: serde_json::Value = away.json().await.unwrap();
    assert_eq!(
        (&problem["code"], &problem["upgrade_url"]),
        (&json!("client_too_old"), &json!(url))
    );

    // TLS and capabilities are checked where they are given.
    server.cli(&[
        "product",
        "set",
        "app",
        "--min-tls",
        "TLSv1.2",
        "--capability",
        "fix44",
    ]);
    assert_eq!(ask("3.0.0", &[]).await.status(), 204);
    let old_tls = ask("3.0.0", &[("tidegate-client-tls", "TLSv1.1")]).await;
    assert_eq!(old_tls.headers()["tidegate-reason"], "client_tls_too_old");
    let bare = ask("3.0.0", &[("tidegate-client-capabilities", "fix50")]).await;
    assert_eq!(bare.headers()["tidegate-reason"], "client_lacks_capability");
    let able = [
        ("tidegate-client-tls", "TLSv1.3"),
        ("tidegate-client-capabilities", "fix44, fix50"),
    ];
    assert_eq!(ask("3.0.0", &able).await.status(), 204);

    // An end of life is announced, and takes effect by itself.
    let date = "2999-01-01T00:00:00Z";
    server.cli(&[
        "release",
        "eol",
        "app",
        "2.0.0",
        "--date",
        date,
        "--notice",
        "call the desk",
    ]);
    let announced = ask("2.0.0", &[]).await;
    assert_eq!(announced.status(), 204);
    assert_eq!(
        announced.headers()["sunset"],
        "Tue, 01 Jan 2999 00:00:00 GMT"
    );
    assert_eq!(announced.headers()["tidegate-notice"], "call the desk");
    server.cli(&[
        "release",
        "eol",
        "app",
        "2.0.0",
        "--date",
        "2020-01-01T00:00:00Z",
    ]);
    let over = ask("2.0.0", &[]).await;
    assert_eq!(over.headers()["tidegate-reason"], "release_eol");
    eventually("the stage follows", async || {
        let release = server.get("/api/v1/products/app/releases/2.0.0").await;
        (release["stage"] == "eol").then_some(())
    })
    .await;

    // Garbage is refused, and a missing product is not found.
    for no_version in ["new", "", "1"] {
        let answer = ask(no_version, &[]).await;
        assert_eq!(answer.status(), 426, "{no_version:?}");
        assert_eq!(answer.headers()["tidegate-go-to"], "3.0.0");
    }
    assert_eq!(ask("v3.0.0", &able).await.status(), 204);
    let ancient = ask("3.0.0", &[("tidegate-client-tls", "SSLv3")]).await;
    assert_eq!(ancient.headers()["tidegate-reason"], "client_tls_too_old");
    assert_eq!(
        ask("3.0.0", &[("tidegate-client-tls", "fast")])
            .await
            .status(),
        400
    );
    let other = http
        .get(format!("{}/v1/gate/other/1.0.0", server.url))
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 404);
}

/// The gate costs no statement: it answers from memory.
#[tokio::test]
async fn the_gate_is_open_to_business_servers_without_a_token() {
    let server = Server::start().await;
    published(&server);
    let (status, _) = server.call("GET", "/v1/gate/app/3.0.0", None, "").await;
    assert_eq!(status, 204);
}

struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds the configuration of `docs/reference/version-gate.md` with the addresses of this test.
fn configuration(dir: &Path, gate: &str, business: &str, listen: u16) -> String {
    let page = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../docs/reference/version-gate.md"
    );
    let page = std::fs::read_to_string(page).expect("docs/reference/version-gate.md can be read");
    let server = page
        .split("```nginx\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .expect("docs/reference/version-gate.md shows a configuration");
    let server = server
        .replace("http://tidegate.internal:8420", gate)
        .replace("http://trading.internal:9000", business)
        .replace("listen 443 ssl;", &format!("listen 127.0.0.1:{listen};"))
        .lines()
        .filter(|line| !line.trim_start().starts_with("ssl_"))
        .collect::<Vec<_>>()
        .join("\n");
    let dir = dir.display();
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/nginx.pid;\nerror_log {dir}/error.log;\n\
         events {{ worker_connections 64; }}\nhttp {{\naccess_log off;\n\
         client_body_temp_path {dir}/body;\nproxy_temp_path {dir}/proxy;\n\
         fastcgi_temp_path {dir}/fastcgi;\nuwsgi_temp_path {dir}/uwsgi;\nscgi_temp_path {dir}/scgi;\n\
         {server}\n}}\n"
    )
}

#[tokio::test]
async fn nginx_turns_old_clients_away_with_an_answer_they_can_act_on() {
    let program = ["/usr/sbin/nginx", "/usr/bin/nginx"]
        .into_iter()
        .find(|p| Path::new(p).exists());
    let Some(program) = program else {
        assert!(
            std::env::var_os("TIDEGATE_REQUIRE_NGINX").is_none(),
            "nginx is required and not there"
        );
        eprintln!("SKIPPED: nginx is not installed; the gate was not asked through it");
        return;
    };
    let server = Server::start().await;
    published(&server);
    server.cli(&[
        "product",
        "set",
        "app",
        "--min-version",
        "1.5.0",
        "--upgrade-url",
        "https://example.com/up",
    ]);
    // The business server: anything that answers.
    let business = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let business_url = format!("http://{}", business.local_addr().unwrap());
    let trade = axum::Router::new().fallback(|| async { "traded" });
    tokio::spawn(async move { axum::serve(business, trade).await.unwrap() });
    let dir = tempfile::tempdir().unwrap();
    // A port that was free a moment ago: nginx cannot report which one it was given.
    let listen = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let config = dir.path().join("nginx.conf");
    std::fs::write(
        &config,
        configuration(dir.path(), &server.url, &business_url, listen),
    )
    .unwrap();
    let child = Command::new(program)
        .arg("-c")
        .arg(&config)
        .arg("-p")
        .arg(dir.path())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let _nginx = Nginx(child);
    let http = reqwest::Client::new();
    let trade = async |version: &str| {
        let request = http.get(format!("http://127.0.0.1:{listen}/trade"));
        request.header("app-version", version).send().await
    };
    let response = eventually("nginx answers", async || trade("3.0.0").await.ok()).await;
    assert_eq!(
        (response.status().as_u16(), response.text().await.unwrap()),
        (200, "traded".into())
    );
    let away = trade("1.0.0").await.unwrap();
    assert_eq!(
        away.status(),
        426,
        "{}",
        std::fs::read_to_string(dir.path().join("error.log")).unwrap_or_default()
    );
    assert_eq!(away.headers()["tidegate-go-to"], "3.0.0");
    assert_eq!(away.headers()["tidegate-first"], "2.0.0");
    let text = away.text().await.unwrap();
    assert!(
        text.contains("3.0.0") && text.contains("https://example.com/up"),
        "{text}"
    );
}
