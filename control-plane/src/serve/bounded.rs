//! A bound on open connections: beyond it a new one is closed at once, which a client and its load balancer notice,
//! while the ones that are open keep their descriptors. Every connection's writes are timed (`timed_stream.rs`).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use super::timed_stream::{STALL_MAX, TimedStream};
use crate::metrics::HTTP_CONNECTIONS;

/// An acceptor that admits so many connections at once.
#[derive(Debug, Clone)]
pub(super) struct Bounded<A> {
    inner: A,
    listener: &'static str,
    free: Arc<Semaphore>,
}

impl<A> Bounded<A> {
    pub(super) fn new(inner: A, listener: &'static str, connections_max: usize) -> Self {
        Self { inner, listener, free: Arc::new(Semaphore::new(connections_max)) }
    }
}

impl<A, I, S> Accept<I, S> for Bounded<A>
where
    A: Accept<I, Counted<S>, Future: Send + 'static, Stream: Send + 'static, Service: Send + 'static>,
{
    type Stream = TimedStream<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, A::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            tracing::warn!(listener = self.listener, "every connection is in use; a new one was closed");
            return Box::pin(std::future::ready(Err(io::Error::other("every connection is in use"))));
        };
        let slot = Arc::new(Slot::new(permit, self.listener));
        let accepted = self.inner.accept(stream, Counted { service, _slot: slot });
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            Ok((TimedStream::new(stream, STALL_MAX), service))
        })
    }
}

/// One connection's place.
#[derive(Debug)]
struct Slot {
    listener: &'static str,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    fn new(permit: OwnedSemaphorePermit, listener: &'static str) -> Self {
        metrics::gauge!(HTTP_CONNECTIONS, "listener" => listener).increment(1);
        Self { listener, _permit: permit }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        metrics::gauge!(HTTP_CONNECTIONS, "listener" => self.listener).decrement(1);
    }
}

/// The service of one connection, holding its place until the connection is gone.
#[derive(Debug, Clone)]
pub(super) struct Counted<S> {
    service: S,
    _slot: Arc<Slot>,
}

impl<S: Service<R>, R> Service<R> for Counted<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: R) -> S::Future {
        self.service.call(request)
    }
}
