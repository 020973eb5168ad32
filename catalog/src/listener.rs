//! How long the lookout of the change feed waits before it looks again: until the database tells of a commit, where it
//! can, and never longer than what is promised without.
//!
//! A listener that misses what looking finds is deaf (its connection is cut off, or what was told got lost): it is
//! replaced. Nothing but speed depends on it, so its failures are not told.

use std::fmt;
use std::time::{Duration, Instant};

use sqlx::postgres::PgListener;

use crate::opener::Opener;

/// Without a listener: half of what is promised.
const POLL_EVERY: Duration = Duration::from_millis(250);
/// With one: looking is the safety net.
const LISTENING_POLL_EVERY: Duration = Duration::from_secs(1);
/// How often a listener is sought in vain.
const LISTEN_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// What is told may come a moment after it was found by looking, once; twice in a row it does not come.
const MISSED_MAX: u32 = 1;

/// Listens, if the database tells.
#[derive(Default)]
pub(crate) struct Ear {
    listener: Option<PgListener>,
    /// What made the lookout look.
    heard: bool,
    missed: u32,
    not_before: Option<Instant>,
}

impl fmt::Debug for Ear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ear").field("listens", &self.listener.is_some()).finish_non_exhaustive()
    }
}

impl Ear {
    /// Returns when something was heard, or when it is time to look anyway.
    pub(crate) async fn wait(&mut self, opener: &Opener) {
        self.heard = false;
        if self.listener.is_none() && self.not_before.is_none_or(|at| Instant::now() >= at) {
            self.not_before = Some(Instant::now() + LISTEN_AGAIN_AFTER);
            self.missed = 0;
            self.listener = opener.listen().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "the catalog's changes are looked for, not listened to");
                None
            });
            if self.listener.is_some() {
                // What was committed before it listened was not told.
                self.heard = true;
                return;
            }
        }
        let Some(listener) = &mut self.listener else { return tokio::time::sleep(POLL_EVERY).await };
        match tokio::time::timeout(LISTENING_POLL_EVERY, listener.try_recv()).await {
            Ok(Ok(Some(_))) => self.heard = true,
            // Not only the connection: the library would go on with what it still has of it.
            Ok(Ok(None) | Err(_)) => self.listener = None,
            Err(_elapsed) => {}
        }
    }

    /// Learns whether looking found something new.
    pub(crate) fn looked(&mut self, news: bool) {
        match (news, self.heard) {
            (_, true) => self.missed = 0,
            (true, false) => self.missed += 1,
            (false, false) => {}
        }
        if self.missed > MISSED_MAX {
            self.listener = None;
        }
    }

    pub(crate) fn close(&mut self) {
        self.listener = None;
    }
}
