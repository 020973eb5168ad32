//! What a caller asks a session to run: statements with their parameters, the access and the limits of their
//! transaction, and what happens to the transaction afterwards. Both engines take these values.

use std::time::Duration;

use crate::value::SqlValue;

/// The access of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AccessMode {
    /// SELECT only; the connection itself cannot write.
    Read,
    /// SELECT, INSERT, UPDATE and DELETE.
    Write,
}

/// What happens to the transaction after the statements have run. An error always rolls back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterStatements {
    /// The transaction stays open for the next call.
    Keep,
    /// The transaction is committed.
    Commit,
}

/// Limits of one session. Exceeding a limit is an error; answers are never truncated silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionLimits {
    /// Maximum length of one SQL text in bytes; on SQLite at most 1,000,000.
    pub sql_bytes_max: usize,
    /// Maximum bytes of one value, one row or one intermediate text of a statement on SQLite. A function always runs to
    /// its end, so with a larger limit a statement can exceed its deadline by more.
    pub value_bytes_max: usize,
    /// Maximum rows in one statement's answer.
    pub rows_max: usize,
    /// Maximum bytes in one statement's answer, as [`SqlValue::size_bytes`] counts them.
    pub bytes_max: usize,
    /// Maximum bytes that one reading statement may write to temporary files on SQLite; a Postgres server has its own
    /// setting.
    pub temp_bytes_max: usize,
    /// Maximum size of the database; writes that need more fail. SQLite counts each page. The caller of a PostgreSQL
    /// database measures its size. `None`: not limited.
    pub storage_bytes_max: Option<u64>,
    /// Maximum time of one call on the database, including waiting for a lock.
    pub statement_timeout: Duration,
    /// Maximum time that a transaction may stay open. Then it is rolled back and its connection is free again.
    pub transaction_timeout: Duration,
}

impl Default for SessionLimits {
    /// SQL of 100 KB, values of 1 MB, 10,000 rows, 16 MiB, 512 MiB of temporary files, 5 s per call, 10 s per
    /// transaction. This is what an API answers in one page. 100 KB of SQL holds a thousand rows in one INSERT, and
    /// values can be sent as parameters.
    fn default() -> Self {
        Self {
            sql_bytes_max: 100_000,
            value_bytes_max: 1_000_000,
            rows_max: 10_000,
            bytes_max: 16 << 20,
            temp_bytes_max: 512 << 20,
            storage_bytes_max: None,
            statement_timeout: Duration::from_secs(5),
            transaction_timeout: Duration::from_secs(10),
        }
    }
}

/// One statement with its positional parameters: `?1`, `?2` … on SQLite, `$1`, `$2` … on Postgres.
#[derive(Debug, Clone, PartialEq)]
pub struct SqlStatement {
    /// Exactly one SQL statement.
    pub sql: String,
    /// Values of the parameters, bound in order.
    pub params: Vec<SqlValue>,
}
