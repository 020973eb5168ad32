//! Stores the messages that handlers publish. One task per router, which stores all waiting messages in one transaction: the
//! catalog has one writer at a time, and a commit costs the same for one message and for many.

use std::sync::Arc;
use std::time::{Duration, Instant};

use catalog::Catalog;
use catalog::topics::{self, NewTopicMessage};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, Result};
use crate::metrics::RouterMetrics;

/// How many messages wait for the writer. More are refused: at 8 KiB each they take 8 MB.
pub(crate) const OUTBOX_MAX: usize = 1_000;

/// Messages of one transaction. It must not hold the catalog's write lock for long.
const BATCH_MAX: usize = 256;

/// Time between two removals of old messages.
const TRIM_EVERY: Duration = Duration::from_secs(10);

/// A message that waits for the writer.
pub(crate) struct OutgoingMessage {
    pub(super) message: NewTopicMessage,
    /// Gets the message's number.
    pub(super) stored: oneshot::Sender<Result<i64>>,
}

/// Stores messages until told to stop.
pub(super) async fn store_messages(
    mut inbox: mpsc::Receiver<OutgoingMessage>,
    catalog: &Catalog,
    meters: &RouterMetrics,
    stop: &CancellationToken,
) {
    let mut batch = Vec::new();
    let mut trimmed_at: Option<Instant> = None;
    loop {
        let count = tokio::select! {
            () = stop.cancelled() => return,
            count = inbox.recv_many(&mut batch, BATCH_MAX) => count,
        };
        if count == 0 {
            return;
        }
        let is_trim_due = trimmed_at.is_none_or(|at| at.elapsed() >= TRIM_EVERY);
        let (messages, waiting): (Vec<_>, Vec<_>) =
            batch.drain(..).map(|OutgoingMessage { message, stored }| (message, stored)).unzip();
        match store_batch(catalog, &messages, is_trim_due).await {
            Ok(first) => {
                meters.messages_published.increment(u64::try_from(count).unwrap_or(u64::MAX));
                trimmed_at = if is_trim_due { Some(Instant::now()) } else { trimmed_at };
                // A publisher whose request ended does not wait for its number.
                (first..).zip(waiting).for_each(|(seq, stored)| drop(stored.send(Ok(seq))));
            }
            Err(error) => {
                let error = Arc::new(error);
                waiting.into_iter().for_each(|stored| drop(stored.send(Err(Error::share_error(&error)))));
            }
        }
    }
}

/// Stores messages in one transaction, and returns the number of the first one.
async fn store_batch(catalog: &Catalog, messages: &[NewTopicMessage], is_trim_due: bool) -> Result<i64> {
    let mut tx = catalog.write().await?;
    let first = topics::append_messages(&mut tx, messages).await?;
    if is_trim_due {
        topics::trim_messages(&mut tx).await?;
    }
    tx.commit().await?;
    Ok(first)
}
