//! How every room of this engine locks a mutex.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// A panic can leave nothing half-changed here, so a poisoned lock is as good as any other.
pub(super) fn lock_ignoring_poison<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
