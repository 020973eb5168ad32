//! A connection whose peer must read. An answer that nobody reads holds memory and a descriptor.
//!
//! Reading has its own limits (headers, bodies). Writing may wait for [`STALL_MAX`]. Then the connection fails, and the
//! rest of the answer is dropped.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// How long a peer may take for [`PROGRESS_BYTES`]. A slow link manages that; a client that reads nothing does not.
pub(super) const STALL_MAX: Duration = Duration::from_secs(30);
/// The amount that counts as progress. Otherwise a byte now and then could hold an answer for days.
const PROGRESS_BYTES: usize = 64 << 10;

/// The stream of one connection.
#[derive(Debug)]
pub(super) struct TimedStream<S> {
    inner: S,
    stall_max: Duration,
    /// A timer that runs while data waits to be written.
    stalled: Option<Pin<Box<Sleep>>>,
    written: usize,
}

impl<S> TimedStream<S> {
    pub(super) fn new(inner: S, stall_max: Duration) -> Self {
        Self { inner, stall_max, stalled: None, written: 0 }
    }

    fn count_written(&mut self, bytes: usize) {
        self.written += bytes;
        if self.written >= PROGRESS_BYTES {
            self.caught_up();
        }
    }

    fn caught_up(&mut self) {
        (self.stalled, self.written) = (None, 0);
    }

    /// Waits for the peer, at most [`STALL_MAX`].
    fn poll_stalled<T>(&mut self, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        let stall_max = self.stall_max;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall_max)));
        ready!(stalled.as_mut().poll(context));
        tracing::debug!("a client does not read its answer; its connection is closed");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }

    fn after_write(&mut self, context: &mut Context<'_>, done: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match done {
            Poll::Pending => self.poll_stalled(context),
            Poll::Ready(Ok(bytes)) => {
                self.count_written(bytes);
                Poll::Ready(Ok(bytes))
            }
            failed => failed,
        }
    }

    fn after_flush(&mut self, context: &mut Context<'_>, done: Poll<io::Result<()>>) -> Poll<io::Result<()>> {
        match done {
            Poll::Pending => self.poll_stalled(context),
            done => {
                self.caught_up();
                done
            }
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for TimedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.after_write(context, done)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.after_write(context, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(context);
        self.after_flush(context, done)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_shutdown(context);
        self.after_flush(context, done)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(3_600);

    #[tokio::test]
    async fn who_reads_nothing_is_given_up() {
        let (ours, theirs) = tokio::io::duplex(1_024);
        let mut stream = TimedStream::new(ours, SHORT);
        let failed = stream.write_all(&[0; PROGRESS_BYTES]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(theirs);
    }

    #[tokio::test]
    async fn who_reads_gets_everything() {
        let (ours, mut theirs) = tokio::io::duplex(1_024);
        let mut stream = TimedStream::new(ours, LONG);
        let writing = tokio::spawn(async move {
            stream.write_all(&[7; PROGRESS_BYTES * 3]).await?;
            stream.shutdown().await
        });
        let mut taken = Vec::new();
        theirs.read_to_end(&mut taken).await.unwrap();
        writing.await.unwrap().unwrap();
        assert_eq!(taken.len(), PROGRESS_BYTES * 3);
    }

    #[tokio::test]
    async fn a_byte_now_and_then_is_no_reading() {
        let (ours, mut theirs) = tokio::io::duplex(1_024);
        let mut stream = TimedStream::new(ours, SHORT);
        let reading = tokio::spawn(async move {
            while theirs.read_u8().await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let failed = stream.write_all(&[0; PROGRESS_BYTES]).await.unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        reading.abort();
    }
}
