//! Decides how long the change feed waits before it polls again. A notification of the database ends the wait early.
//! The wait never exceeds the promised time.
//!
//! A listener that misses changes found by polling is replaced: its connection was cut off, or notifications were lost.
//! Only speed depends on it, so its failures are not reported.

use std::fmt;
use std::time::{Duration, Instant};

use crate::opener::{CatalogNotifier, CatalogOpener};

/// Poll interval without a listener: half of the promised time.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// Poll interval with a listener: a safety net.
const LISTENING_POLL_EVERY: Duration = Duration::from_secs(1);
/// The interval between attempts to connect a listener.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// A notification may arrive shortly after polling found the change. This may happen once, but not twice in a row.
const MISSED_MAX: u32 = 1;

/// Listens for notifications, if the database supports them.
#[derive(Default)]
pub(crate) struct ChangeListener {
    listener: Option<CatalogNotifier>,
    /// True when a notification caused the next poll.
    heard: bool,
    missed: u32,
    not_before: Option<Instant>,
}

impl fmt::Debug for ChangeListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChangeListener").field("listens", &self.listener.is_some()).finish_non_exhaustive()
    }
}

impl ChangeListener {
    /// Returns after a notification, or when it is time to poll.
    pub(crate) async fn wait_for_notice(&mut self, opener: &CatalogOpener) {
        self.heard = false;
        if self.listener.is_none() && self.not_before.is_none_or(|at| Instant::now() >= at) {
            self.not_before = Some(Instant::now() + LISTEN_AGAIN_AFTER);
            self.missed = 0;
            self.listener = opener.listen_for_changes().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "the catalog's changes are polled, because the listener could not connect");
                None
            });
            if self.listener.is_some() {
                // Commits from before the listener connected were not notified.
                self.heard = true;
                return;
            }
        }
        let Some(listener) = &mut self.listener else { return tokio::time::sleep(POLL_EVERY).await };
        match tokio::time::timeout(LISTENING_POLL_EVERY, listener.next_notice()).await {
            Ok(true) => self.heard = true,
            // Drops the whole listener: the library would otherwise continue with what is left of the connection.
            Ok(false) => self.listener = None,
            Err(_elapsed) => {}
        }
    }

    /// Records whether polling found something new.
    pub(crate) fn note_poll_result(&mut self, news: bool) {
        match (news, self.heard) {
            (_, true) => self.missed = 0,
            (true, false) => self.missed += 1,
            (false, false) => {}
        }
        if self.missed > MISSED_MAX {
            self.listener = None;
        }
    }

    pub(crate) fn stop_listening(&mut self) {
        self.listener = None;
    }
}
