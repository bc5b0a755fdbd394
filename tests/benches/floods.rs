//! Orders of people while 3,000 hostile connections lie on the server:
//! `cargo bench -p tidegate-tests --bench floods`, or `.ci/deep floods`.
//!
//! Each flood is a process of its own, on loopback, for as long as the orders take. An order is a
//! halt or a resume over a connection of its own, as the command line sends it. Figures are to be
//! compared within one run: with the row `none`. Names of floods as arguments leave out the others.
#![expect(clippy::unwrap_used, reason = "a panic is how a benchmark reports")]

use std::io::Read as _;
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use tidegate_protocol::{SessionRequest, paths};
use tidegate_tests::{Database, Device, Server};
use tidegate_trust::SecretKey;
use tidegate_trust::http_signature::{RequestFacts, sign_request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// Hostile connections.
const CONNECTIONS: usize = 3_000;
/// Hosts that they come from.
const HOSTS: usize = 4;
/// Orders measured in each flood; half of them are halts.
const ORDERS: usize = 400;
/// Longest that a flood runs, if nobody ends it.
const LONGEST: Duration = Duration::from_mins(2);

const FLOODS: [(&str, &str); 10] = [
    ("none", "nothing"),
    ("idle", "connections that send nothing"),
    ("half", "half a head"),
    ("body", "a body that does not come"),
    (
        "session",
        "sessions of an unknown device, signed, over and over",
    ),
    (
        "enroll",
        "enrolments with an invented token, signed, over and over",
    ),
    ("token", "requests with an invented token, over and over"),
    ("signed", "signed files that are not there, over and over"),
    (
        "ready",
        "questions whether the server is ready, over and over",
    ),
    ("reader", "blobs that are asked for and not read"),
];

/// Key of the flooder.
const SEED: [u8; 32] = [7; 32];

/// A request as bytes, signed by its key with a nonce of the server.
async fn signed(address: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let url = format!("http://{address}{path}");
    let http = reqwest::Client::new();
    let first = http.post(&url).body(body.to_vec()).send().await.unwrap();
    let nonce = first.headers()["tidegate-nonce"].to_str().unwrap();
    let key = SecretKey::from_seed(SEED);
    let facts = RequestFacts {
        method: "POST",
        authority: address,
        path,
        query: "",
        body,
    };
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let now = i64::try_from(now.as_secs()).unwrap();
    let signed = sign_request(&key, &facts, now, nonce);
    let mut bytes = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\nContent-Digest: {}\r\n\
         Signature-Input: {}\r\nSignature: {}\r\n\r\n",
        body.len(),
        signed.content_digest,
        signed.signature_input,
        signed.signature
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// Conduct of a connection once it has sent its bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It waits until the server closes.
    Waits,
    /// It reads each answer and sends again.
    Repeats,
    /// It reads nothing until the server has had enough.
    ReadsNothing,
}

/// Bytes that each connection of a flood sends, and what it does then.
async fn attack(kind: &str, address: &str, blob: &str) -> (Vec<u8>, Then) {
    let post = format!("POST {} HTTP/1.1\r\nHost: {address}\r\n", paths::SESSION);
    match kind {
        "idle" => (Vec::new(), Then::Waits),
        "half" => (post.into_bytes(), Then::Waits),
        "body" => (
            format!("{post}Content-Length: 2000000\r\n\r\n{{").into_bytes(),
            Then::Waits,
        ),
        "session" => {
            let body = serde_json::to_vec(&SessionRequest {
                format: tidegate_protocol::Format::CURRENT,
                device: "dev_0123456789abcdef0123456789abcdef".parse().unwrap(),
                counter: 1,
            });
            (
                signed(address, paths::SESSION, &body.unwrap()).await,
                Then::Repeats,
            )
        }
        "enroll" => {
            let hex = |byte: u8| format!("{byte:02x}").repeat(32);
            let token = format!("tgj2_{}_{}_{}_0.0.0.0", &hex(1)[..32], hex(2), hex(3));
            let body = json!({
                "format": 1, "token": token, "public_key": SecretKey::from_seed(SEED).public().to_string(),
                "name": "nobody", "product": "app", "platform": "linux-x86_64",
            });
            let body = body.to_string();
            (
                signed(address, paths::ENROLL, body.as_bytes()).await,
                Then::Repeats,
            )
        }
        "token" | "signed" | "ready" => {
            let path = match kind {
                "token" => "/api/v1/rollouts",
                "signed" => "/metadata/99.root.json",
                _ => "/readyz",
            };
            let token = format!("tgo_{}_{}", "0".repeat(32), "0".repeat(64));
            let text = format!(
                "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n"
            );
            (text.into_bytes(), Then::Repeats)
        }
        "reader" => {
            let text = format!("GET /blobs/{blob} HTTP/1.1\r\nHost: {address}\r\n\r\n");
            (text.into_bytes(), Then::ReadsNothing)
        }
        other => panic!("no flood {other}"),
    }
}

/// Floods until the parent ends this process; tells it when all connections were opened once.
async fn flood(kind: &str, address: &str, blob: &str) {
    let (bytes, then) = attack(kind, address, blob).await;
    let bytes: std::sync::Arc<[u8]> = bytes.into();
    let to: SocketAddr = address.parse().unwrap();
    let (opened, mut all) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..CONNECTIONS {
        // Hosts of the flooder's own: on Linux all of 127.0.0.0/8 is this machine.
        let from = SocketAddr::from(([127, 0, 0, 2 + u8::try_from(n % HOSTS).unwrap()], 0));
        let (bytes, address, opened) = (bytes.clone(), to, opened.clone());
        tokio::spawn(async move {
            let mut told = false;
            loop {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(from).unwrap();
                let Ok(mut stream) = socket.connect(address).await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                if !told {
                    told = true;
                    let _ = opened.send(());
                }
                let mut answer = vec![0; 4_096];
                let mut open = stream.write_all(&bytes).await.is_ok();
                if then == Then::ReadsNothing {
                    let _ = stream.ready(tokio::io::Interest::ERROR).await;
                    open = false;
                }
                while open {
                    open = matches!(stream.read(&mut answer).await, Ok(n) if n > 0)
                        && (then == Then::Waits || stream.write_all(&bytes).await.is_ok());
                }
                // As quick as it can, but not a loop of nothing but connecting.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    for _ in 0..CONNECTIONS {
        all.recv().await.unwrap();
    }
    println!("open");
    tokio::time::sleep(LONGEST).await;
}

/// Starts a flood and waits until its connections are open.
fn start(kind: &str, address: &str, blob: &str) -> Option<Child> {
    if kind == "none" {
        return None;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--flood", kind, address, blob])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 5];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut said)
        .unwrap();
    Some(child)
}

/// Gives an order; returns the time until it was connected, and until it was answered.
async fn order(server: &Server, address: &str, rollout: &str, verb: &str) -> [Duration; 2] {
    let body = r#"{"reason":"bench"}"#;
    let request = format!(
        "POST /api/v1/rollouts/{rollout}/{verb} HTTP/1.1\r\nHost: {address}\r\n\
         Authorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{body}",
        server.token,
        body.len(),
    );
    let began = Instant::now();
    // A connection of its own: the flood is before it.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let connected = began.elapsed();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let whole = stream.read_to_string(&mut answer);
    let read = tokio::time::timeout(Duration::from_secs(30), whole).await;
    let took = began.elapsed();
    read.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 2"), "{verb}: {answer}");
    [connected, took]
}

fn percentile(sorted: &[Duration], of_hundred: usize) -> f64 {
    let at = (sorted.len() * of_hundred / 100).min(sorted.len() - 1);
    sorted[at].as_secs_f64() * 1e3
}

async fn measure(chosen: &[&str]) {
    let server = Server::start_on(Database::Sqlite).await;
    let address = server.url.trim_start_matches("http://").to_owned();
    let trees = server.publish(&[("1.0.0", true), ("1.1.0", true)]);
    let token = server.join_token();
    // Offline: the rollout waits for it all the time.
    let installed = Some((trees[0].as_path(), "1.0.0"));
    let _device = Device::enroll(
        server.dir.path(),
        "one",
        &server.url,
        &token,
        "NA",
        installed,
    );
    let rollout = server.roll_out("1.1.0", &["NA"], json!({})).await;
    let artifact = server.get("/api/v1/products/app/releases/1.1.0").await;
    let blob = artifact["artifacts"][0]["sha256"]
        .as_str()
        .unwrap()
        .to_owned();
    println!("{CONNECTIONS} connections, {ORDERS} orders each, milliseconds");
    println!(
        "{:<8} {:>8} {:>8} {:>8} {:>15}  flood",
        "", "median", "p99", "max", "connecting: max"
    );
    let floods = FLOODS.iter();
    for (kind, what) in floods.filter(|(kind, _)| chosen.is_empty() || chosen.contains(kind)) {
        let child = start(kind, &address, &blob);
        let (mut connecting, mut halts) = (Duration::ZERO, Vec::new());
        for n in 0..ORDERS {
            let verb = if n % 2 == 0 { "halt" } else { "resume" };
            let [connected, took] = order(&server, &address, &rollout, verb).await;
            if verb == "halt" {
                connecting = connecting.max(connected);
                halts.push(took);
            }
        }
        if let Some(mut child) = child {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        halts.sort_unstable();
        let [median, p99, max] = [50, 99, 100].map(|p| percentile(&halts, p));
        let connecting = connecting.as_secs_f64() * 1e3;
        println!("{kind:<8} {median:>8.1} {p99:>8.1} {max:>8.1} {connecting:>15.1}  {what}");
    }
}

#[tokio::main]
async fn main() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--flood", kind, address, blob] => flood(kind, address, blob).await,
        // Cargo adds `--bench` of its own.
        ref chosen => {
            let names = chosen.iter().filter(|name| !name.starts_with("--"));
            measure(&names.copied().collect::<Vec<_>>()).await;
        }
    }
}
