//! Measures how long this process has stopped the writers of tenants, by its monotonic clock.
//!
//! `act::fence_current` starts a measurement, and `swap.rs` ends it. The wall clock is unsuitable, because it may be
//! changed in between. A pause that another process began is not measured, because the two share no clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use catalog::{OperationId, TenantId};

use super::ClaimedStep;

/// Maximum age of a measurement. An older one belongs to a step that another process has ended.
const AGE_MAX: Duration = Duration::from_secs(24 * 3_600);

/// When the write pauses of the running steps began.
#[derive(Debug, Default)]
pub(crate) struct WritePauses(Mutex<HashMap<(OperationId, TenantId), Instant>>);

impl WritePauses {
    /// Starts a measurement, or restarts it if the step tries again.
    pub(crate) fn begin_pause(&self, step: &ClaimedStep) {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        begun.retain(|_, since| since.elapsed() < AGE_MAX);
        begun.insert((step.op.id, step.tenant.id), Instant::now());
    }

    /// Ends the measurement. Returns the pause in milliseconds; `None` if another process began it.
    pub(crate) fn end_pause(&self, step: &ClaimedStep) -> Option<i64> {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = begun.remove(&(step.op.id, step.tenant.id))?;
        Some(i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}
