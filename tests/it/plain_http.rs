//! Plain HTTP stays on a machine unless somebody allows it: attack A98 of
//! `docs/explain/security-model.md`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tidegate_tests::{Device, Server, binary};

/// Somebody on the way: takes each request down, and answers all of them with the same head.
pub(crate) struct Eavesdropper {
    pub(crate) url: String,
    heard: Arc<Mutex<String>>,
}

impl Eavesdropper {
    pub(crate) fn start(answer: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard: Arc<Mutex<String>> = Arc::default();
        let kept = heard.clone();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                for line in BufReader::new(stream.try_clone().unwrap()).lines() {
                    let Ok(line) = line else { break };
                    if line.is_empty() {
                        break;
                    }
                    *kept.lock().unwrap() += &(line.to_ascii_lowercase() + "\n");
                }
                let whole = format!("{answer}content-length: 0\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(whole.as_bytes());
            }
        });
        Self { url, heard }
    }

    pub(crate) fn heard(&self) -> String {
        std::mem::take(&mut *self.heard.lock().unwrap())
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const AWAY: &str = "http://plant.example:8420";

#[tokio::test]
async fn a98_no_token_of_a_person_goes_out_over_plain_http() {
    let server = Server::start().await;
    let proxy = Eavesdropper::start("HTTP/1.1 401 No\r\n".into());
    let home = tempfile::tempdir().unwrap();
    let ask = |url: &str, token: &str, options: &[&str]| {
        Command::new(binary("tidegate"))
            .arg("whoami")
            .args(options)
            .envs([("TIDEGATE_SERVER", url), ("TIDEGATE_TOKEN", token)])
            .envs([("HTTP_PROXY", &proxy.url), ("http_proxy", &proxy.url)])
            .env("HOME", home.path())
            .env_remove("XDG_CONFIG_HOME")
            .output()
            .unwrap()
    };
    let refused = ask(AWAY, "tgo_secret", &[]);
    assert_eq!(refused.status.code(), Some(1));
    let text = said(&refused);
    assert!(
        text.contains("plain http") && text.contains("--allow-plain-http"),
        "{text}"
    );
    assert_eq!(proxy.heard(), "");
    assert!(
        !ask(AWAY, "tgo_secret", &["--allow-plain-http"])
            .status
            .success()
    );
    let heard = proxy.heard();
    assert!(
        heard.contains("authorization: bearer tgo_secret"),
        "{heard}"
    );
    // What is meant for this machine does not take the way over a proxy.
    let here = ask(&server.url, &server.token, &[]);
    assert!(here.status.success(), "{}", said(&here));
    assert_eq!(proxy.heard(), "");
    // Nobody is followed to another place with the token.
    let other = Eavesdropper::start("HTTP/1.1 200 OK\r\n".into());
    let leads_on = format!(
        "HTTP/1.1 307 There\r\nlocation: {}/api/v1/whoami\r\n",
        other.url
    );
    let sends_on = Eavesdropper::start(leads_on);
    assert!(!ask(&sends_on.url, "tgo_secret", &[]).status.success());
    assert!(sends_on.heard().contains("tgo_secret"));
    assert_eq!(other.heard(), "");
}

#[tokio::test]
async fn a98_no_secret_of_a_device_goes_out_over_plain_http() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let proxy = Eavesdropper::start("HTTP/1.1 401 No\r\n".into());
    let token = server.join_token();
    let agent = |word: &str, state: &Path, options: &[&str]| {
        Command::new(binary("tidegate-agent"))
            .args([word, "--state"])
            .arg(state)
            .args(options)
            .env("http_proxy", &proxy.url)
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    let state = server.dir.path().join("away");
    let enroll = ["--server", AWAY, "--token", &token, "--product", "app"];
    let refused = agent("enroll", &state, &enroll);
    assert!(!refused.status.success());
    let text = said(&refused);
    assert!(
        text.contains("is plain http") && text.contains("--allow-plain-http"),
        "{text}"
    );
    assert!(!state.join("identity.pem").exists());
    // Of several addresses each must do.
    let also = [
        "--server",
        &server.url,
        "--also",
        AWAY,
        "--token",
        &token,
        "--product",
        "app",
    ];
    assert!(!agent("enroll", &state, &also).status.success());
    assert_eq!(proxy.heard(), "");
    let allowed = [&enroll[..], &["--allow-plain-http"]].concat();
    assert!(!agent("enroll", &state, &allowed).status.success());
    assert!(proxy.heard().contains("plant.example"));

    // A device that has joined is told the same when its address changes, and by its doctor.
    let device = Device::blank(server.dir.path(), "press");
    let (ok, text) = device.try_enroll(&server.url, &token, "NA", None, &[]);
    assert!(ok, "{text}");
    let conf = device.state.join("agent.conf");
    std::fs::write(&conf, format!("server = {AWAY}\n")).unwrap();
    let refused = agent("run", &device.state, &["--exit-with-stdin"]);
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(
        said(&refused).contains("allow-plain-http = yes"),
        "{}",
        said(&refused)
    );
    let examined = agent("doctor", &device.state, &[]);
    let examined = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert!(examined.contains("is plain http"), "{examined}");
    assert_eq!(proxy.heard(), "");
    std::fs::write(&conf, format!("server = {AWAY}\nallow-plain-http = yes\n")).unwrap();
    let examined = agent("doctor", &device.state, &[]);
    let examined = String::from_utf8_lossy(&examined.stdout).into_owned();
    assert!(!examined.contains("is plain http"), "{examined}");
    assert!(proxy.heard().contains("plant.example"));

    // One that joined before anybody was asked is not cut off by an update of its agent.
    let joined = device.state.join("agent.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&joined).unwrap()).unwrap();
    let asked = config.as_object_mut().unwrap().remove("plain_http");
    assert_eq!(asked, Some(Value::Bool(false)));
    std::fs::write(&joined, config.to_string()).unwrap();
    std::fs::write(&conf, format!("server = {AWAY}\n")).unwrap();
    assert!(agent("doctor", &device.state, &[]).status.code().is_some());
    assert!(proxy.heard().contains("plant.example"));
}

#[test]
fn a98_a_server_without_tls_is_not_reached_from_beyond_its_machine_unless_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = |listen: &str, options: &[&str]| {
        Command::new(binary("tidegate"))
            .args(["serve", "--exit-with-stdin", "--listen", listen, "--data"])
            .arg(&data)
            .args(options)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    };
    for listen in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let refused = serve(listen, &[]);
        assert_eq!(refused.status.code(), Some(1));
        let text = said(&refused);
        for way in ["--tls-cert", "127.0.0.1", "--allow-plain-http"] {
            assert!(text.contains(way), "{text}");
        }
    }
    // Allowed, it gets as far as to an address that is nobody's.
    let text = said(&serve("192.0.2.1:0", &["--allow-plain-http"]));
    assert!(text.contains("cannot listen on 192.0.2.1:0"), "{text}");
    assert!(!data.join("tidegate.db").exists());
}

#[test]
fn a98_the_compose_file_allows_plain_http_and_shows_it_to_this_machine_alone() {
    let read = |name: &str| std::fs::read_to_string(crate::tree::root().join(name)).unwrap();
    let allows = "TIDEGATE_ALLOW_PLAIN_HTTP";
    // Whoever runs the image alone decides; it does not decide for them.
    assert!(!read("Dockerfile").contains(allows));
    let compose = read("docker-compose.yml");
    assert!(compose.contains(&format!("{allows}: \"true\"")));
    let ports: Vec<&str> = compose
        .lines()
        .filter(|line| line.trim_start().starts_with("- \"") && line.contains(":8420"))
        .collect();
    assert_eq!(ports.len(), 2, "{ports:?}");
    for port in ports {
        assert!(port.trim_start().starts_with("- \"127.0.0.1:"), "{port}");
    }
}
