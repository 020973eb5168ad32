//! Decides what a migration may do, statement by statement before each runs.
//!
//! The engine controls the records of a migration: transaction, ledger, identity and durability. A statement that would
//! let the file change them is refused, with the reason. The rest of SQL, above all DDL, is allowed.

use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::pragmas;
use crate::error::Result;
use crate::migration::LedgerName;
use crate::sqlite::error::from_sqlite;
use crate::sqlite::locks::lock_ignoring_poison;

/// How the guarded file runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RunMode {
    /// In the engine's transaction.
    Whole,
    /// Outside a transaction: the file may have its own BEGIN and COMMIT, and VACUUM.
    Bare,
}

/// An authorizer that is installed until it is dropped.
#[derive(Debug)]
pub(super) struct MigrationGuard<'a> {
    db: &'a Connection,
    verdict: Arc<Mutex<Option<String>>>,
}

impl<'a> MigrationGuard<'a> {
    /// Installs the guard on a connection.
    ///
    /// # Errors
    /// When the connection is already in use.
    pub(super) fn install_guard(db: &'a Connection, run: RunMode, ledger: &LedgerName) -> Result<Self> {
        let verdict = Arc::new(Mutex::new(None));
        let (seen, ledger) = (Arc::clone(&verdict), ledger.clone());
        let hook = move |context: AuthContext<'_>| match judge_action(&context, run, &ledger) {
            None => Authorization::Allow,
            Some(stop) => {
                lock_ignoring_poison(&seen).get_or_insert(stop);
                Authorization::Deny
            }
        };
        db.authorizer(Some(hook)).map_err(from_sqlite)?;
        Ok(Self { db, verdict })
    }

    /// The first refusal, if there was one.
    pub(super) fn first_objection(&self) -> Option<String> {
        lock_ignoring_poison(&self.verdict).clone()
    }
}

impl Drop for MigrationGuard<'_> {
    fn drop(&mut self) {
        let none: Option<fn(AuthContext<'_>) -> Authorization> = None;
        let _ = self.db.authorizer(none);
    }
}

/// The reason for refusing an action; `None` allows it.
fn judge_action(context: &AuthContext<'_>, run: RunMode, ledger: &LedgerName) -> Option<String> {
    // VACUUM copies everything, including the engine's tables, into a temporary database of this name.
    let vacuuming = run == RunMode::Bare && context.database_name.is_some_and(|name| name.starts_with("vacuum_"));
    let table = changed_names(&context.action).into_iter().find(|name| is_ours(name, ledger));
    if let (Some(table), false) = (table, vacuuming) {
        return forbid_with(belongs_to_engine(table));
    }
    match &context.action {
        AuthAction::Transaction { .. } if run != RunMode::Bare => {
            forbid_with("the engine's transaction cannot be ended by a migration")
        }
        AuthAction::Attach { filename } if !(run == RunMode::Bare && filename.is_empty()) => {
            forbid_with("ATTACH and VACUUM INTO would reach other files")
        }
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            forbid_with("extensions cannot be loaded")
        }
        AuthAction::Pragma { pragma_name, pragma_value } => pragmas::check_pragma(pragma_name, *pragma_value).err(),
        // These include ATTACH and DETACH of a computed name.
        AuthAction::Unknown { .. } => forbid_with("this statement would reach other files, or is not known here"),
        _ => None,
    }
}

/// The reason for refusing a name of the engine's own.
pub(super) fn belongs_to_engine(table: &str) -> String {
    format!("'{table}' belongs to the engine; a migration may not change it")
}

fn forbid_with(why: impl Into<String>) -> Option<String> {
    Some(why.into())
}

/// The names that an action would make, change or remove.
fn changed_names<'c>(action: &AuthAction<'c>) -> Vec<&'c str> {
    match action {
        AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
        | AuthAction::CreateTable { table_name }
        | AuthAction::CreateTempTable { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::DropTempTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::CreateVtable { table_name, .. }
        | AuthAction::DropVtable { table_name, .. } => vec![table_name],
        AuthAction::CreateIndex { index_name, table_name }
        | AuthAction::CreateTempIndex { index_name, table_name }
        | AuthAction::DropIndex { index_name, table_name }
        | AuthAction::DropTempIndex { index_name, table_name } => vec![index_name, table_name],
        AuthAction::CreateTrigger { trigger_name, table_name }
        | AuthAction::CreateTempTrigger { trigger_name, table_name }
        | AuthAction::DropTrigger { trigger_name, table_name }
        | AuthAction::DropTempTrigger { trigger_name, table_name } => vec![trigger_name, table_name],
        AuthAction::CreateView { view_name }
        | AuthAction::CreateTempView { view_name }
        | AuthAction::DropView { view_name }
        | AuthAction::DropTempView { view_name } => vec![view_name],
        _ => Vec::new(),
    }
}

/// The names of the engine's own tables. They are compared before and after a migration, because the authorizer is not
/// told the *new* name of a renamed table.
///
/// # Errors
/// SQLite's.
pub(super) fn our_objects(db: &Connection, ledger: &LedgerName) -> Result<Vec<String>> {
    let sql = "select name from main.sqlite_schema where name like '\\_fleet\\_%' escape '\\' \
         or name = ?1 collate nocase \
         order by 1";
    let mut statement = db.prepare_cached(sql).map_err(from_sqlite)?;
    let rows = statement.query_map([ledger.as_str()], |row| row.get(0)).map_err(from_sqlite)?;
    rows.collect::<rusqlite::Result<_>>().map_err(from_sqlite)
}

/// True for the ledger and for every name that begins with `_fleet_`.
pub(in crate::sqlite) fn is_ours(name: &str, ledger: &LedgerName) -> bool {
    name.eq_ignore_ascii_case(ledger.as_str())
        || name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("_fleet_"))
}
