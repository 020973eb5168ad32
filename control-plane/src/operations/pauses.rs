//! For how long this process has stopped the writers of tenants, by its monotonic clock.
//!
//! `fence` starts a measurement and `swap` ends it. The wall clock cannot measure: it may step in between. A pause that
//! another process began is not measured, because no clock is common to both.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use catalog::{OperationId, TenantId};

use super::Step;

/// A measurement that is older than this belongs to a step that another process has ended.
const AGE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// When the pauses of the steps at work began.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<HashMap<(OperationId, TenantId), Instant>>);

impl Pauses {
    /// Begins to measure, anew if the step has tried before.
    pub(super) fn begin(&self, step: &Step) {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.retain(|_, since| since.elapsed() < AGE_MAX);
        begun.insert((step.op.id, step.tenant.id), Instant::now());
    }

    /// How long the pause was, milliseconds; `None` when another process began it.
    pub(super) fn end(&self, step: &Step) -> Option<i64> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = begun.remove(&(step.op.id, step.tenant.id))?;
        Some(i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}
