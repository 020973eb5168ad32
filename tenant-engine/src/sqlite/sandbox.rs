//! What a tenant's own SQL may do: an allow-list, asked by SQLite while it prepares a statement.
//!
//! Allowed are SELECT, DML on the tenant's tables, their triggers and virtual tables, and a short list of read-only
//! PRAGMAs. Everything else (DDL, ATTACH, transaction control, settings, system tables) is for migrations and for
//! this crate. [`Guard`] is what the hooks of one connection share with the thread that uses it: whose SQL is running
//! and until when. Installed by `connection.rs`, switched by `statement.rs`. Decides; never runs SQL.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rustix::process::setpriority_process;

use super::temp_files::TempFiles;
use super::workers::{HEAVY, lock};
use crate::disk::{DiskGauge, low};
use crate::error::{Error, Result};
use crate::pool::Limits;

/// Length of one SQL text in bytes, whatever a caller allows: preparing is not stopped at a deadline.
pub(crate) const SQL_LENGTH_MAX: usize = 1_000_000;

/// One cell, one row or one intermediate text of tenant SQL, bytes, unless [`Limits::value_bytes_max`] says otherwise. A
/// function runs between two looks at the clock and a statement may hold many values, so this bounds both.
pub(crate) const VALUE_BYTES_MAX: usize = 1_000_000;

/// Bytes that all intermediate values of one statement may take together (at least one of the largest), and the least that
/// each may always take.
const VALUES_BYTES_MAX: usize = 64_000_000;
const VALUE_BYTES_MIN: usize = 4_000;

/// Virtual machine steps between two looks at clock and disks: some 3 µs, so that looking costs little. A loop over
/// the largest values writes some 30 MB of temporary files meanwhile.
const STEPS_PER_CHECK: i32 = 250;

/// Priority of a thread with a heavy statement: a tenth of a core's time beside others.
const HEAVY_PRIORITY: i32 = 10;
const HEAVY_NANOS: u64 = HEAVY.as_nanos() as u64;

/// SQLite's run-time limits for tenant SQL; each is a way to use much memory or stack with a short text.
const LIMITS: [(Limit, i32); 11] = [
    (Limit::SQLITE_LIMIT_LENGTH, VALUE_BYTES_MAX as i32),
    (Limit::SQLITE_LIMIT_SQL_LENGTH, 1_000_000),
    (Limit::SQLITE_LIMIT_COLUMN, 2_000),
    // Nesting costs stack; `complexity.rs` bounds the nesting that SQLite does not count.
    (Limit::SQLITE_LIMIT_EXPR_DEPTH, 500),
    (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 500),
    (Limit::SQLITE_LIMIT_VDBE_OP, 1_000_000),
    (Limit::SQLITE_LIMIT_FUNCTION_ARG, 127),
    (Limit::SQLITE_LIMIT_ATTACHED, 0),
    // LIKE and GLOB run between two looks at the clock; on the longest text, this pattern takes half a second. They are not
    // replaced, because an index serves only the original ones.
    (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200),
    (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 32_766),
    (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 100),
];

/// Read-only PRAGMAs that take the name of a table or an index.
const PRAGMAS_OF_AN_OBJECT: [&str; 7] =
    ["table_info", "table_xinfo", "table_list", "index_list", "index_info", "index_xinfo", "foreign_key_list"];

/// PRAGMAs that are read without an argument; virtual tables (full text search) read the last two themselves.
const PRAGMAS_WITHOUT_ARGUMENT: [&str; 4] = ["table_list", "user_version", "data_version", "page_size"];

/// Functions that load code or write to the process's log.
const FUNCTIONS_REFUSED: [&str; 3] = ["load_extension", "fts3_tokenizer", "sqlite_log"];

/// Tables of SQLite's own that may be read; none may be written.
const SYSTEM_TABLES_READ: [&str; 5] =
    ["sqlite_schema", "sqlite_master", "sqlite_sequence", "sqlite_stat1", "sqlite_stat4"];

/// The migration ledger: readable, so that an application can say its version.
const LEDGER: &str = "_sqlx_migrations";

/// Tables that begin so are the fleet's; of them only [`IDENTITY`] may be read.
const FLEET_PREFIX: &str = "_fleet_";
const IDENTITY: &str = "_fleet_identity";

/// How large each value of a statement may be that may hold so many at once.
pub(crate) fn value_bytes_max(limits: &Limits, values: usize) -> usize {
    let share = (VALUES_BYTES_MAX.max(limits.value_bytes_max) / values.max(1)).max(VALUE_BYTES_MIN);
    share.min(limits.value_bytes_max)
}

/// Shared by the hooks of one connection and the thread that uses it.
#[derive(Debug)]
pub(crate) struct Guard {
    /// True while tenant SQL is prepared or run; SQLite may prepare again in the middle of running.
    tenant: AtomicBool,
    /// Nanoseconds after `base`; `u64::MAX` when there is none.
    deadline: AtomicU64,
    /// When what runs becomes heavy; 0 while nothing has looked yet.
    heavy_at: AtomicU64,
    base: Instant,
    refused: Mutex<Option<String>>,
    /// The disk of a connection that writes.
    disk: OnceLock<DiskGauge>,
    temp: TempFiles,
}

impl Guard {
    /// Puts limits, authorizer and progress handler on a connection.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn install(db: &Connection, temp: TempFiles) -> rusqlite::Result<Arc<Self>> {
        for (limit, value) in LIMITS {
            db.set_limit(limit, value)?;
        }
        let guard = Arc::new(Self {
            tenant: AtomicBool::new(false),
            deadline: AtomicU64::new(u64::MAX),
            heavy_at: AtomicU64::new(0),
            base: Instant::now(),
            refused: Mutex::new(None),
            disk: OnceLock::new(),
            temp,
        });
        let asked = Arc::clone(&guard);
        db.authorizer(Some(move |context: AuthContext<'_>| asked.authorize(&context)))?;
        let asked = Arc::clone(&guard);
        db.progress_handler(STEPS_PER_CHECK, Some(move || asked.look() || asked.disk_is_low()))?;
        Ok(guard)
    }

    /// Tenant SQL runs until the returned value is dropped, and writes at most so much to temporary files.
    pub(crate) fn tenant_sql(&self, temp_bytes_max: usize) -> TenantSql<'_> {
        self.temp.begin(temp_bytes_max);
        self.tenant.store(true, Ordering::Relaxed);
        TenantSql(self)
    }

    /// Statements are stopped at this time.
    pub(crate) fn set_deadline(&self, deadline: Instant) {
        self.heavy_at.store(0, Ordering::Relaxed);
        let nanos = deadline.saturating_duration_since(self.base).as_nanos();
        self.deadline.store(u64::try_from(nanos).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Statements run to their end: what cleans up must not be stopped.
    pub(crate) fn clear_deadline(&self) {
        self.deadline.store(u64::MAX, Ordering::Relaxed);
    }

    /// While a statement runs; true stops it. A heavy one goes on with a lower priority, so that the quick ones of other
    /// tenants need not wait for a core. The thread ends after it (`workers.rs`).
    fn look(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        if deadline == u64::MAX {
            return false;
        }
        let now = u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX);
        match self.heavy_at.load(Ordering::Relaxed) {
            0 => self.heavy_at.store(now + HEAVY_NANOS, Ordering::Relaxed),
            at if now >= at => {
                self.heavy_at.store(u64::MAX, Ordering::Relaxed);
                // Without an effect where the system forbids it.
                let _ = setpriority_process(None, HEAVY_PRIORITY);
            }
            _ => {}
        }
        now >= deadline || (self.tenant.load(Ordering::Relaxed) && self.temp.look(now))
    }

    /// True when the deadline has passed.
    pub(crate) fn expired(&self) -> bool {
        let deadline = self.deadline.load(Ordering::Relaxed);
        deadline != u64::MAX && self.base.elapsed().as_nanos() >= u128::from(deadline)
    }

    /// Stops tenant SQL also when this disk becomes low.
    pub(crate) fn watch_disk(&self, disk: DiskGauge) {
        // A connection has one disk for all its life.
        let _ = self.disk.set(disk);
    }

    /// Refuses the next statement of a write when the disk became low meanwhile.
    ///
    /// # Errors
    /// [`crate::ErrorKind::DiskLow`].
    pub(crate) fn check_disk(&self) -> Result<()> {
        self.disk.get().map_or(Ok(()), DiskGauge::check)
    }

    /// True while tenant SQL may not go on writing. What cleans up or commits is never stopped.
    pub(crate) fn disk_is_low(&self) -> bool {
        self.tenant.load(Ordering::Relaxed) && self.disk.get().is_some_and(DiskGauge::is_low)
    }

    /// Why the statement that ran was stopped, unless by its deadline.
    pub(crate) fn stopped(&self) -> Option<Error> {
        if self.disk_is_low() { Some(low()) } else { self.temp.refusal() }
    }

    /// Why the statement just prepared was refused, once.
    pub(crate) fn take_refusal(&self) -> Option<String> {
        lock(&self.refused).take()
    }

    fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.tenant.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        match decide(context.action, context.database_name) {
            Ok(()) => Authorization::Allow,
            Err(reason) => {
                lock(&self.refused).get_or_insert(reason);
                Authorization::Deny
            }
        }
    }
}

/// While it lives, the authorizer is asked.
pub(crate) struct TenantSql<'a>(&'a Guard);

impl Drop for TenantSql<'_> {
    fn drop(&mut self) {
        self.0.tenant.store(false, Ordering::Relaxed);
    }
}

/// Where SQLite keeps the schema; writing there is what CREATE and DROP do first.
const SCHEMA_TABLES: [&str; 2] = ["sqlite_master", "sqlite_temp_master"];
const SCHEMA_REFUSED: &str = "changing the schema is not allowed here: that is what migrations are for";

/// Allows one action, or says why not.
fn decide(action: AuthAction<'_>, database: Option<&str>) -> Result<(), String> {
    match action {
        AuthAction::Select | AuthAction::Recursive => Ok(()),
        AuthAction::Read { table_name, .. } => readable(table_name),
        AuthAction::Insert { table_name } | AuthAction::Delete { table_name } => writable(table_name, database),
        AuthAction::Update { table_name, .. } => writable(table_name, database),
        AuthAction::Function { function_name } => callable(function_name),
        AuthAction::Pragma { pragma_name, pragma_value } => pragma(pragma_name, pragma_value),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Err(refused("ATTACH or DETACH")),
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => {
            Err("transaction control is not allowed here: send the statements together as one batch".to_owned())
        }
        AuthAction::Unknown { .. } => Err(refused("this statement")),
        _ => Err(SCHEMA_REFUSED.to_owned()),
    }
}

fn readable(table: &str) -> Result<(), String> {
    let name = table.to_ascii_lowercase();
    let fleet = name.starts_with(FLEET_PREFIX) && name != IDENTITY;
    let system = name.starts_with("sqlite_") && !SYSTEM_TABLES_READ.contains(&name.as_str());
    if fleet || system || name == "dbstat" { Err(refused(&format!("reading {table}"))) } else { Ok(()) }
}

fn writable(table: &str, database: Option<&str>) -> Result<(), String> {
    let name = table.to_ascii_lowercase();
    let ours = name.starts_with(FLEET_PREFIX) || name == LEDGER || name.starts_with("sqlite_");
    let elsewhere = database.is_some_and(|database| database != "main");
    // How SQLite announces CREATE, DROP and REINDEX; a plain write to it never comes this far.
    if SCHEMA_TABLES.contains(&name.as_str()) {
        return Err(SCHEMA_REFUSED.to_owned());
    }
    if ours || elsewhere { Err(refused(&format!("writing to {table}"))) } else { Ok(()) }
}

fn callable(function: &str) -> Result<(), String> {
    let name = function.to_ascii_lowercase();
    if FUNCTIONS_REFUSED.contains(&name.as_str()) { Err(refused(&format!("the function {name}"))) } else { Ok(()) }
}

fn pragma(name: &str, value: Option<&str>) -> Result<(), String> {
    let name = name.to_ascii_lowercase();
    let listed: &[&str] = if value.is_some() { &PRAGMAS_OF_AN_OBJECT } else { &PRAGMAS_WITHOUT_ARGUMENT };
    if listed.contains(&name.as_str()) { Ok(()) } else { Err(refused(&format!("this use of PRAGMA {name}"))) }
}

fn refused(what: &str) -> String {
    format!("{what} is not allowed in tenant SQL")
}
