//! Bodies that know how long they take.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, Incoming, SizeHint};
use tidegate_web::connections::{Connection, Phase};
use tokio::time::{Instant, Sleep};

use super::Patience;
use super::patience::MINIMUM_RATE;

/// A request's body that fails when its client is too slow.
pub(super) struct Slow {
    body: Incoming,
    patience: Patience,
    began: Option<Instant>,
    /// Bytes that have come.
    read: u64,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Slow {
    pub(super) fn new(body: Incoming, patience: Patience) -> Self {
        Self {
            body,
            patience,
            began: None,
            read: 0,
            timer: None,
        }
    }

    /// Moment by which the next part must have come.
    fn deadline(&self, began: Instant, now: Instant) -> Instant {
        let whole = std::time::Duration::from_secs(self.read / MINIMUM_RATE);
        (began + self.patience.body + whole).min(now + self.patience.body)
    }
}

impl hyper::body::Body for Slow {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        let this = &mut *self;
        let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(cx) else {
            let now = Instant::now();
            let began = *this.began.get_or_insert(now);
            let deadline = this.deadline(began, now);
            let timer = this
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            ready!(timer.as_mut().poll(cx));
            let slow = io::Error::new(io::ErrorKind::TimedOut, "the body came too slowly");
            return Poll::Ready(Some(Err(slow.into())));
        };
        this.timer = None;
        if let Some(Ok(frame)) = &frame {
            let bytes = frame.data_ref().map_or(0, Bytes::len);
            this.read += u64::try_from(bytes).unwrap_or(u64::MAX);
        }
        Poll::Ready(frame.map(|f| f.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body; at its end the connection waits for the next request.
pub(super) struct Watched {
    body: Body,
    connection: Arc<Connection>,
}

impl Watched {
    pub(super) fn new(body: Body, connection: Arc<Connection>) -> Self {
        Self { body, connection }
    }
}

impl hyper::body::Body for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.connection.begin(Phase::Idle);
    }
}
