//! Fetching of one part of a blob, with everything in the answer's head checked before its bytes count.

use std::ops::Range;
use std::time::{Duration, Instant};

use http_body_util::BodyExt as _;
use hyper::header::{CONTENT_LENGTH, CONTENT_RANGE};
use hyper::{HeaderMap, Method, StatusCode};

use super::client::Client;
use super::error::{TransportError, refused};
use super::line::CONNECT;
use super::rate::MinimumRate;

/// A part of a blob.
#[derive(Debug)]
pub struct Part<'a> {
    /// Path of the blob, which names its hash: whatever has this name has these bytes, so that no
    /// ETag is compared.
    pub path: &'a str,
    /// The bytes that are asked for.
    pub range: Range<u64>,
    /// Length of the whole blob.
    pub total: u64,
    /// Whether an answer that begins at the blob's first byte is read although a later one was asked
    /// for.
    pub from_start: bool,
    /// Longest wait for the next bytes.
    pub silence: Duration,
}

/// Verdict of the callback on the bytes it was given.
pub struct Taken<E> {
    /// Reason to stop reading; `None` to go on.
    pub stop: Option<E>,
    /// Delay before the next read.
    pub pause: Duration,
}

impl Part<'_> {
    /// Checks the head of an answer; returns the offset at which its body begins.
    fn begins(&self, status: StatusCode, headers: &HeaderMap) -> Result<u64, TransportError> {
        let malformed = |text: String| Err(TransportError::Malformed(text));
        let Range { start, end } = self.range;
        let (begins, ends) = match status {
            StatusCode::OK if start > 0 && !self.from_start => {
                return malformed("it is the whole blob, and a part was asked for".into());
            }
            StatusCode::OK => (0, self.total),
            StatusCode::PARTIAL_CONTENT => {
                // A different range must not be mistaken for the requested one.
                let said = headers.get(CONTENT_RANGE).and_then(|v| v.to_str().ok());
                if !said.is_some_and(|said| self.is_asked_for(said)) {
                    let said: String = said.unwrap_or("no range").chars().take(80).collect();
                    return malformed(format!(
                        "it is a different range than requested: {said:?} for bytes {start}-{}/{}",
                        end.saturating_sub(1),
                        self.total
                    ));
                }
                (start, end)
            }
            status => return Err(refused(status, b"while fetching a blob")),
        };
        let length = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
        match length {
            Some(length) if length.parse() != Ok(ends - begins) => malformed(format!(
                "it has {} bytes where there must be {}",
                length.chars().take(20).collect::<String>(),
                ends - begins
            )),
            // Without a length its end is seen when it comes.
            _ => Ok(begins),
        }
    }

    fn is_asked_for(&self, content_range: &str) -> bool {
        let parse = || {
            // The name of the unit is case-insensitive.
            let (unit, said) = content_range.split_once(' ')?;
            if !unit.eq_ignore_ascii_case("bytes") {
                return None;
            }
            let (range, total) = said.split_once('/')?;
            let (first, last) = range.split_once('-')?;
            let total = match total.trim() {
                "*" => self.total,
                total => total.parse().ok()?,
            };
            Some((first.parse::<u64>().ok()?, last.parse::<u64>().ok()?, total))
        };
        let Range { start, end } = self.range;
        parse() == Some((start, end.saturating_sub(1), self.total))
    }
}

impl Client {
    /// Fetches a part of a blob and passes its bytes to `take` as they arrive, with their offset in
    /// the blob.
    pub async fn fetch<E>(
        &mut self,
        part: Part<'_>,
        mut take: impl FnMut(u64, &[u8]) -> Taken<E>,
    ) -> Result<Result<(), E>, TransportError> {
        let (start, end) = (part.range.start, part.range.end);
        let wanted = format!("bytes={start}-{}", end.saturating_sub(1));
        let headers = [("range", wanted.as_str())];
        let asked = self.request(Method::GET, part.path, &headers, Vec::new());
        let response = tokio::time::timeout(CONNECT.min(part.silence) + part.silence, asked)
            .await
            .map_err(|_| TransportError::Timeout)??;
        let (head, mut incoming) = response.into_parts();
        let mut at = part.begins(head.status, &head.headers).inspect_err(|_| {
            self.connection = None;
        })?;
        let mut rate = MinimumRate::begin(Instant::now());
        loop {
            let frame = tokio::time::timeout(part.silence, incoming.frame()).await;
            let frame = match frame {
                Err(_) => {
                    self.connection = None;
                    return Err(TransportError::Timeout);
                }
                Ok(None) => return Ok(Ok(())),
                Ok(Some(frame)) => frame.map_err(|e| self.broken(&e))?,
            };
            if let Ok(data) = frame.into_data() {
                if !rate.continues(Instant::now(), data.len()) {
                    self.connection = None;
                    return Err(TransportError::Timeout);
                }
                let taken = take(at, &data);
                at += data.len() as u64;
                if let Some(stop) = taken.stop {
                    // The whole range has arrived: the connection can be reused for the next one.
                    if at != end
                        || tokio::time::timeout(part.silence, incoming.frame())
                            .await
                            .is_err()
                    {
                        self.connection = None;
                    }
                    return Ok(Err(stop));
                }
                if !taken.pause.is_zero() {
                    tokio::time::sleep(taken.pause).await;
                }
            }
        }
    }
}
