//! Bodies that nobody read: a request that is refused early leaves some of its body on the connection.
//!
//! The outermost middleware watches each body. What is on its way and short is read and thrown away, and the connection
//! goes on. Anything else ends the connection, and the answer says so with `Connection: close`: a client that sends its
//! next request on a connection that is closed without a word takes that for a failure.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes, HttpBody as _};
use axum::extract::Request;
use axum::http::header;
use futures_util::{Stream, StreamExt as _};

/// What is longer costs more to read than a new connection.
const DRAINED_BYTES_MAX: usize = 64 << 10;
/// A body that was sent together with its headers is here by then.
const DRAIN_MAX: Duration = Duration::from_millis(20);

/// What became of a request's body.
#[derive(Debug)]
pub(crate) struct BodyWatch {
    left: Arc<Mutex<Left>>,
    /// The client sends its body only when it is told to, and was not.
    waits: bool,
}

#[derive(Debug)]
enum Left {
    /// Somebody still has it.
    Held,
    /// Read to its end.
    Nothing,
    /// Dropped before its end.
    Rest(BodyDataStream),
}

/// A body on its way to a handler.
struct WatchedBody {
    inner: Option<BodyDataStream>,
    left: Arc<Mutex<Left>>,
}

/// The same request, whose body is watched.
pub(crate) fn watch(request: Request) -> (Request, BodyWatch) {
    let waits = request.headers().contains_key(header::EXPECT);
    if request.body().is_end_stream() {
        return (request, BodyWatch { left: Arc::new(Mutex::new(Left::Nothing)), waits: false });
    }
    let left = Arc::new(Mutex::new(Left::Held));
    let of_body = Arc::clone(&left);
    let wrap = |body: Body| Body::from_stream(WatchedBody { inner: Some(body.into_data_stream()), left: of_body });
    (request.map(wrap), BodyWatch { left, waits })
}

impl BodyWatch {
    /// Whether the connection can serve another request: the body was read, or its short rest is read now.
    pub(crate) async fn finish(self) -> bool {
        let left = std::mem::replace(&mut *lock(&self.left), Left::Held);
        match left {
            Left::Nothing => true,
            Left::Held => false,
            Left::Rest(_) if self.waits => false,
            Left::Rest(rest) => tokio::time::timeout(DRAIN_MAX, drain(rest)).await.unwrap_or(false),
        }
    }
}

/// Reads to the end, unless that is too far.
async fn drain(mut rest: BodyDataStream) -> bool {
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
            *lock(&self.left) = Left::Nothing;
        }
        next
    }
}

impl Drop for WatchedBody {
    fn drop(&mut self) {
        if let Some(rest) = self.inner.take() {
            *lock(&self.left) = Left::Rest(rest);
        }
    }
}

fn lock(left: &Mutex<Left>) -> std::sync::MutexGuard<'_, Left> {
    left.lock().unwrap_or_else(PoisonError::into_inner)
}
