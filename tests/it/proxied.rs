//! A proxy in front that changes `Host` and has the server in a folder: attack A114 of
//! `docs/explain/security-model.md`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};

use serde_json::json;
use tidegate_tests::{Database, Device, Server};

/// Passes requests for a folder on, without the folder, under its own name for the server.
fn folder_proxy(server: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/updates", listener.local_addr().unwrap());
    let target = server.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let target = target.clone();
            std::thread::spawn(move || pass(client, &target));
        }
    });
    url
}

fn pass(client: TcpStream, target: &str) -> std::io::Result<()> {
    let mut from_client = BufReader::new(client.try_clone()?);
    let mut server = TcpStream::connect(target)?;
    let mut head = String::new();
    let mut line = String::new();
    while from_client.read_line(&mut line)? > 2 {
        let lower = line.to_ascii_lowercase();
        if head.is_empty() {
            assert!(line.contains(" /updates/"), "{line}");
            head += &line.replacen(" /updates/", " /", 1);
            // One request for each connection: only its head is looked at.
            head += "host: backend.internal\r\nconnection: close\r\n";
        } else if !lower.starts_with("host:") && !lower.starts_with("connection:") {
            head += &line;
        }
        line.clear();
    }
    server.write_all(format!("{head}\r\n").as_bytes())?;
    let mut to_server = server.try_clone()?;
    std::thread::spawn(move || std::io::copy(&mut from_client, &mut to_server));
    let mut to_client = client;
    std::io::copy(&mut server, &mut to_client)?;
    to_client.shutdown(std::net::Shutdown::Both)
}

#[tokio::test(flavor = "multi_thread")]
async fn a114_a_proxy_that_changes_host_is_named_with_the_setting_that_mends_it() {
    let server = Server::start().await;
    server.publish(&[("1.0.0", true)]);
    let url = folder_proxy(&server.url);
    let token = server.join_token();
    let device = Device::blank(server.dir.path(), "plc");
    let (ok, text) = device.try_enroll(&url, &token, "NA", None, &[]);
    assert!(!ok);
    let authority = url
        .trim_start_matches("http://")
        .trim_end_matches("/updates");
    for named in [
        format!("signed this request for {authority}"),
        "Host backend.internal".into(),
        format!("--public-url https://{authority}"),
    ] {
        assert!(text.contains(&named), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_and_people_work_through_a_proxy_that_changes_host_and_has_the_server_in_a_folder()
{
    // The address is known before the server is: the proxy is told where it is by a port of its own.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let url = format!("http://{address}/updates");
    let options = ["--public-url", &url, "--public-url", "https://tide.example"];
    let server = Server::start_with(Database::Sqlite, &options).await;
    let target = server.url.trim_start_matches("http://").to_owned();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let target = target.clone();
            std::thread::spawn(move || pass(client, &target));
        }
    });
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let who = server.cli(&["--server", &url, "whoami"]);
    assert!(who.contains("admin"), "{who}");
    let token = server.join_token();
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let mut device = Device::enroll(server.dir.path(), "plc", &url, &token, "NA", installed);
    device.run();
    server.roll_out("1.1.0", &["NA"], json!({})).await;
    device.settles_on("1.1.0").await;
    // Whoever asks by another name has not asked this server.
    let stray = Device::blank(server.dir.path(), "stray");
    let (ok, text) = stray.try_enroll(&server.url, &token, "NA", None, &[]);
    assert!(
        !ok && text.contains("none of this server's addresses"),
        "{text}"
    );
    assert!(text.contains(&url), "{text}");
}
