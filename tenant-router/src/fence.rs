//! When a database is not the one the catalog promised, or writes wait for an operation: how long a request may hope.
//!
//! Used by `router.rs` and `tenant.rs`, which look again after every [`Patience::pause`]. It never picks a database.

use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, ErrorKind};

/// How long a request waits for an operation to pass, unless set otherwise: longer than a flip or a small restore
/// takes, shorter than a client's own timeout.
pub(crate) const HOLD_DEFAULT: Duration = Duration::from_secs(2);

/// The longest time between two looks at the catalog, should the change feed say nothing.
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// True when the database refused because it is not the expected one: nothing has run, and another look may help.
pub(crate) fn is_out_of_step(kind: tenant_engine::ErrorKind) -> bool {
    use tenant_engine::ErrorKind as Kind;
    matches!(kind, Kind::Fenced | Kind::WrongTenant | Kind::Missing)
}

/// True for refusals that pass by themselves soon, as a rule.
pub(crate) fn passes(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::WritesBlocked | ErrorKind::Fenced => true,
        ErrorKind::Database(kind) => is_out_of_step(kind),
        _ => false,
    }
}

/// What a request is told when its patience is at an end.
pub(crate) fn give_up(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Database(kind) if is_out_of_step(kind) => Error::new(ErrorKind::Fenced).with_source(error),
        _ => error,
    }
}

/// The time a request still has, and how long it waits before the next look.
pub(crate) struct Patience {
    until: Instant,
    pause: Duration,
}

impl Patience {
    pub(crate) fn new(hold: Duration) -> Self {
        Self { until: Instant::now() + hold, pause: Duration::ZERO }
    }

    /// Waits for news of any change, or a growing while; the first time not at all. False when the time is over.
    pub(crate) async fn pause(&mut self, news: &Notify) -> bool {
        let now = Instant::now();
        if now >= self.until {
            return false;
        }
        if !self.pause.is_zero() {
            // Either news or the end of the pause: both mean "look again".
            let _ = timeout_at(self.until.min(now + self.pause), news.notified()).await;
        }
        self.pause = (self.pause * 2).clamp(Duration::from_millis(10), PAUSE_MAX);
        true
    }
}
