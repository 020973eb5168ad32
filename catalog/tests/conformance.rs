//! What every catalog must do, whatever database is underneath. Each function of the suite takes an opened, empty
//! catalog; this file opens them on SQLite.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod suite;
