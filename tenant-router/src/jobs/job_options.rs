//! How a job is enqueued.

use std::time::Duration;

use crate::error::{Error, ErrorKind, Result};

/// Attempts of a job unless it says otherwise: with the pauses between them, about four days.
const ATTEMPTS_MAX: u32 = 20;
/// Maximum bytes of a unique key and of a kind. An index holds the keys.
const NAME_BYTES_MAX: usize = 200;
/// Maximum bytes of a job as JSON. Larger data belongs in a table of the application.
const PAYLOAD_BYTES_MAX: usize = 100_000;

/// How a job is enqueued. The default runs it once, at once, and tries it up to 20 times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobOptions {
    pub(super) delay: Duration,
    pub(super) unique_key: Option<String>,
    pub(super) attempts_max: u32,
}

impl Default for JobOptions {
    fn default() -> Self {
        Self { delay: Duration::ZERO, unique_key: None, attempts_max: ATTEMPTS_MAX }
    }
}

impl JobOptions {
    /// Runs the job after this time, at the earliest.
    #[must_use]
    pub fn after(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Enqueues nothing while a job of this tenant with this key waits or runs.
    #[must_use]
    pub fn unique(self, key: impl Into<String>) -> Self {
        Self { unique_key: Some(key.into()), ..self }
    }

    /// Tries the job this often, before it becomes a dead letter. At least once.
    #[must_use]
    pub fn attempts(self, attempts_max: u32) -> Self {
        Self { attempts_max: attempts_max.max(1), ..self }
    }

    pub(super) fn delay_ms(&self) -> i64 {
        i64::try_from(self.delay.as_millis()).unwrap_or(i64::MAX / 2)
    }
}

/// # Errors
/// [`ErrorKind::JobInvalid`] when a part is too long, or a name is empty.
pub(super) fn check_lengths(kind: &str, key: Option<&str>, payload: &str) -> Result<()> {
    let invalid = |why: String| Err(Error::new(ErrorKind::JobInvalid).with_detail(why));
    for (what, name) in [("kind", Some(kind)), ("unique key", key)] {
        if name.is_some_and(|name| name.is_empty() || name.len() > NAME_BYTES_MAX || name.contains('\0')) {
            return invalid(format!("the {what} of a job has 1 to {NAME_BYTES_MAX} bytes, without NUL characters"));
        }
    }
    if payload.len() > PAYLOAD_BYTES_MAX {
        let bytes = payload.len();
        return invalid(format!("the job is {bytes} bytes long as JSON, at most {PAYLOAD_BYTES_MAX} are allowed"));
    }
    Ok(())
}
