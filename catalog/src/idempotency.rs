//! Answers to requests that carried an Idempotency-Key.

use crate::db::{ReadTx, WriteTx};
use crate::error::Result;

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remembered {
    /// New: the row was written, the caller goes on and calls [`finish`].
    New,
    /// The same request is still running.
    Running,
    /// Another request used this key.
    Different,
    /// The same request was answered so.
    Answered {
        /// HTTP status.
        status: u16,
        /// The body, unsealed.
        body: String,
    },
}

/// Looks a key up and takes it if it is new; a key still running after `stale_ms` is taken over.
pub async fn begin(
    _tx: &mut WriteTx,
    _actor: &str,
    _key: &str,
    _request_hash: &str,
    _stale_ms: i64,
) -> Result<Remembered> {
    todo!()
}
/// Remembers the answer (sealed).
pub async fn finish(_tx: &mut WriteTx, _actor: &str, _key: &str, _status: u16, _body: &str) -> Result<()> {
    todo!()
}
/// Forgets a key whose request failed before it did anything.
pub async fn forget(_tx: &mut WriteTx, _actor: &str, _key: &str) -> Result<()> {
    todo!()
}
/// Forgets keys older than `before`, milliseconds since 1970; returns how many.
pub async fn trim(_tx: &mut WriteTx, _before: i64) -> Result<i64> {
    todo!()
}
