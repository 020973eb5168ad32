//! Records how long the catalog has refused writes, so that a command stops waiting when, for example, the disk is
//! full.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, ErrorKind, Result};

/// Longest time of refusals that is tolerated. A lock, a checkpoint or a restart passes sooner; a full or read-only
/// disk does not.
const TROUBLE_MAX: Duration = Duration::from_secs(15);

/// A refusal is forgotten if none followed for this time. It is longer than a lease, after which lost steps are claimed
/// again.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// The refusals since this runner's last successful write to the catalog.
#[derive(Debug, Default)]
pub(super) struct CatalogHealth(Mutex<Option<WriteRefusal>>);

#[derive(Debug)]
struct WriteRefusal {
    since: Instant,
    last: Instant,
    detail: String,
}

impl WriteRefusal {
    fn is_over(&self) -> bool {
        self.last.elapsed() >= STALE_AFTER
    }
}

impl CatalogHealth {
    /// Records the result of an attempt to write.
    pub(super) fn note_write<T>(&self, outcome: &Result<T>) {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(_) => *refused = None,
            Err(error) => {
                let now = Instant::now();
                let since = refused.as_ref().filter(|r| !r.is_over()).map_or(now, |r| r.since);
                *refused = Some(WriteRefusal { since, last: now, detail: error.detail.clone() });
            }
        }
    }

    /// Fails once the refusals have lasted too long.
    ///
    /// # Errors
    /// `catalog_unavailable`, with the catalog's own message.
    pub(super) fn check_health(&self) -> Result<()> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(refused) if refused.since.elapsed() >= TROUBLE_MAX && !refused.is_over() => Err(Error::new(
                ErrorKind::OperationsPaused,
                format!("operations cannot continue, because the catalog is not writable: {}", refused.detail),
            )
            .try_next(
                "fix the cause (is the disk full?), then fleetctl op wait <operation>; the operation then continues",
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_no_trouble_and_a_success_ends_it() {
        let trouble = CatalogHealth::default();
        trouble.note_write::<()>(&Err(Error::new(ErrorKind::OperationsPaused, "the disk is full")));
        trouble.check_health().unwrap();
        let long_ago = Instant::now().checked_sub(2 * TROUBLE_MAX).unwrap();
        *trouble.0.lock().unwrap() =
            Some(WriteRefusal { since: long_ago, last: Instant::now(), detail: "the disk is full".to_owned() });
        trouble.note_write::<()>(&Err(Error::new(ErrorKind::OperationsPaused, "the disk is still full")));
        assert!(trouble.check_health().unwrap_err().detail.contains("still full"));
        trouble.note_write(&Ok(()));
        trouble.check_health().unwrap();
    }

    #[test]
    fn a_refusal_of_long_ago_is_forgotten() {
        let long_ago = Instant::now().checked_sub(2 * STALE_AFTER).unwrap();
        let refused = WriteRefusal { since: long_ago, last: long_ago, detail: "the disk was full".to_owned() };
        let trouble = CatalogHealth(Mutex::new(Some(refused)));
        trouble.check_health().unwrap();
        trouble.note_write::<()>(&Err(Error::new(ErrorKind::OperationsPaused, "another day")));
        trouble.check_health().unwrap();
    }
}
