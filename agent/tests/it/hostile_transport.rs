//! Attacks on the transport, A27 to A31 of `docs/explain/security-model.md`: whatever answers, reads are
//! bounded in bytes and time, and nothing leads elsewhere.

use std::time::Duration;

use hyper::Method;
use tidegate_agent::net::TransportError;
use tidegate_agent::net::client::Client;
use tidegate_agent::net::part::{Part, Taken};
use tidegate_agent::net::tls::TlsClock;
use tidegate_protocol::Timestamp;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Starts a server that answers every connection with `once`, then with `for_ever` without end.
async fn answers(once: Vec<u8>, for_ever: Vec<u8>) -> Client {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (once, for_ever) = (once.clone(), for_ever.clone());
            tokio::spawn(async move {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&once).await;
                while !for_ever.is_empty() && stream.write_all(&for_ever).await.is_ok() {}
            });
        }
    });
    let clock = TlsClock {
        floor: Timestamp::ZERO,
        trusted: false,
    };
    Client::new(&url, None, false, clock).unwrap()
}

async fn get(client: &mut Client, limit: usize) -> Result<usize, TransportError> {
    let deadline = Duration::from_secs(20);
    let answer = client
        .send(Method::GET, "/x", &[], Vec::new(), limit, deadline)
        .await?;
    answer.ok().map(|body| body.len())
}

#[tokio::test]
async fn a27_a_body_without_an_end_is_cut_at_the_limit() {
    for head in [
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 18446744073709551615\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 99999999\r\n\r\n",
    ] {
        let mut client = answers(head.into(), vec![b'a'; 64 << 10]).await;
        let result = get(&mut client, 100_000).await;
        // An encoding that was not asked for is refused before the body is read.
        let unasked = head.contains("gzip") && matches!(result, Err(TransportError::Malformed(_)));
        assert!(
            unasked
                || matches!(
                    result,
                    Err(TransportError::TooLarge(100_000) | TransportError::Broken(_))
                ),
            "{head:?}: {result:?}"
        );
    }
    let chunk = format!("8000\r\n{}\r\n", "a".repeat(0x8000));
    let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    let mut client = answers(head.into(), chunk.into_bytes()).await;
    assert!(matches!(
        get(&mut client, 100_000).await,
        Err(TransportError::TooLarge(_))
    ));
}

#[tokio::test]
async fn a27_less_than_was_announced_or_headers_without_an_end_are_no_answer() {
    let short = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc";
    let mut client = answers(short.into(), Vec::new()).await;
    assert!(get(&mut client, 100).await.is_err());
    let header = format!("x-{}: y\r\n", "a".repeat(1_000));
    let mut client = answers("HTTP/1.1 200 OK\r\n".into(), header.into_bytes()).await;
    assert!(get(&mut client, 100).await.is_err());
    let mut client = answers(b"\x16\x03\x01rubbish\r\n\r\n".to_vec(), Vec::new()).await;
    assert!(get(&mut client, 100).await.is_err());
}

#[tokio::test]
async fn a29_a_redirect_is_not_followed_and_headers_cannot_be_smuggled() {
    for place in [
        "http://127.0.0.1:1/",
        "https://example.com/",
        "file:///etc/passwd",
    ] {
        let answer =
            format!("HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: 0\r\n\r\n");
        let mut client = answers(answer.into(), Vec::new()).await;
        let result = get(&mut client, 100).await;
        assert!(
            matches!(result, Err(TransportError::Status { status: 302, .. })),
            "{place}: {result:?}"
        );
    }
    let mut client = answers("HTTP/1.1 200 OK\r\n\r\n".into(), Vec::new()).await;
    let headers = [("x-a", "b\r\nx-evil: c")];
    let sent = client
        .send(
            Method::GET,
            "/x",
            &headers,
            Vec::new(),
            10,
            Duration::from_secs(5),
        )
        .await;
    assert!(matches!(sent, Err(TransportError::Malformed(_))));
    let path = "/x HTTP/1.1\r\nx-evil: c\r\n";
    let sent = client
        .send(
            Method::GET,
            path,
            &[],
            Vec::new(),
            10,
            Duration::from_secs(5),
        )
        .await;
    assert!(matches!(sent, Err(TransportError::Malformed(_))));
}

#[tokio::test]
async fn a30_another_range_than_was_asked_for_is_refused() {
    for (range, status, good) in [
        ("bytes 100-102/200", "206 Partial Content", true),
        ("bytes 100-199/200", "206 Partial Content", false),
        ("bytes 100-102/201", "206 Partial Content", false),
        ("bytes 0-199/200", "206 Partial Content", false),
        ("bytes 101-199/200", "206 Partial Content", false),
        ("", "206 Partial Content", false),
        ("bytes 100-102/200", "500 Oh", false),
    ] {
        let answer =
            format!("HTTP/1.1 {status}\r\ncontent-range: {range}\r\ncontent-length: 3\r\n\r\nabc");
        let mut client = answers(answer.into(), Vec::new()).await;
        let mut taken = Vec::new();
        let result = client
            .fetch(part(100..103, 200), |at, bytes| {
                taken.push((at, bytes.to_vec()));
                Taken {
                    stop: None::<()>,
                    pause: Duration::ZERO,
                }
            })
            .await;
        assert_eq!(result.is_ok(), good, "{range} {status}");
        assert_eq!(taken.is_empty(), !good, "{range} {status}");
    }
}

#[tokio::test]
async fn a31_an_error_is_not_the_end_of_the_root_chain() {
    // The driver takes only 404 for "there is no newer root"; everything else is an error here.
    for (status, absent) in [(404, true), (403, false), (500, false), (503, false)] {
        let answer = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
        let mut client = answers(answer.into(), Vec::new()).await;
        let answer = client
            .send(
                Method::GET,
                "/metadata/2.root.json",
                &[],
                Vec::new(),
                10,
                Duration::from_secs(5),
            )
            .await
            .unwrap();
        assert_eq!(answer.status == hyper::StatusCode::NOT_FOUND, absent);
        assert!(answer.ok().is_err());
    }
}

fn part(range: std::ops::Range<u64>, total: u64) -> Part<'static> {
    Part {
        path: "/blobs/x",
        range,
        total,
        from_start: false,
        silence: Duration::from_secs(5),
    }
}
