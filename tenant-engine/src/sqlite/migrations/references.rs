//! Foreign keys while one migration runs: enforced, except for a table that the file rebuilds.
//!
//! The usual way to change a column makes a new table, copies the rows, drops the old table and renames the new one.
//! With foreign keys enforced, DROP TABLE deletes the old rows first, and ON DELETE CASCADE deletes their child rows.
//! So enforcement is off for a DROP or RENAME of a referenced table that the rest of the file makes again. Every other
//! statement runs as in plain SQLite. At the end, rows whose parent is really missing get the action that their key
//! declares ([`MigrationForeignKeys::settle_orphans`]).
//!
//! It also handles BEGIN, COMMIT and `pragma foreign_keys`. The file is one transaction of the engine, so BEGIN and
//! COMMIT change nothing. The pragma takes effect where the file would be outside a transaction.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::foreign_keys::{
    ForeignKey, OldOrphans, count_violations, old_orphans, referring_keys, referring_or_own, table_exists,
};
use super::row_contents::RowContents;
use super::steps::{self, MigrationStep};
use crate::error::Result;
use crate::sqlite::error::from_sqlite;

/// How to run the next statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum StatementTurn {
    /// Run it unchanged.
    Run,
    /// Run it; when a foreign key forbids it, run it again after [`MigrationForeignKeys::loosen_drop`].
    TryEnforced,
    /// Skip it, because it has no effect here.
    Skip,
    /// Refuse it for this reason.
    Refuse(&'static str),
    /// Start the file again, with the next variant of [`ChildHandling`].
    StartOver,
}

/// How child rows of a table that the file rebuilds are handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChildHandling {
    /// They are kept, unless the file inserts into their table later: it may restore the rows that DROP TABLE deletes.
    KeepUnlessFilled,
    /// DROP TABLE deletes them, and the file must have restored every one of them at its end.
    LeaveToFile,
    /// They are kept.
    Keep,
}

/// Why ROLLBACK is refused.
pub(super) const ROLLBACK: &str =
    "ROLLBACK would undo the whole file: leave it out, or use a SAVEPOINT and ROLLBACK TO";

/// The foreign keys of one file that runs in the engine's transaction.
#[derive(Debug)]
pub(super) struct MigrationForeignKeys<'a> {
    db: &'a Connection,
    children: ChildHandling,
    /// The earlier content of tables whose rows DROP TABLE may delete.
    held: Vec<RowContents>,
    /// Number of violations of all foreign keys before the file, if it rebuilds a table.
    violations: Option<u64>,
    /// Whether the file has foreign keys enforced.
    enforced: bool,
    /// Whether the file would be in a transaction here; `None` before its first BEGIN or COMMIT.
    in_transaction: Option<bool>,
    /// Tables dropped or renamed without enforcement, by their old and new names.
    remade: BTreeSet<String>,
    /// New names of renamed tables, with the old ones.
    renamed: BTreeMap<String, String>,
    old: Vec<OldOrphans>,
}

impl<'a> MigrationForeignKeys<'a> {
    /// Enforces foreign keys from here on.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn enforced_on(db: &'a Connection, children: ChildHandling, text: &str) -> Result<Self> {
        enforce_keys(db, true)?;
        // SQLite counts violations when they arise, and an action at the end may hide a violation of another table. So
        // violations are counted before and after, but only for a file that rebuilds a table.
        let violations = if makes_anew(db, text)? { Some(count_violations(db)?) } else { None };
        let (remade, renamed, old, held) = (BTreeSet::new(), BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { db, children, held, violations, enforced: true, in_transaction: None, remade, renamed, old })
    }

    /// Prepares for the statement that `text` begins with.
    ///
    /// # Errors
    /// SQLite's; those of [`old_orphans`].
    pub(super) fn before_statement(&mut self, text: &str) -> Result<StatementTurn> {
        match steps::first_step(text) {
            MigrationStep::Drop { table } => self.before_drop(&table, text),
            MigrationStep::Rename { from, to } => self.before_rename(from, to, text),
            MigrationStep::Begin => Ok(self.turn_to(true)),
            MigrationStep::Commit => Ok(self.turn_to(false)),
            MigrationStep::Rollback => Ok(StatementTurn::Refuse(ROLLBACK)),
            MigrationStep::ForeignKeys(on) => self.switch_enforcement(on, text),
            MigrationStep::Other => Ok(StatementTurn::Run),
        }
    }

    /// Called after the statement: sets foreign keys again as the file has them.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn after_statement(&self) -> Result<()> {
        enforce_keys(self.db, self.enforced)
    }

    /// Prepares for running a DROP again that a foreign key has forbidden. The check at the end of the file decides.
    ///
    /// # Errors
    /// SQLite's; those of [`old_orphans`].
    pub(super) fn loosen_drop(&mut self, text: &str) -> Result<()> {
        match steps::first_step(text) {
            MigrationStep::Drop { table } => self.keep_children(&table),
            _ => Ok(()),
        }
    }

    fn turn_to(&mut self, in_transaction: bool) -> StatementTurn {
        self.in_transaction = Some(in_transaction);
        StatementTurn::Skip
    }

    fn switch_enforcement(&mut self, on: bool, text: &str) -> Result<StatementTurn> {
        if !self.in_transaction.unwrap_or_else(|| !steps::begins_outside(text)) {
            self.enforced = on;
            enforce_keys(self.db, on)?;
        }
        Ok(StatementTurn::Run)
    }

    fn before_drop(&mut self, table: &str, text: &str) -> Result<StatementTurn> {
        if !self.enforced {
            return Ok(StatementTurn::Run);
        }
        let keys = referring_keys(self.db, table)?;
        if keys.is_empty() {
            return Ok(StatementTurn::Run);
        }
        if self.children == ChildHandling::LeaveToFile {
            return self.hold_rows(&keys);
        }
        let moved_away = match self.renamed.get(table) {
            Some(before) => table_exists(self.db, before)? || is_made_later(text, before),
            None => false,
        };
        if !moved_away && !is_made_later(text, table) {
            return Ok(StatementTurn::TryEnforced);
        }
        let may_be_restored = |key: &ForeignKey| {
            key.on_delete == "CASCADE" && steps::fills_table(behind_first(text), &key.child.to_ascii_lowercase())
        };
        if self.children == ChildHandling::KeepUnlessFilled && keys.iter().any(may_be_restored) {
            return Ok(StatementTurn::StartOver);
        }
        self.keep_children(table)?;
        Ok(StatementTurn::Run)
    }

    /// Remembers the rows of all tables that a DROP of this table reaches: its children, and their children.
    fn hold_rows(&mut self, keys: &[ForeignKey]) -> Result<StatementTurn> {
        let mut reached: Vec<String> = keys.iter().map(|key| key.child.clone()).collect();
        let mut next = 0;
        while let Some(table) = reached.get(next).cloned() {
            for key in referring_keys(self.db, &table)? {
                if !reached.contains(&key.child) {
                    reached.push(key.child);
                }
            }
            self.held.push(RowContents::read_table(self.db, &table)?);
            next += 1;
        }
        Ok(StatementTurn::Run)
    }

    /// The tables of which the file has deleted rows without restoring them.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn lost_tables(&mut self) -> Result<Vec<String>> {
        let mut lost = Vec::new();
        for held in std::mem::take(&mut self.held) {
            lost.extend(held.lost_table(self.db)?);
        }
        Ok(lost)
    }

    /// With `legacy_alter_table` and without enforcement, references keep the old name: a table of that name may be
    /// made again.
    fn before_rename(&mut self, from: String, to: String, text: &str) -> Result<StatementTurn> {
        // A rebuilt table that gets another name is checked under the new name.
        if self.remade.contains(&from) {
            self.remade.insert(to.clone());
        }
        let keeps = self.enforced && self.children != ChildHandling::LeaveToFile;
        if keeps && !referring_keys(self.db, &from)?.is_empty() && is_made_later(text, &from) {
            self.keep_children(&from)?;
            self.remade.insert(to.clone());
        }
        self.renamed.insert(to, from);
        Ok(StatementTurn::Run)
    }

    fn keep_children(&mut self, table: &str) -> Result<()> {
        if self.remade.insert(table.to_owned()) {
            self.old.extend(old_orphans(self.db, table)?);
        }
        enforce_keys(self.db, false)
    }

    /// Finishes the file: rows whose parent is missing get the action of their key. Returns the reason if it refuses
    /// the file. Checks again after the actions, because SQLite counts only violations that it has seen arise.
    ///
    /// # Errors
    /// SQLite's, when a constraint forbids an action.
    pub(super) fn settle_orphans(self) -> Result<Option<String>> {
        enforce_keys(self.db, true)?;
        if !self.remade.is_empty() {
            // Rows with several parent tables are consistent only after the last action.
            self.db.execute_batch("pragma defer_foreign_keys = on").map_err(from_sqlite)?;
        }
        for act in [true, false] {
            for table in &self.remade {
                for key in referring_or_own(self.db, table)? {
                    if let Some(why) = self.settle_key(&key, act)? {
                        return Ok(Some(why));
                    }
                }
            }
        }
        if let (false, Some(before)) = (self.remade.is_empty(), self.violations) {
            let more = count_violations(self.db)?.saturating_sub(before);
            return Ok((more > 0).then(|| format!("{more} rows refer to rows that are missing at the end of the file")));
        }
        Ok(None)
    }

    fn settle_key(&self, key: &ForeignKey, act: bool) -> Result<Option<String>> {
        let (child, parent) = (&key.child, &key.parent);
        let orphans = match key.violation_count(self.db)? {
            Some(0) => return Ok(None),
            Some(_) => key.new_orphans(self.db, &self.old)?,
            None => {
                return Ok(Some(format!("'{child}' refers to columns of '{parent}' that are not a unique key now")));
            }
        };
        if orphans == 0 {
            return Ok(None);
        }
        let renamed = self.renamed.get(&parent.to_ascii_lowercase());
        if renamed.is_some() && !table_exists(self.db, parent)? {
            return Ok(Some(followed_a_rename(key, orphans)));
        }
        let acted = act && self.apply_action(key)?;
        Ok((!acted).then(|| not_allowed(key, orphans)))
    }

    /// SQLite does nothing to a child whose parent table does not exist, so an empty table takes its place meanwhile.
    fn apply_action(&self, key: &ForeignKey) -> Result<bool> {
        if table_exists(self.db, &key.parent)? {
            return key.apply_action(self.db, &self.old);
        }
        self.db.execute_batch(&key.empty_parent()).map_err(from_sqlite)?;
        let acted = key.apply_action(self.db, &self.old)?;
        enforce_keys(self.db, false)?;
        self.db.execute_batch(&key.drop_parent()).map_err(from_sqlite)?;
        enforce_keys(self.db, true)?;
        Ok(acted)
    }
}

/// True when a statement drops or renames a table that other tables refer to.
fn makes_anew(db: &Connection, text: &str) -> Result<bool> {
    for table in steps::dropped_or_renamed(text) {
        if !referring_or_own(db, &table)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// True when a statement after the first one makes the table.
fn is_made_later(text: &str, table: &str) -> bool {
    steps::makes_table(behind_first(text), table)
}

fn behind_first(text: &str) -> &str {
    text.get(steps::statement_end(text)..).unwrap_or_default()
}

fn not_allowed(key: &ForeignKey, orphans: u64) -> String {
    let ForeignKey { child, parent, on_delete, .. } = key;
    format!(
        "{orphans} rows of '{child}' refer to rows missing from '{parent}', and their foreign key says ON DELETE \
         {on_delete}: delete or change these rows earlier in the file, or keep the rows of '{parent}'"
    )
}

fn followed_a_rename(key: &ForeignKey, orphans: u64) -> String {
    let ForeignKey { child, parent, .. } = key;
    format!(
        "{orphans} rows of '{child}' refer to rows missing from '{parent}', because a reference follows a table that is \
         renamed: make the new table under another name, copy the rows, drop the old table, then rename the new one"
    )
}

fn enforce_keys(db: &Connection, on: bool) -> Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, on).map(drop).map_err(from_sqlite)
}
