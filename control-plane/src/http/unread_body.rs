//! Handles unread bodies: a request that is refused early leaves some of its body on the connection.
//!
//! The outermost middleware watches each body. A short rest that is already arriving is read and discarded, and the
//! connection continues. Otherwise the connection is closed, and the answer says so with `Connection: close`. Without
//! that header, a client would send its next request on a closed connection and see a failure.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::header;
use futures_util::{Stream, StreamExt as _};

/// Maximum length of a rest that is read. A longer one costs more than a new connection.
const DRAINED_BYTES_MAX: usize = 64 << 10;
/// How long to wait for the rest. A body that was sent together with its headers has arrived by then.
const DRAIN_MAX: Duration = Duration::from_millis(20);

/// The state of a request's body.
#[derive(Debug)]
pub(crate) struct BodyWatch {
    left: Arc<Mutex<UnreadBody>>,
    /// Whether the client waits for permission to send its body, and did not get it.
    waits: bool,
}

#[derive(Debug)]
enum UnreadBody {
    /// A handler still holds the body.
    Held,
    /// The body was read to its end.
    Nothing,
    /// The body was dropped before its end.
    Rest(BodyDataStream),
}

/// A body on its way to a handler.
struct WatchedBody {
    inner: Option<BodyDataStream>,
    left: Arc<Mutex<UnreadBody>>,
}

/// The request with its body watched.
pub(crate) fn watch_body(request: Request) -> (Request, BodyWatch) {
    let waits = request.headers().contains_key(header::EXPECT);
    if request.body().is_end_stream() {
        return (request, BodyWatch { left: Arc::new(Mutex::new(UnreadBody::Nothing)), waits: false });
    }
    let left = Arc::new(Mutex::new(UnreadBody::Held));
    let of_body = Arc::clone(&left);
    let wrap = |body: Body| Body::from_stream(WatchedBody { inner: Some(body.into_data_stream()), left: of_body });
    (request.map(wrap), BodyWatch { left, waits })
}

impl BodyWatch {
    /// Whether the connection can serve another request: the body was read, or its short rest can be read now.
    pub(crate) async fn finish_body(self) -> bool {
        let left = std::mem::replace(&mut *lock_left(&self.left), UnreadBody::Held);
        match left {
            UnreadBody::Nothing => true,
            UnreadBody::Held => false,
            UnreadBody::Rest(_) if self.waits => false,
            UnreadBody::Rest(rest) => tokio::time::timeout(DRAIN_MAX, drain_body(rest)).await.unwrap_or(false),
        }
    }
}

/// Reads to the end. False if the rest is too long or too late.
async fn drain_body(mut rest: BodyDataStream) -> bool {
    let mut bytes = 0;
    while let Some(chunk) = rest.next().await {
        bytes += chunk.as_ref().map_or(usize::MAX, Bytes::len);
        if bytes > DRAINED_BYTES_MAX {
            return false;
        }
    }
    true
}

impl Stream for WatchedBody {
    type Item = Result<Bytes, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(inner) = &mut self.inner else { return Poll::Ready(None) };
        let next = inner.poll_next_unpin(context);
        if matches!(next, Poll::Ready(None)) {
            self.inner = None;
            *lock_left(&self.left) = UnreadBody::Nothing;
        }
        next
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if let Some(rest) = self.inner.take() {
            *lock_left(&self.left) = UnreadBody::Rest(rest);
        }
    }
}

fn lock_left(left: &Mutex<UnreadBody>) -> std::sync::MutexGuard<'_, UnreadBody> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}
