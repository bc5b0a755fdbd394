//! TLS of the server: 1.3, 1.2 where it is enabled, and the hybrid key exchange first.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, crypto::aws_lc_rs};
use tidegate_tests::{Database, Device, Server};

/// Creates a certificate authority's file, and a server's certificate and key for 127.0.0.1.
fn certificates(dir: &Path) -> [PathBuf; 3] {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = Issuer::from_params(&params, &ca_key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let files = ["ca.pem", "cert.pem", "key.pem"].map(|name| dir.join(name));
    std::fs::write(&files[0], ca.pem()).unwrap();
    std::fs::write(&files[1], leaf.pem()).unwrap();
    std::fs::write(&files[2], key.serialize_pem()).unwrap();
    files
}

async fn serve(dir: &Path, more: &[&str]) -> (Server, PathBuf) {
    let [ca, cert, key] = certificates(dir);
    let (cert, key) = (cert.display().to_string(), key.display().to_string());
    let mut options = vec!["--tls-cert", &cert, "--tls-key", &key];
    options.extend(more);
    let server = Server::start_with(Database::Sqlite, &options).await;
    assert!(server.url.starts_with("https://"), "{}", server.url);
    (server, ca)
}

/// Does a handshake as a client of these versions; returns the agreed version and key exchange.
fn shake(
    server: &Server,
    ca: &Path,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> Result<(ProtocolVersion, String), std::io::Error> {
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = RootCertStore::empty();
    roots
        .add(rustls::pki_types::CertificateDer::from_pem_file(ca).unwrap())
        .unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let address = server.url.trim_start_matches("https://");
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    while client.is_handshaking() {
        client.complete_io(&mut stream)?;
    }
    let group = client.negotiated_key_exchange_group().unwrap();
    Ok((
        client.protocol_version().unwrap(),
        format!("{:?}", group.name()),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_people_speak_tls_and_the_hybrid_group_comes_first() {
    let dir = tempfile::tempdir().unwrap();
    let (server, ca) = serve(dir.path(), &[]).await;
    let all = [&rustls::version::TLS13, &rustls::version::TLS12];
    let (version, group) = shake(&server, &ca, &all).unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_3);
    assert_eq!(group, "X25519MLKEM768");
    assert!(shake(&server, &ca, &[&rustls::version::TLS12]).is_err());

    let ca = ca.display().to_string();
    let cli = |arguments: &[&str]| {
        let mut all = vec!["--ca-file", &ca];
        all.extend(arguments);
        server.cli(&all)
    };
    cli(&["keys", "init", "--no-passphrase"]);
    let tree = tidegate_tests::application(server.dir.path(), "1.0.0", true);
    let tree = tree.display().to_string();
    cli(&[
        "release",
        "publish",
        &tree,
        "--product",
        "app",
        "--release",
        "1.0.0",
    ]);
    cli(&[
        "release", "promote", "app", "1.0.0", "--to", "ga", "--reason", "x",
    ]);
    let token = cli(&["device", "join-token", "--product", "app"]);
    let mut device = Device::blank(server.dir.path(), "plc");
    // Without the authority no certificate is trusted.
    let (ok, text) = device.try_enroll(&server.url, token.trim(), "NA", None, &[]);
    assert!(!ok && text.contains("certificate"), "{text}");
    let (ok, text) = device.try_enroll(&server.url, token.trim(), "NA", None, &["--ca-file", &ca]);
    assert!(ok, "{text}");
    device.run();
    cli(&[
        "rollout",
        "start",
        "--product",
        "app",
        "--release",
        "1.0.0",
        "--regions",
        "NA",
        "--soak",
        "0s",
        "--rollback-window",
        "0s",
    ]);
    device.settles_on("1.0.0").await;
    let doctor = |agent: &Path| {
        let examined = std::process::Command::new(agent)
            .args(["doctor", "--state"])
            .arg(&device.state)
            .output()
            .unwrap();
        String::from_utf8_lossy(&examined.stdout).into_owned()
    };
    let said = doctor(&device.agent);
    assert!(said.contains("TLSv1_3 with X25519"), "{said}");
    assert!(said.contains("days left"), "{said}");
    match std::env::var_os("TIDEGATE_POST_QUANTUM_AGENT") {
        Some(agent) => {
            let said = doctor(Path::new(&agent));
            assert!(said.contains("TLSv1_3 with X25519MLKEM768"), "{said}");
        }
        None => println!("skipped: no agent with the feature post-quantum is named"),
    }

    // The same through a proxy that requires a password and allows only tunnels.
    let proxy = Tunnels::start();
    let mut device = Device::blank(server.dir.path(), "behind-proxy");
    let token = cli(&["device", "join-token", "--product", "app"]);
    let address = format!("http://plant:secret@127.0.0.1:{}", proxy.port);
    let (ok, text) = device.try_enroll(&server.url, token.trim(), "NA", None, &["--ca-file", &ca]);
    assert!(ok, "{text}");
    device.run_with(&[("HTTPS_PROXY", &address), ("NO_PROXY", "")]);
    device.settles_on("1.0.0").await;
    assert!(proxy.opened.load(Ordering::SeqCst) > 0);
}

/// A proxy that supports only CONNECT, with one password.
struct Tunnels {
    port: u16,
    opened: Arc<AtomicU64>,
}

impl Tunnels {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tunnels = Self {
            port: listener.local_addr().unwrap().port(),
            opened: Arc::default(),
        };
        let opened = tunnels.opened.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let opened = opened.clone();
                std::thread::spawn(move || tunnel(stream, &opened));
            }
        });
        tunnels
    }
}

fn tunnel(mut stream: TcpStream, opened: &AtomicU64) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    let Some(Ok(first)) = lines.next() else {
        return;
    };
    let headers: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    // plant:secret
    let allowed = headers
        .iter()
        .any(|line| line.eq_ignore_ascii_case("proxy-authorization: Basic cGxhbnQ6c2VjcmV0"));
    let Some(place) = first.strip_prefix("CONNECT ").filter(|_| allowed) else {
        let _ = stream.write_all(b"HTTP/1.1 407 No\r\ncontent-length: 0\r\n\r\n");
        return;
    };
    let server = TcpStream::connect(place.split(' ').next().unwrap()).unwrap();
    opened.fetch_add(1, Ordering::SeqCst);
    stream.write_all(b"HTTP/1.1 200 Yes\r\n\r\n").unwrap();
    let (mut from, mut to) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    let mut back = server;
    let _ = std::io::copy(&mut back, &mut stream);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_clients_are_let_in_where_the_configuration_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (server, ca) = serve(dir.path(), &["--tls12"]).await;
    let (version, _) = shake(&server, &ca, &[&rustls::version::TLS12]).unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_2);
    let (version, _) = shake(&server, &ca, &[&rustls::version::TLS13]).unwrap();
    assert_eq!(version, ProtocolVersion::TLSv1_3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a28_a_client_that_dawdles_in_the_handshake_keeps_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let (server, ca) = serve(dir.path(), &[]).await;
    let address = server.url.trim_start_matches("https://");
    let idle: Vec<_> = (0..200)
        .map(|_| std::net::TcpStream::connect(address).unwrap())
        .collect();
    shake(&server, &ca, &[&rustls::version::TLS13]).unwrap();
    drop(idle);
}
