//! Decides what a tenant's own SQL may do: an allow-list that SQLite asks while it prepares a statement.
//!
//! Allowed are SELECT, INSERT, UPDATE and DELETE on the tenant's tables, their triggers and virtual tables, and a short
//! list of read-only PRAGMAs. Everything else (DDL, ATTACH, transaction control, settings, system tables) is for
//! migrations and for this crate. [`SandboxGuard`] is shared by the hooks of one connection and the thread that uses
//! it: it records whose SQL is running and until when. Installed by `connection.rs`, switched by `statement.rs`. It
//! decides and never runs SQL.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rustix::process::setpriority_process;

use super::workers::HEAVY;
use crate::disk::{DiskGauge, disk_low_error};
use crate::error::{Error, Result};
use crate::migration::LedgerName;
use crate::sqlite::limits::temp_files::TempFiles;
use crate::sqlite::locks::lock_ignoring_poison;
use crate::statement::SessionLimits;

/// Maximum bytes of one SQL text, whatever a caller allows, because preparing is not interrupted at a deadline.
pub(crate) const SQL_LENGTH_MAX: usize = 1_000_000;

/// Maximum bytes of one cell, one row or one intermediate text of tenant SQL, unless [`SessionLimits::value_bytes_max`]
/// says otherwise. A function runs between two checks of the clock, and a statement may hold many values. This limit
/// bounds both.
pub(crate) const VALUE_BYTES_MAX: usize = 1_000_000;

/// Maximum bytes of all intermediate values of one statement together (at least one of the largest), and the minimum
/// that each value may always take.
const VALUES_BYTES_MAX: usize = 64_000_000;
const VALUE_BYTES_MIN: usize = 4_000;

/// Virtual machine steps between two checks of clock and disks: some 3 µs, so that checking costs little. A loop over
/// the largest values writes some 30 MB of temporary files meanwhile.
const STEPS_PER_CHECK: i32 = 250;

/// Priority of a thread with a heavy statement: it gets a tenth of a core's time beside others.
const HEAVY_PRIORITY: i32 = 10;
const HEAVY_NANOS: u64 = HEAVY.as_nanos() as u64;

/// SQLite's run-time limits for tenant SQL; each is a way to use much memory or stack with a short text.
const LIMITS: [(Limit, i32); 11] = [
    (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX as i32),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 1_000_000),
    (Limit::SQLITE_LIMIT_COLUMN, 2_000),
    // Nesting costs stack; `limits/complexity.rs` limits the nesting that SQLite does not count.
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 500),
    (Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 127),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    // LIKE and GLOB run between two checks of the clock; on the longest text, this pattern takes half a second. They
    // are not replaced, because SQLite uses an index only for the original ones.
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 32_766),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 100),
];

/// Read-only PRAGMAs whose argument is the name of a table or an index.
const PRAGMAS_OF_AN_OBJECT: [&str; 7] =
    ["table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"];

/// PRAGMAs that are read without an argument; virtual tables (full-text search) read the last two themselves.
const PRAGMAS_WITHOUT_ARGUMENT: [&str; 4] = ["table_list", "user_version", "data_version", "page_size"];

/// Functions that load code or write to the process's log.
const FUNCTIONS_REFUSED: [&str; 3] = ["load_extension", "fts3_tokenizer", "sqlite_log"];

/// SQLite's own tables that may be read; none may be written.
const SYSTEM_TABLES_READ: [&str; 5] =
    ["sqlite_schema", "sqlite_master", "sqlite_sequence", "sqlite_stat1", "sqlite_stat4"];

/// The prefix of the fleet's own tables; of them only [`IDENTITY`] may be read.
const FLEET_PREFIX: &str = "_fleet_";
const IDENTITY: &str = "_fleet_identity";

/// Maximum size of each value of a statement that may hold this many values at once.
pub(crate) fn value_bytes_max(limits: &SessionLimits, values: usize) -> usize {
    let share = (VALUES_BYTES_MAX.max(limits.value_bytes_max) / values.max(1)).max(VALUE_BYTES_MIN);
    share.min(limits.value_bytes_max)
}

/// State shared by the hooks of one connection and the thread that uses it.
#[derive(Debug)]
pub(crate) struct SandboxGuard {
    /// True while tenant SQL is prepared or run; SQLite may prepare a statement again while it runs.
    tenant: AtomicBool,
    /// Nanoseconds after `base`; `u64::MAX` without a deadline.
    deadline: AtomicU64,
    /// Time when the running statement becomes heavy; 0 before the first check.
    heavy_at: AtomicU64,
    base: Instant,
    refused: Mutex<Option<String>>,
    /// The ledger of this database: readable, so that an application can report its version.
    ledger: LedgerName,
    /// The disk of a connection that writes.
    disk: OnceLock<DiskGauge>,
    temp: TempFiles,
    /// True when the number of the file's pages is limited.
    pages_limited: AtomicBool,
}

impl SandboxGuard {
    /// Puts limits, authorizer and progress handler on a connection.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn install_hooks(db: &Connection, temp: TempFiles, ledger: LedgerName) -> rusqlite::Result<Arc<Self>> {
        for (limit, value) in LIMITS {
            db.set_limit(limit, value)?;
        }
        let guard = Arc::new(Self {
            tenant: AtomicBool::new(false),
            deadline: AtomicU64::new(u64::MAX),
            heavy_at: AtomicU64::new(0),
            base: Instant::now(),
            refused: Mutex::new(None),
            ledger,
            disk: OnceLock::new(),
            temp,
            pages_limited: AtomicBool::new(false),
        });
        let asked = Arc::clone(&guard);
        db.authorizer(Some(move |context: AuthContext<'_>| asked.authorize_action(&context)))?;
        let asked = Arc::clone(&guard);
        db.progress_handler(STEPS_PER_CHECK, Some(move || asked.check_progress() || asked.disk_is_low()))?;
        Ok(guard)
    }

    /// Tenant SQL runs until the returned value is dropped, and may write this many bytes to temporary files.
    pub(crate) fn tenant_sql(&self, temp_bytes_max: usize) -> TenantSql<'_> {
        self.temp.begin_statement(temp_bytes_max);
        self.tenant.store(true, Ordering::Relaxed);
        TenantSql(self)
    }

    /// Statements are interrupted at this time.
    pub(crate) fn set_deadline(&self, deadline: Instant) {
        self.heavy_at.store(0, Ordering::Relaxed);
        let nanos = deadline.saturating_duration_since(self.base).as_nanos();
        self.deadline.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Statements run to their end, because clean-up must not be interrupted.
    pub(crate) fn clear_deadline(&self) {
        self.deadline.store(u64::MAX, Ordering::Relaxed);
    }

    /// Called while a statement runs; true interrupts it. A heavy statement continues with a lower priority, so that
    /// the quick ones of other tenants need not wait for a core. Its thread ends after it (`workers.rs`).
    fn check_progress(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        if deadline == u64::MAX {
            return false;
        }
        let now = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        match self.heavy_at.load(Ordering::Relaxed) {
            0 => self.heavy_at.store(now + HEAVY_NANOS, Ordering::Relaxed),
            at if now >= at => {
                self.heavy_at.store(u64::MAX, Ordering::Relaxed);
                // Has no effect where the system forbids it.
                let _ = setpriority_process(None, HEAVY_PRIORITY);
            }
            _ => {}
        }
        now >= deadline || (self.tenant.load(Ordering::Relaxed) && self.temp.check_progress(now))
    }

    /// True when the deadline has passed.
    pub(crate) fn deadline_passed(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        deadline != u64::MAX && self.base.elapsed().as_nanos() >= u128::from(deadline)
    }

    /// Remembers whether the number of pages is limited now; returns whether it was before.
    pub(crate) fn mark_pages_limited(&self, limited: bool) -> bool {
        self.pages_limited.swap(limited, Ordering::Relaxed)
    }

    /// Interrupts tenant SQL also when this disk becomes low.
    pub(crate) fn watch_disk(&self, disk: DiskGauge) {
        // A connection has one disk for its whole life.
        let _ = self.disk.set(disk);
    }

    /// Refuses the next statement of a write when the disk has become low meanwhile.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DiskLow`].
    pub(crate) fn check_disk(&self) -> Result<()> {
        self.disk.get().map_or(Ok(()), DiskGauge::require_free_room)
    }

    /// True when tenant SQL must stop writing. Clean-up and commits are never interrupted.
    pub(crate) fn disk_is_low(&self) -> bool {
        self.tenant.load(Ordering::Relaxed) && self.disk.get().is_some_and(DiskGauge::is_low)
    }

    /// The reason why the statement was interrupted, unless it was the deadline.
    pub(crate) fn stop_reason(&self) -> Option<Error> {
        if self.disk_is_low() { Some(disk_low_error()) } else { self.temp.stop_error() }
    }

    /// The reason why the statement just prepared was refused; returned once.
    pub(crate) fn take_refusal(&self) -> Option<String> {
        lock_ignoring_poison(&self.refused).take()
    }

    fn authorize_action(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.tenant.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        match decide_action(context.action, context.database_name, &self.ledger) {
            Ok(()) => Authorization::Allow,
            Err(reason) => {
                lock_ignoring_poison(&self.refused).get_or_insert(reason);
                Authorization::Deny
            }
        }
    }
}

/// The authorizer checks statements until this value is dropped.
pub(crate) struct TenantSql<'a>(&'a SandboxGuard);

impl Drop for TenantSql<'_> {
    fn drop(&mut self) {
        self.0.tenant.store(false, Ordering::Relaxed);
    }
}

/// The tables in which SQLite keeps the schema; CREATE and DROP write there first.
const SCHEMA_TABLES: [&str; 2] = ["sqlite_master", "sqlite_temp_master"];
const SCHEMA_REFUSED: &str = "changing the schema is not allowed here: that is what migrations are for";

/// Allows one action, or says why it is refused.
fn decide_action(action: AuthAction<'_>, database: Option<&str>, ledger: &LedgerName) -> Result<(), String> {
    match action {
        AuthAction::Select | AuthAction::Recursive => Ok(()),
        AuthAction::Read { table_name, .. } => check_readable(table_name),
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => check_writable(table_name, database, ledger),
        AuthAction::Function { function_name } => check_callable(function_name),
        AuthAction::Pragma { pragma_name, pragma_value } => check_pragma(pragma_name, pragma_value),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Err(refusal_text("ATTACH or DETACH")),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            Err("transaction control is not allowed here: send the statements together as one batch".to_owned())
        }
        AuthAction::Unknown { .. } => Err(refusal_text("this statement")),
        _ => Err(SCHEMA_REFUSED.to_owned()),
    }
}

fn check_readable(table: &str) -> Result<(), String> {
    let name = table.to_ascii_lowercase();
    let fleet = name.starts_with(FLEET_PREFIX) && name != IDENTITY;
    let system = name.starts_with("sqlite_") && !SYSTEM_TABLES_READ.contains(&name.as_str());
    if fleet || system || name == "dbstat" { Err(refusal_text(&format!("reading {table}"))) } else { Ok(()) }
}

fn check_writable(table: &str, database: Option<&str>, ledger: &LedgerName) -> Result<(), String> {
    let name = table.to_ascii_lowercase();
    let ours =
        name.starts_with(FLEET_PREFIX) || name.eq_ignore_ascii_case(ledger.as_str()) || name.starts_with("sqlite_");
    let elsewhere = database.is_some_and(|database| database != "main");
    // This is how SQLite announces CREATE, DROP and REINDEX; a plain write to the table never gets this far.
    if SCHEMA_TABLES.contains(&name.as_str()) {
        return Err(SCHEMA_REFUSED.to_owned());
    }
    if ours || elsewhere { Err(refusal_text(&format!("writing to {table}"))) } else { Ok(()) }
}

fn check_callable(function: &str) -> Result<(), String> {
    let name = function.to_ascii_lowercase();
    if FUNCTIONS_REFUSED.contains(&name.as_str()) { Err(refusal_text(&format!("the function {name}"))) } else { Ok(()) }
}

fn check_pragma(name: &str, value: Option<&str>) -> Result<(), String> {
    let name = name.to_ascii_lowercase();
    let listed: &[&str] = if value.is_some() { &PRAGMAS_OF_AN_OBJECT } else { &PRAGMAS_WITHOUT_ARGUMENT };
    if listed.contains(&name.as_str()) { Ok(()) } else { Err(refusal_text(&format!("this use of PRAGMA {name}"))) }
}

fn refusal_text(what: &str) -> String {
    format!("{what} is not allowed in tenant SQL")
}
