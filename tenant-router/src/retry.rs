//! How long a request retries while its database is not the expected one or an operation blocks writes.
//!
//! Used by `router.rs` and `tenant.rs`, which read the catalog again after every [`RetryBudget::wait_before_retry`]. It
//! never chooses a database.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, ErrorKind};

/// Default for how long a request waits for an operation. Longer than a swap or a small restore takes, shorter than a
/// client's own timeout.
pub(crate) const HOLD_DEFAULT: Duration = Duration::from_secs(2);

/// The longest time between two reads of the catalog when the change feed reports nothing.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// True when the database refused because it is not the expected one. Nothing has run, and a retry may help.
pub(crate) fn is_out_of_step(kind: tenant_engine::ErrorKind) -> bool {
    use tenant_engine::ErrorKind as Kind;
    matches!(kind, Kind::Fenced | Kind::WrongTenant | Kind::Missing)
}

/// True for refusals that usually pass soon without any action.
pub(crate) fn is_temporary(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::WritesBlocked | ErrorKind::Fenced => true,
        ErrorKind::Database(kind) => is_out_of_step(kind),
        _ => false,
    }
}

/// The error for a request whose retry time is over.
pub(crate) fn final_error(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Database(kind) if is_out_of_step(kind) => Error::new(ErrorKind::Fenced).with_source(error),
        _ => error,
    }
}

/// The time that a request has left, and its pause before the next retry.
pub(crate) struct RetryBudget {
    until: Instant,
    pause: Duration,
}

impl RetryBudget {
    pub(crate) fn new(hold: Duration) -> Self {
        Self { until: Instant::now() + hold, pause: Duration::ZERO }
    }

    /// Waits for any change or for a pause that grows; the first time it does not wait. False when the time is over.
    pub(crate) async fn wait_before_retry(&mut self, news: &Notify) -> bool {
        let now = Instant::now();
        if now >= self.until {
            return false;
        }
        if !self.pause.is_zero() {
            // A change and the end of the pause both mean "retry".
            let _ = timeout_at(self.until.min(now + self.pause), news.notified()).await;
        }
        self.pause = (self.pause * 2).clamp(Duration::from_millis(10), PAUSE_MAX);
        true
    }
}
