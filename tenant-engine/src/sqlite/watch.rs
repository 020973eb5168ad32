//! What a migration may do, decided statement by statement before it runs.
//!
//! The engine keeps the books of a migration (transaction, ledger, identity, durability); whatever would let the file
//! change them behind its back is refused, with the reason. The rest of SQL, DDL above all, is the file's own.

use std::sync::{Arc, Mutex};

use rusqlite::Connection;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};

use super::error::from_sqlite;
use super::ledger;
use super::pragmas;
use super::workers::lock;
use crate::error::Result;

/// What kind of run is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// In the engine's transaction.
    Whole,
    /// Outside: the file may hold its own BEGIN and COMMIT, and VACUUM.
    Bare,
}

/// An authorizer in place until it is dropped.
#[derive(Debug)]
pub(super) struct Watch<'a> {
    db: &'a Connection,
    verdict: Arc<Mutex<Option<String>>>,
}

impl<'a> Watch<'a> {
    /// Starts watching.
    ///
    /// # Errors
    /// When the connection belongs to somebody else.
    pub(super) fn install(db: &'a Connection, run: Run) -> Result<Self> {
        let verdict = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&verdict);
        let hook = move |context: AuthContext<'_>| match judge(&context, run) {
            None => Authorization::Allow,
            Some(stop) => {
                lock(&seen).get_or_insert(stop);
                Authorization::Deny
            }
        };
        db.authorizer(Some(hook)).map_err(from_sqlite)?;
        Ok(Self { db, verdict })
    }

    /// The first objection, if there was one.
    pub(super) fn verdict(&self) -> Option<String> {
        lock(&self.verdict).clone()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        let none: Option<fn(AuthContext<'_>) -> Authorization> = None;
        let _ = self.db.authorizer(none);
    }
}

/// `None` allows.
fn judge(context: &AuthContext<'_>, run: Run) -> Option<String> {
    // VACUUM copies everything, our tables too, into a temporary database of this name.
    let vacuuming = run == Run::Bare && context.database_name.is_some_and(|name| name.starts_with("vacuum_"));
    let table = changed(&context.action).into_iter().find(|name| is_ours(name));
    if let (Some(table), false) = (table, vacuuming) {
        return forbid(format!("'{table}' belongs to the engine; a migration may not change it"));
    }
    match &context.action {
        AuthAction::Transaction { .. } if run != Run::Bare => {
            forbid("the engine's transaction cannot be ended by a migration")
        }
        AuthAction::Attach { filename } if !(run == Run::Bare && filename.is_empty()) => {
            forbid("ATTACH and VACUUM INTO would reach other files")
        }
        AuthAction::Function { function_name } if function_name.eq_ignore_ascii_case("load_extension") => {
            forbid("extensions cannot be loaded")
        }
        AuthAction::Pragma { pragma_name, pragma_value } => pragmas::check(pragma_name, *pragma_value).err(),
        // Among these are ATTACH and DETACH of a name that is computed.
        AuthAction::Unknown { .. } => forbid("this statement would reach other files, or is not known here"),
        _ => None,
    }
}

fn forbid(why: impl Into<String>) -> Option<String> {
    Some(why.into())
}

/// The names an action would make, change or remove.
fn changed<'c>(action: &AuthAction<'c>) -> Vec<&'c str> {
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

/// The engine's own tables by name: compared across a migration, because the authorizer is not told what a table is
/// renamed *to*.
///
/// # Errors
/// SQLite's.
pub(super) fn our_objects(db: &Connection) -> Result<Vec<String>> {
    let sql =
        "select name from main.sqlite_schema where name like '\\_fleet\\_%' escape '\\' or name like ?1 order by 1";
    let mut statement = db.prepare_cached(sql).map_err(from_sqlite)?;
    let rows = statement.query_map([ledger::TABLE], |row| row.get(0)).map_err(from_sqlite)?;
    rows.collect::<rusqlite::Result<_>>().map_err(from_sqlite)
}

/// True for the ledger and for everything named `_fleet_…`.
pub(super) fn is_ours(name: &str) -> bool {
    name.eq_ignore_ascii_case(ledger::TABLE) || name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case("_fleet_"))
}
