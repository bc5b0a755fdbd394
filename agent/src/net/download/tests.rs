//! Downloads from sources that lie, over real connections.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_delta::{DeltaOptions, Encoding, make_delta};
use tidegate_protocol::paths;

use super::*;
use crate::net::client::Client;
use crate::net::error::TransportError;
use crate::net::tls::TlsClock;

/// Answer of a source to a request for a range of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Manner {
    Honest,
    BlockPage,
    Encoded,
    Short,
    EndsEarly,
    RangeIgnored,
    WrongRange,
    WrongTotal,
    Damaged,
    Forbidden,
    Redirects,
    Silent,
    StopsMidway,
    /// The same with the manifest.
    ManifestStops,
}

/// A small HTTP server with the blobs of one payload.
struct Site {
    url: String,
    /// Bytes of blobs sent.
    sent: Arc<AtomicU64>,
    requests: Arc<AtomicU64>,
}

#[derive(Clone)]
struct Blobs {
    manifest: Vec<u8>,
    payload: Vec<u8>,
    ask: Payload,
}

const CHUNK: u32 = 64 << 10;

fn blobs() -> Blobs {
    let mut seed = 1u32;
    let mut noise = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        u8::try_from(seed >> 24).unwrap()
    };
    let new: Vec<u8> = (0..300_000).map(|_| noise()).collect();
    let options = DeltaOptions {
        chunk: CHUNK,
        ..DeltaOptions::new(Encoding::Quick)
    };
    let mut payload = Vec::new();
    let made = make_delta(&[], &new, &mut payload, &options).unwrap();
    assert!(made.chunks.len() > 3, "{}", made.chunks.len());
    let manifest = made.to_bytes().unwrap();
    let ask = Payload {
        manifest: tidegate_delta::sha256(&manifest),
        manifest_length: manifest.len() as u64,
        from: None,
        bytes: payload.len() as u64,
    };
    Blobs {
        manifest,
        payload,
        ask,
    }
}

impl Site {
    fn start(blobs: &Blobs, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            sent: Arc::default(),
            requests: Arc::default(),
        };
        let (blobs, sent, requests) = (blobs.clone(), site.sent.clone(), site.requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (blobs, sent, requests) = (blobs.clone(), sent.clone(), requests.clone());
                std::thread::spawn(move || {
                    requests.fetch_add(1, Ordering::SeqCst);
                    let _ = answer(stream, &blobs, manner, &sent);
                });
            }
        });
        site
    }
}

/// Range and path of a request.
fn read_request(stream: &TcpStream) -> Option<(String, Option<Range<usize>>)> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines();
    let first = lines.next()?.ok()?;
    let (mut range, mut identity) = (None, false);
    for line in lines.map_while(Result::ok).take_while(|l| !l.is_empty()) {
        identity |= line == "accept-encoding: identity";
        if let Some(text) = line.strip_prefix("range: bytes=") {
            let (from, to) = text.split_once('-')?;
            range = Some(from.parse().ok()?..to.parse::<usize>().ok()? + 1);
        }
    }
    assert!(
        identity,
        "each request asks for bytes that nothing has encoded"
    );
    Some((first.split(' ').nth(1)?.to_owned(), range))
}

fn answer(
    mut stream: TcpStream,
    blobs: &Blobs,
    manner: Manner,
    sent: &AtomicU64,
) -> std::io::Result<()> {
    let Some((path, range)) = read_request(&stream) else {
        return Ok(());
    };
    let is_manifest = path.ends_with(&blobs.ask.manifest.to_string());
    let blob = if is_manifest {
        &blobs.manifest
    } else {
        &blobs.payload
    };
    let asked = range.clone().unwrap_or(0..blob.len());
    let body = blob[asked.clone()].to_vec();
    let (total, begin, end) = (blob.len(), asked.start, asked.end - 1);
    let place = format!("content-range: bytes {begin}-{end}/{total}\r\n");
    let (status, head, body) = match manner {
        Manner::ManifestStops if is_manifest => {
            write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                body.len()
            )?;
            stream.write_all(&body[..body.len() / 2])?;
            let _ = stream.read(&mut [0]);
            return Ok(());
        }
        _ if is_manifest => ("200 OK", String::new(), body),
        Manner::BlockPage => (
            "200 OK",
            String::new(),
            b"<h1>This page is blocked</h1>".to_vec(),
        ),
        Manner::Encoded => (
            "206 Partial Content",
            format!("{place}content-encoding: gzip\r\n"),
            body,
        ),
        Manner::Short => (
            "206 Partial Content",
            place,
            body[..body.len() / 2].to_vec(),
        ),
        Manner::RangeIgnored => ("200 OK", String::new(), blob.clone()),
        Manner::WrongRange => (
            "206 Partial Content",
            format!("content-range: bytes 1-{}/{total}\r\n", body.len()),
            body,
        ),
        Manner::WrongTotal => (
            "206 Partial Content",
            format!("content-range: bytes {begin}-{end}/{}\r\n", total + 1),
            body,
        ),
        Manner::Damaged => {
            let mut body = body;
            let middle = body.len() / 2;
            body[middle] ^= 1;
            ("206 Partial Content", place, body)
        }
        Manner::Forbidden => ("403 Forbidden", String::new(), b"no".to_vec()),
        Manner::Redirects => (
            "302 Found",
            "location: http://127.0.0.1:1/login\r\n".into(),
            Vec::new(),
        ),
        Manner::Silent => {
            // Until the other side hangs up.
            let _ = stream.read(&mut [0]);
            return Ok(());
        }
        Manner::EndsEarly => {
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\n{place}connection: close\r\n\r\n"
            )?;
            stream.write_all(&body[..body.len() - 1_000])?;
            return stream.shutdown(std::net::Shutdown::Write);
        }
        Manner::StopsMidway => {
            write!(
                stream,
                "HTTP/1.1 206 Partial Content\r\n{place}content-length: {}\r\n\r\n",
                body.len()
            )?;
            stream.write_all(&body[..1_000])?;
            let _ = stream.read(&mut [0]);
            return Ok(());
        }
        Manner::Honest | Manner::ManifestStops => ("206 Partial Content", place, body),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\n{head}content-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(&body)?;
    sent.fetch_add(body.len() as u64, Ordering::SeqCst);
    Ok(())
}

fn ways(sites: &[&Site]) -> Ways<'static> {
    let clock = TlsClock {
        floor: tidegate_protocol::Timestamp::ZERO,
        trusted: false,
    };
    let client = |site: &&Site| Client::mirror(&site.url, None, clock).unwrap();
    Ways {
        sources: sites.iter().map(client).collect(),
        parallel: 2,
        limits: &[],
        deadline: None,
        silence: std::time::Duration::from_secs(3),
    }
}

const LIES: [Manner; 12] = [
    Manner::BlockPage,
    Manner::Encoded,
    Manner::Short,
    Manner::EndsEarly,
    Manner::RangeIgnored,
    Manner::WrongRange,
    Manner::WrongTotal,
    Manner::Damaged,
    Manner::Forbidden,
    Manner::Redirects,
    Manner::Silent,
    Manner::StopsMidway,
];

#[tokio::test]
async fn a100_a_mirror_that_lies_is_put_aside_and_the_server_sends_each_byte_once() {
    let blobs = blobs();
    for manner in LIES {
        let (mirror, origin) = (
            Site::start(&blobs, manner),
            Site::start(&blobs, Manner::Honest),
        );
        let dir = tempfile::tempdir().unwrap();
        let download = Download::new(crate::fs::system(), dir.path());
        let fetched = download.run(ways(&[&mirror, &origin]), &blobs.ask, 0).await;
        assert!(fetched.is_ok(), "{manner:?}: {fetched:?}");
        let (manifest, _) = download.open(&blobs.ask).unwrap();
        let store = download.store(&manifest).unwrap();
        assert_eq!(
            store.bytes(&manifest),
            blobs.payload.len() as u64,
            "{manner:?}"
        );
        let sent = origin.sent.load(Ordering::SeqCst);
        // A mirror that ignores ranges has sent the first chunk rightly.
        let least = blobs.payload.len() as u64 - u64::from(CHUNK);
        assert!(
            (least..=blobs.payload.len() as u64).contains(&sent),
            "{manner:?}: the origin sent {sent} of {}",
            blobs.payload.len()
        );
        let aside = download.aside();
        assert_eq!(aside.len(), 1, "{manner:?}: {aside:?}");
        assert_eq!(aside[0].mirror, mirror.url);
        // Each worker has asked it once at most, and once for the manifest.
        assert!(mirror.requests.load(Ordering::SeqCst) <= 4, "{manner:?}");
        // A person finds the mirror and the reason in the file that `doctor` reads.
        let told = std::fs::read(dir.path().join(UNUSED)).unwrap();
        let told: Vec<Unused> = serde_json::from_slice(&told).unwrap();
        assert_eq!(told, aside, "{manner:?}");
    }
}

#[tokio::test]
async fn a_failed_download_names_the_server_the_mirror_and_both_reasons() {
    let blobs = blobs();
    let (mirror, origin) = (
        Site::start(&blobs, Manner::BlockPage),
        Site::start(&blobs, Manner::Damaged),
    );
    let dir = tempfile::tempdir().unwrap();
    let download = Download::new(crate::fs::system(), dir.path());
    let failed = download.run(ways(&[&mirror, &origin]), &blobs.ask, 0).await;
    let failed = failed.unwrap_err();
    assert_eq!(failed.code, Reason::ChunkCorrupt);
    let text = failed.to_string();
    for wanted in [&origin.url, "arrived damaged 3 times", &mirror.url] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    // Of two chunks that are asked for at once, either is the first to tell.
    let faults = ["29 bytes", "it is the whole blob"];
    assert!(faults.iter().any(|fault| text.contains(fault)), "{text}");
}

/// The next source of a manifest is asked after a silence, as for a chunk, and not at the end of the time for
/// all of it, which is an hour here.
#[tokio::test]
async fn an_answer_that_falls_silent_in_its_middle_is_given_up_long_before_its_deadline() {
    let blobs = blobs();
    let site = Site::start(&blobs, Manner::ManifestStops);
    let mut client = ways(&[&site]).sources.remove(0);
    client.silence = std::time::Duration::from_millis(200);
    let path = format!("{}{}", paths::BLOBS, blobs.ask.manifest);
    let hour = std::time::Duration::from_hours(1);
    let get = hyper::Method::GET;
    let answer = client
        .send(get, &path, &[], Vec::new(), 1 << 20, hour)
        .await;
    assert!(matches!(answer, Err(TransportError::Timeout)), "{answer:?}");
    // A download takes it from the next source.
    let origin = Site::start(&blobs, Manner::Honest);
    let dir = tempfile::tempdir().unwrap();
    let download = Download::new(crate::fs::system(), dir.path());
    let mut ways = ways(&[&site, &origin]);
    ways.silence = std::time::Duration::from_millis(500);
    download.run(ways, &blobs.ask, 0).await.unwrap();
    let aside = download.aside();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert!(site.requests.load(Ordering::SeqCst) <= 2);
}

#[test]
fn bytes_of_another_source_are_discarded_also_after_a_start() {
    let blobs = blobs();
    let dir = tempfile::tempdir().unwrap();
    let download = Download::new(crate::fs::system(), dir.path());
    let manifest = download.keep_manifest(&blobs.ask, &blobs.manifest).unwrap();
    let mut store = download.store(&manifest).unwrap();
    store.begin(0, "http://a", false).unwrap();
    store.append(&manifest, 0, &[7; 100]).unwrap();
    store.sync().unwrap();
    // The next start knows whose bytes they are, and its source goes on with them.
    let mut store = download.store(&manifest).unwrap();
    assert_eq!((store.begun(0), store.source(0)), (100, Some("http://a")));
    store.begin(0, "http://a", false).unwrap();
    assert_eq!(store.begun(0), 100);
    // Another one begins anew, and a kill right then does not make its bytes the first one's.
    store.begin(0, "http://b", false).unwrap();
    assert_eq!(store.begun(0), 0);
    store.append(&manifest, 0, &blobs.payload[..50]).unwrap();
    let mut store = download.store(&manifest).unwrap();
    assert_eq!((store.begun(0), store.source(0)), (50, Some("http://b")));
    // Of a chunk that was begun after the last note nothing is known: only a sole source goes on.
    store.begin(1, "http://b", false).unwrap();
    store.append(&manifest, 1, &[7; 30]).unwrap();
    let mut store = download.store(&manifest).unwrap();
    assert_eq!((store.begun(1), store.source(1)), (30, None));
    store.begin(1, "http://b", true).unwrap();
    assert_eq!(store.begun(1), 30);
    let mut store = download.store(&manifest).unwrap();
    store.begin(1, "http://b", false).unwrap();
    assert_eq!(store.begun(1), 0);
}

#[tokio::test]
async fn a_device_that_decodes_nothing_fetches_no_encoded_payload_whatever_the_server_says() {
    let blobs = blobs();
    let origin = Site::start(&blobs, Manner::Honest);
    let dir = tempfile::tempdir().unwrap();
    let mut download = Download::new(crate::fs::system(), dir.path());
    // What was fetched before the setting changed is not opened either.
    download.run(ways(&[&origin]), &blobs.ask, 0).await.unwrap();
    download.limits.raw_only = true;
    let opened = download.open(&blobs.ask).err().unwrap();
    assert_eq!(opened.code, Reason::ChunkCorrupt);
    let refused = download.run(ways(&[&origin]), &blobs.ask, 0).await;
    let refused = refused.unwrap_err();
    // It is the payload's fault, so that the next one is tried.
    assert_eq!(refused.code, Reason::DeltaFailed);
    assert!(refused.to_string().contains("nothing is decoded here"));
    let once = blobs.payload.len() + 2 * blobs.manifest.len();
    assert!(origin.sent.load(Ordering::SeqCst) <= once as u64);
}
