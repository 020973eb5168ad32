//! How many connections to its database a tenant's requests use at once. Who comes later waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Counts the connections in use. The limit is an argument of each call, so a new limit counts at once.
#[derive(Debug, Default)]
pub(super) struct ConnectionGate {
    used: AtomicU64,
    freed: Notify,
}

/// A connection in use, until this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionHold(Arc<ConnectionGate>);

impl Drop for ConnectionHold {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::AcqRel);
        self.0.freed.notify_one();
    }
}

impl ConnectionGate {
    /// Waits for a connection. `None` when none became free in this time.
    pub(super) async fn take_connection(self: &Arc<Self>, limit: u64, wait_max: Duration) -> Option<ConnectionHold> {
        let taken = async {
            loop {
                let freed = self.freed.notified();
                if let Some(hold) = self.try_take(limit) {
                    return hold;
                }
                freed.await;
            }
        };
        match self.try_take(limit) {
            Some(hold) => Some(hold),
            None => tokio::time::timeout(wait_max, taken).await.ok(),
        }
    }

    fn try_take(self: &Arc<Self>, limit: u64) -> Option<ConnectionHold> {
        let one_more = |used: u64| (used < limit).then_some(used + 1);
        let taken = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        taken.is_ok().then(|| ConnectionHold(Arc::clone(self)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_gets_the_connection_that_becomes_free() {
        let gate = Arc::new(ConnectionGate::default());
        let (now, long) = (Duration::ZERO, Duration::from_secs(60));
        let first = gate.take_connection(1, now).await.unwrap();
        assert!(gate.take_connection(1, now).await.is_none());
        let second = gate.take_connection(2, now).await.unwrap();
        let waiting = {
            let gate = Arc::clone(&gate);
            tokio::spawn(async move { gate.take_connection(1, long).await.is_some() })
        };
        tokio::task::yield_now().await;
        drop(first);
        assert!(gate.take_connection(1, now).await.is_none(), "the limit is smaller now");
        drop(second);
        assert!(waiting.await.unwrap());
        assert!(gate.take_connection(1, now).await.is_some(), "the waiter has given it back");
    }
}
