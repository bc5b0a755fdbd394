//! Attacks by sockets: opened and left, slow in each way that there is, or many.
#![cfg(unix)]

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tidegate_server::Running;
use tidegate_server::config::{Patience, Settings};
use tidegate_tests::{Database, PATIENCE, Server, settings};

/// A server in this process whose deadlines are short.
async fn impatient(dir: &std::path::Path) -> Running {
    let soon = Duration::from_millis(300);
    let settings = Settings {
        patience: Patience {
            handshake: soon,
            idle: soon,
            idle_proven: PATIENCE,
            head: soon,
            body: soon,
            reading: soon,
        },
        ..settings(dir)
    };
    tidegate_server::start(settings).await.unwrap()
}

fn connect(address: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads until the server closes; returns what it said.
fn read_to_end(mut stream: &TcpStream) -> String {
    let mut all = Vec::new();
    let mut part = [0; 4_096];
    loop {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&part[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => break,
            Err(error) => panic!("the server did not close: {error}"),
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

/// Sends a request and reads until the connection is closed.
fn exchange(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    read_to_end(&stream)
}

#[tokio::test(flavor = "multi_thread")]
async fn a111_whoever_lets_the_server_wait_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let running = impatient(dir.path()).await;
    let address = running.address;
    // Nothing at all, half a head, a head byte by byte, half a body.
    let slow = [
        "",
        "GET /healthz HTTP/1.1\r\nHost: a\r\nX-",
        "POST /device/v1/session HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{",
        "POST /api/v1/products HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n{",
    ];
    tokio::task::spawn_blocking(move || {
        for start in slow {
            let said = exchange(address, start);
            assert!(!said.starts_with("HTTP/1.1 200"), "{start}: {said}");
        }
        // Kept alive after an answer, and then silent.
        let said = exchange(address, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(said.starts_with("HTTP/1.1 200"), "{said}");
    })
    .await
    .unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a111_a_reader_who_does_not_read_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let running = impatient(dir.path()).await;
    let address = running.address;
    // More than any socket buffer takes.
    let blob: Vec<u8> = vec![7; 32 << 20];
    let sha256 = tidegate_delta::sha256(&blob);
    let part = futures::stream::iter([Ok::<_, std::io::Error>(blob.into())]);
    let length = running.app().upload_blob(sha256, part).await.unwrap();
    assert_eq!(length.length, 32 << 20);
    let said = tokio::task::spawn_blocking(move || {
        let mut stream = connect(address);
        let request = format!("GET /blobs/{sha256} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut first = [0; 1];
        stream.read_exact(&mut first).unwrap();
        // The server cuts the connection while it waits for the rest to be read: the error is
        // seen without reading on.
        let until = std::time::Instant::now() + PATIENCE;
        loop {
            if let Err(error) = stream.write_all(b"x") {
                return error.to_string();
            }
            assert!(
                std::time::Instant::now() < until,
                "the reader is still waited for"
            );
            std::thread::yield_now();
        }
    })
    .await
    .unwrap();
    assert!(
        said.contains("reset") || said.contains("Broken pipe"),
        "{said}"
    );
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_read_as_http_says() {
    let dir = tempfile::tempdir().unwrap();
    let running = impatient(dir.path()).await;
    let address = running.address;
    tokio::task::spawn_blocking(move || {
        let cases = [
            ("GET /healthz HTTP/1.1\r\n\r\n", "HTTP/1.1 400"),
            ("GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "HTTP/1.1 400"),
            ("GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", "HTTP/1.1 400"),
            ("GET /healthz HTTP/1.1\r\nHost: a b/../\r\n\r\n", "HTTP/1.1 400"),
            ("GET /healthz HTTP/1.1\r\nHost: x@a\r\n\r\n", "HTTP/1.1 400"),
            ("GET /healthz HTTP/1.1\r\nHost: [::1]:8420\r\n\r\n", "HTTP/1.1 200"),
            ("GET /healthz HTTP/1.0\r\n\r\n", "HTTP/1.0 200"),
            ("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200"),
            // HTTP/2 without a word: no client of this server speaks it.
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", ""),
            (
                "POST /device/v1/session HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
                "HTTP/1.1 400",
            ),
            (
                "POST /device/v1/session HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
                "HTTP/1.1 400",
            ),
        ];
        for (request, start) in cases {
            let said = exchange(address, request);
            let right = said.starts_with(start) && said.is_empty() == start.is_empty();
            assert!(right, "{request:?}: {said:?}");
        }
    })
    .await
    .unwrap();
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a112_sockets_that_fill_the_server_leave_people_their_place() {
    let server = Server::start_limited(Database::Sqlite, 256).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    // More than the server may open, in each state that costs nothing to hold.
    let starts = [
        "",
        "GET / HTTP/1.1\r\n",
        "POST /device/v1/session HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n",
    ];
    let mut hostile = Vec::new();
    for n in 0..400 {
        if let Ok(mut stream) = TcpStream::connect(&address) {
            let _ = stream.write_all(starts[n % starts.len()].as_bytes());
            hostile.push(stream);
        }
        if n % 50 == 49 {
            // A person is heard in the middle of it.
            let products = server.get("/api/v1/products").await;
            assert!(products.is_array(), "{products}");
        }
    }
    drop(hostile);
}
