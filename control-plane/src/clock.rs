//! Where time comes from: milliseconds since 1970, replaced by tests.

use std::sync::Arc;

pub use catalog::Clock;

/// The machine's clock.
#[must_use]
pub fn system() -> Clock {
    Arc::new(|| jiff::Timestamp::now().as_millisecond())
}
