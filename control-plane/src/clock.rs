//! The source of time: milliseconds since 1970. Tests replace it.

use std::sync::Arc;

pub use catalog::CatalogClock;

/// The system clock of the machine.
#[must_use]
pub fn system_clock() -> CatalogClock {
    Arc::new(|| jiff::Timestamp::now().as_millisecond())
}
