//! Conversations: one line of JSON in, one out.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

#[cfg(windows)]
use super::pipe as door;
#[cfg(unix)]
use super::socket as door;
use super::words::{Ask, Reply};
use super::{Control, PATIENCE};
use crate::log;

/// Upper bound on the length of a line, in bytes.
const LINE: u64 = 64 << 10;
/// Upper bound on concurrent requests.
const AT_ONCE: usize = 8;

impl Control {
    async fn talk(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) -> io::Result<()> {
        let mut line = Vec::new();
        let mut byte = [0];
        // Read one line only: the client keeps its side open until it has the answer.
        while stream.read(&mut byte).await? == 1 && byte[0] != b'\n' {
            line.push(byte[0]);
            if line.len() as u64 > LINE {
                return Err(io::Error::other("line too long"));
            }
        }
        let reply = match serde_json::from_slice(&line) {
            Ok(ask) => self.answer(ask),
            Err(error) => Reply {
                ok: false,
                text: format!("invalid request: {error}"),
                live: self.live(),
                standing: None,
            },
        };
        let mut text = serde_json::to_vec(&reply)?;
        text.push(b'\n');
        stream.write_all(&text).await?;
        stream.shutdown().await
    }

    async fn talk_briefly(&self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let talked = tokio::time::timeout(PATIENCE, self.talk(stream)).await;
        if let Ok(Err(error)) = talked {
            log::line(&format!("local control: {error}"));
        }
    }
}

/// Serves the socket for as long as it is polled; returns only on an error.
pub(crate) async fn serve(
    control: Arc<Control>,
    at: &Path,
    group: Option<&str>,
) -> io::Result<std::convert::Infallible> {
    let permits = Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut door = door::open(at, group)?;
    loop {
        let permit = permits
            .clone()
            .acquire_owned()
            .await
            .map_err(io::Error::other)?;
        let stream = door::next(&mut door, at).await?;
        let control = control.clone();
        tokio::spawn(async move {
            control.talk_briefly(stream).await;
            drop(permit);
        });
    }
}

/// Sends a request to a running agent.
pub(crate) fn ask(at: &Path, ask: Ask) -> io::Result<Reply> {
    let mut stream = door::knock(at)?;
    let mut line = serde_json::to_vec(&ask)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut text = Vec::new();
    stream.take(LINE).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}
