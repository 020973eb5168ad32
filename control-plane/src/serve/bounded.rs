//! Limits open connections. Beyond the limit a new connection is closed at once. Its client and load balancer notice
//! that, and open connections keep their descriptors. Every connection is prepared first
//! ([`AcceptedConnection::prepare_connection`]), and its writes are timed (`timed_stream.rs`).

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum_server::accept::Accept;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::Service;

use super::timed_stream::{STALL_MAX, TimedStream};
use crate::metrics::HTTP_CONNECTIONS;

/// An acceptor that admits a limited number of connections at once.
#[derive(Debug, Clone)]
pub(super) struct BoundedAcceptor<A> {
    inner: A,
    listener: &'static str,
    free: Arc<Semaphore>,
}

impl<A> BoundedAcceptor<A> {
    pub(super) fn new(inner: A, listener: &'static str, connections_max: usize) -> Self {
        Self { inner, listener, free: Arc::new(Semaphore::new(connections_max)) }
    }
}

/// A connection as a listener accepted it.
pub(super) trait AcceptedConnection {
    /// Prepares the connection for requests. If that fails, it is closed.
    fn prepare_connection(&self) -> io::Result<()>;
}

impl AcceptedConnection for TcpStream {
    /// Sends each answer at once. Otherwise the second of two answers waits for the client's delayed acknowledgement.
    fn prepare_connection(&self) -> io::Result<()> {
        self.set_nodelay(true)
    }
}

impl<A, I, S> Accept<I, S> for BoundedAcceptor<A>
where
    I: AcceptedConnection,
    A: Accept<I, CountedService<S>, Future: Send + 'static, Stream: Send + 'static, Service: Send + 'static>,
{
    type Stream = TimedStream<A::Stream>;
    type Service = A::Service;
    type Future = Pin<Box<dyn Future<Output = io::Result<(Self::Stream, A::Service)>> + Send>>;

    fn accept(&self, stream: I, service: S) -> Self::Future {
        let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() else {
            tracing::warn!(listener = self.listener, "every connection is in use; a new one was closed");
            return Box::pin(std::future::ready(Err(io::Error::other("every connection is in use"))));
        };
        if let Err(error) = stream.prepare_connection() {
            return Box::pin(std::future::ready(Err(error)));
        }
        let slot = Arc::new(ListenerSlot::new(permit, self.listener));
        let accepted = self.inner.accept(stream, CountedService { service, _slot: slot });
        Box::pin(async move {
            let (stream, service) = accepted.await?;
            Ok((TimedStream::new(stream, STALL_MAX), service))
        })
    }
}

/// The slot of one connection, counted by the metrics.
#[derive(Debug)]
struct ListenerSlot {
    listener: &'static str,
    _permit: OwnedSemaphorePermit,
}

impl ListenerSlot {
    fn new(permit: OwnedSemaphorePermit, listener: &'static str) -> Self {
        metrics::gauge!(HTTP_CONNECTIONS, "listener" => listener).increment(1);
        Self { listener, _permit: permit }
    }
}

impl Drop for ListenerSlot {
    fn drop(&mut self) {
        metrics::gauge!(HTTP_CONNECTIONS, "listener" => self.listener).decrement(1);
    }
}

/// The service of one connection. It holds its slot until the connection is gone.
#[derive(Debug, Clone)]
pub(super) struct CountedService<S> {
    service: S,
    _slot: Arc<ListenerSlot>,
}

impl<S: Service<R>, R> Service<R> for CountedService<S> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Ready;
    use tokio::net::TcpListener;

    /// The acceptor below [`BoundedAcceptor`] in a listener: none, or TLS.
    #[derive(Clone)]
    struct Underneath;

    impl<S> Accept<TcpStream, S> for Underneath {
        type Stream = tokio::io::DuplexStream;
        type Service = S;
        type Future = Ready<io::Result<(Self::Stream, S)>>;

        fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
            assert!(stream.nodelay().unwrap(), "the first byte of a handshake leaves at once, too");
            std::future::ready(Ok((tokio::io::duplex(1).0, service)))
        }
    }

    #[tokio::test]
    async fn every_accepted_connection_sends_at_once() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        assert!(!accepted.nodelay().unwrap(), "what the operating system gives");
        BoundedAcceptor::new(Underneath, "data", 1).accept(accepted, ()).await.unwrap();
    }
}
