//! A TCP proxy that cuts and changes the bytes from server to device.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Treatment of the server's bytes.
#[derive(Clone)]
pub enum Mode {
    /// Passes them unchanged.
    Pass,
    /// Closes each connection after this many bytes.
    CutAfter(u64),
    /// Replaces the first text with the second, of the same length.
    Replace(Vec<u8>, Vec<u8>),
}

/// A running proxy; it ends with the test's runtime.
pub struct Proxy {
    /// Its address.
    pub url: String,
    mode: Arc<Mutex<Mode>>,
    passed: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
}

impl Proxy {
    /// Starts a proxy in front of a server.
    pub async fn start(server: &str, mode: Mode) -> Self {
        let target: SocketAddr = server.trim_start_matches("http://").parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            mode: Arc::new(Mutex::new(mode)),
            passed: Arc::default(),
            cuts: Arc::default(),
        };
        let (mode, passed, cuts) = (proxy.mode.clone(), proxy.passed.clone(), proxy.cuts.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let connection = pass(client, target, mode.clone(), passed.clone(), cuts.clone());
                tokio::spawn(connection);
            }
        });
        proxy
    }

    /// Changes the mode from now on.
    pub fn set(&self, mode: Mode) {
        *self.mode.lock().unwrap() = mode;
    }

    /// Number of bytes passed from the server so far.
    pub fn passed(&self) -> u64 {
        self.passed.load(Ordering::SeqCst)
    }

    /// Number of connections cut so far.
    pub fn cuts(&self) -> u64 {
        self.cuts.load(Ordering::SeqCst)
    }
}

async fn pass(
    mut client: TcpStream,
    target: SocketAddr,
    mode: Arc<Mutex<Mode>>,
    passed: Arc<AtomicU64>,
    cuts: Arc<AtomicU64>,
) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let up = async {
        tokio::io::copy(&mut from_client, &mut to_server).await?;
        to_server.shutdown().await
    };
    let down = async {
        let mut buffer = vec![0; 64 << 10];
        let mut total = 0u64;
        loop {
            let read = from_server.read(&mut buffer).await?;
            if read == 0 {
                return to_client.shutdown().await;
            }
            let mode = mode.lock().unwrap().clone();
            let mut take = read;
            match &mode {
                Mode::Pass => {}
                Mode::CutAfter(limit) => {
                    take = take.min(usize::try_from(limit.saturating_sub(total)).unwrap());
                }
                Mode::Replace(from, to) => replace(&mut buffer[..read], from, to),
            }
            to_client.write_all(&buffer[..take]).await?;
            passed.fetch_add(take as u64, Ordering::SeqCst);
            total += take as u64;
            if take < read {
                cuts.fetch_add(1, Ordering::SeqCst);
                return Err(std::io::ErrorKind::ConnectionAborted.into());
            }
        }
    };
    tokio::try_join!(up, down).map(drop)
}

fn replace(bytes: &mut [u8], from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let mut at = 0;
    while at + from.len() <= bytes.len() {
        if bytes[at..].starts_with(from) {
            bytes[at..at + to.len()].copy_from_slice(to);
            at += to.len();
        } else {
            at += 1;
        }
    }
}
