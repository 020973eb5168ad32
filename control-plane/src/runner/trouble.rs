//! How long the catalog has refused to be written: a full disk must end a command's waiting, not extend it for ever.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// A lock, a checkpoint or a restart passes within this; a full or read-only disk does not.
const TROUBLE_MAX: Duration = Duration::from_secs(15);

/// A refusal that has not come again for so long is over: longer than a lease, after which lost steps are claimed anew.
const STALE_AFTER: Duration = Duration::from_secs(30);

/// What the catalog answered since its last successful write by this runner.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Option<Refused>>);

#[derive(Debug)]
struct Refused {
    since: Instant,
    last: Instant,
    detail: String,
}

impl Refused {
    fn is_over(&self) -> bool {
        self.last.elapsed() >= STALE_AFTER
    }
}

impl Trouble {
    /// Notes what came of trying to write.
    pub(super) fn note<T>(&self, outcome: &Result<T>) {
        let mut refused = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(_) => *refused = None,
            Err(error) => {
                let now = Instant::now();
                let since = refused.as_ref().filter(|r| !r.is_over()).map_or(now, |r| r.since);
                *refused = Some(Refused { since, last: now, detail: error.detail.clone() });
            }
        }
    }

    /// Fails once the refusals have lasted too long.
    ///
    /// # Errors
    /// `catalog_unavailable` with what the catalog said.
    pub(super) fn check(&self) -> Result<()> {
        match self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            Some(refused) if refused.since.elapsed() >= TROUBLE_MAX && !refused.is_over() => Err(Error::new(
                503,
                "catalog_unavailable",
                format!("the work stands still, because the catalog cannot be written: {}", refused.detail),
            )
            .try_next("mend the cause (is the disk full?), then fleetctl op wait <operation>: it goes on from here")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_no_trouble_and_a_success_ends_it() {
        let trouble = Trouble::default();
        trouble.note::<()>(&Err(Error::new(503, "catalog_unavailable", "the disk is full")));
        trouble.check().unwrap();
        let long_ago = Instant::now().checked_sub(2 * TROUBLE_MAX).unwrap();
        *trouble.0.lock().unwrap() =
            Some(Refused { since: long_ago, last: Instant::now(), detail: "the disk is full".to_owned() });
        trouble.note::<()>(&Err(Error::new(503, "catalog_unavailable", "the disk is still full")));
        assert!(trouble.check().unwrap_err().detail.contains("still full"));
        trouble.note(&Ok(()));
        trouble.check().unwrap();
    }

    #[test]
    fn a_refusal_of_long_ago_is_forgotten() {
        let long_ago = Instant::now().checked_sub(2 * STALE_AFTER).unwrap();
        let refused = Refused { since: long_ago, last: long_ago, detail: "the disk was full".to_owned() };
        let trouble = Trouble(Mutex::new(Some(refused)));
        trouble.check().unwrap();
        trouble.note::<()>(&Err(Error::new(503, "catalog_unavailable", "another day")));
        trouble.check().unwrap();
    }
}
