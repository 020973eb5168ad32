//! Foreign keys while one migration runs: enforced, except for a table that the file makes anew.
//!
//! The usual way to change a column makes a new table, copies the rows, drops the old table and renames the new one.
//! With foreign keys enforced, DROP TABLE deletes the old rows first, and ON DELETE CASCADE takes their children. So
//! enforcement is off for a DROP or RENAME of a table that other tables refer to and that the rest of the file makes
//! again; every other statement runs as SQLite runs it. At the end, rows whose parent is really gone get the action
//! that their key declares ([`References::settle`]).
//!
//! It also does what BEGIN, COMMIT and `pragma foreign_keys` mean: the file is one transaction of the engine, so the
//! first two change nothing, and the pragma counts where the file would be outside a transaction.

use std::collections::{BTreeMap, BTreeSet};

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::error::from_sqlite;
use super::foreign_keys::{ForeignKey, OldOrphans, count, old_orphans, referring, referring_or_own, table_exists};
use super::row_contents::RowContents;
use super::steps::{self, Step};
use crate::error::Result;

/// What to do with the next statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Turn {
    /// Run it as it is.
    Run,
    /// Run it; when a foreign key forbids it, run it again after [`References::loosen`].
    TryEnforced,
    /// It changes nothing here.
    Skip,
    /// It may not run; says why.
    Refuse(&'static str),
    /// The file must start over, with the next of [`Children`].
    StartOver,
}

/// What happens to the children of a table that the file makes anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Children {
    /// They stay, unless the file inserts into their table later: it may bring back what DROP TABLE deletes.
    KeepUnlessFilled,
    /// DROP TABLE deletes them, and the file must have brought back every one of them at its end.
    LeaveToFile,
    /// They stay.
    Keep,
}

const ROLLBACK: &str = "ROLLBACK would undo the whole file: leave it out, or use a SAVEPOINT and ROLLBACK TO";

/// The foreign keys of one file that runs in the engine's transaction.
#[derive(Debug)]
pub(super) struct References<'a> {
    db: &'a Connection,
    children: Children,
    /// Tables whose rows DROP TABLE may delete, as they were before.
    held: Vec<RowContents>,
    /// Violations of all foreign keys before the file, if it makes a table anew.
    violations: Option<u64>,
    /// As the file has them.
    enforced: bool,
    /// Whether the file would be in a transaction here; `None` until its first BEGIN or COMMIT tells.
    in_transaction: Option<bool>,
    /// Tables dropped or renamed without enforcement, by their names then and after.
    remade: BTreeSet<String>,
    /// New names of renamed tables, with the old ones.
    renamed: BTreeMap<String, String>,
    old: Vec<OldOrphans>,
}

impl<'a> References<'a> {
    /// Enforces foreign keys from here on.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn enforced_on(db: &'a Connection, children: Children, text: &str) -> Result<Self> {
        enforce(db, true)?;
        // SQLite counts violations as they arise, and an action at the end may hide one of another table. So they are
        // counted before and after, but only around a file that makes a table anew.
        let violations = if makes_anew(db, text)? { Some(count(db)?) } else { None };
        let (remade, renamed, old, held) = (BTreeSet::new(), BTreeMap::new(), Vec::new(), Vec::new());
        Ok(Self { db, children, held, violations, enforced: true, in_transaction: None, remade, renamed, old })
    }

    /// Prepares for the statement that `text` begins with.
    ///
    /// # Errors
    /// SQLite's; those of [`old_orphans`].
    pub(super) fn before(&mut self, text: &str) -> Result<Turn> {
        match steps::first(text) {
            Step::Drop { table } => self.before_drop(&table, text),
            Step::Rename { from, to } => self.before_rename(from, to, text),
            Step::Begin => Ok(self.turn_to(true)),
            Step::Commit => Ok(self.turn_to(false)),
            Step::Rollback => Ok(Turn::Refuse(ROLLBACK)),
            Step::ForeignKeys(on) => self.switch(on, text),
            Step::Other => Ok(Turn::Run),
        }
    }

    /// The statement is over: foreign keys are again as the file has them.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn after(&self) -> Result<()> {
        enforce(self.db, self.enforced)
    }

    /// Prepares for running a DROP again that a foreign key has forbidden. The end of the file decides.
    ///
    /// # Errors
    /// SQLite's; those of [`old_orphans`].
    pub(super) fn loosen(&mut self, text: &str) -> Result<()> {
        match steps::first(text) {
            Step::Drop { table } => self.keep_children(&table),
            _ => Ok(()),
        }
    }

    fn turn_to(&mut self, in_transaction: bool) -> Turn {
        self.in_transaction = Some(in_transaction);
        Turn::Skip
    }

    fn switch(&mut self, on: bool, text: &str) -> Result<Turn> {
        if !self.in_transaction.unwrap_or_else(|| !steps::begins_outside(text)) {
            self.enforced = on;
            enforce(self.db, on)?;
        }
        Ok(Turn::Run)
    }

    fn before_drop(&mut self, table: &str, text: &str) -> Result<Turn> {
        if !self.enforced {
            return Ok(Turn::Run);
        }
        let keys = referring(self.db, table)?;
        if keys.is_empty() {
            return Ok(Turn::Run);
        }
        if self.children == Children::LeaveToFile {
            return self.hold(&keys);
        }
        let moved_away = match self.renamed.get(table) {
            Some(before) => table_exists(self.db, before)? || is_made_later(text, before),
            None => false,
        };
        if !moved_away && !is_made_later(text, table) {
            return Ok(Turn::TryEnforced);
        }
        let may_be_restored = |key: &ForeignKey| {
            key.on_delete == "CASCADE" && steps::fills(behind_first(text), &key.child.to_ascii_lowercase())
        };
        if self.children == Children::KeepUnlessFilled && keys.iter().any(may_be_restored) {
            return Ok(Turn::StartOver);
        }
        self.keep_children(table)?;
        Ok(Turn::Run)
    }

    /// Remembers the rows of all tables that a DROP of this one reaches: children, and children of children.
    fn hold(&mut self, keys: &[ForeignKey]) -> Result<Turn> {
        let mut reached: Vec<String> = keys.iter().map(|key| key.child.clone()).collect();
        let mut next = 0;
        while let Some(table) = reached.get(next).cloned() {
            for key in referring(self.db, &table)? {
                if !reached.contains(&key.child) {
                    reached.push(key.child);
                }
            }
            self.held.push(RowContents::read(self.db, &table)?);
            next += 1;
        }
        Ok(Turn::Run)
    }

    /// The tables of which the file has deleted rows and not brought them back.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn lost(&mut self) -> Result<Vec<String>> {
        let mut lost = Vec::new();
        for held in std::mem::take(&mut self.held) {
            lost.extend(held.lost(self.db)?);
        }
        Ok(lost)
    }

    /// With `legacy_alter_table` and without enforcement, references keep the old name: the table may come again.
    fn before_rename(&mut self, from: String, to: String, text: &str) -> Result<Turn> {
        // A table that was made anew and gets another name is looked at under that name.
        if self.remade.contains(&from) {
            self.remade.insert(to.clone());
        }
        let keeps = self.enforced && self.children != Children::LeaveToFile;
        if keeps && !referring(self.db, &from)?.is_empty() && is_made_later(text, &from) {
            self.keep_children(&from)?;
            self.remade.insert(to.clone());
        }
        self.renamed.insert(to, from);
        Ok(Turn::Run)
    }

    fn keep_children(&mut self, table: &str) -> Result<()> {
        if self.remade.insert(table.to_owned()) {
            self.old.extend(old_orphans(self.db, table)?);
        }
        enforce(self.db, false)
    }

    /// The end of the file: rows whose parent is gone get the action of their key. Says why it refuses, if it does.
    /// Looks again after the actions, because SQLite counts only violations that it has seen arise.
    ///
    /// # Errors
    /// SQLite's, when a constraint forbids an action.
    pub(super) fn settle(self) -> Result<Option<String>> {
        enforce(self.db, true)?;
        if !self.remade.is_empty() {
            // Children of several tables at once are in order only after the last action.
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
            let more = count(self.db)?.saturating_sub(before);
            return Ok((more > 0).then(|| format!("{more} rows refer to rows that are missing at the end of the file")));
        }
        Ok(None)
    }

    fn settle_key(&self, key: &ForeignKey, act: bool) -> Result<Option<String>> {
        let (child, parent) = (&key.child, &key.parent);
        let orphans = match key.violations(self.db)? {
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
        let acted = act && self.act(key)?;
        Ok((!acted).then(|| not_allowed(key, orphans)))
    }

    /// SQLite does nothing to a child whose parent does not exist, so an empty table takes its place meanwhile.
    fn act(&self, key: &ForeignKey) -> Result<bool> {
        if table_exists(self.db, &key.parent)? {
            return key.act(self.db, &self.old);
        }
        self.db.execute_batch(&key.empty_parent()).map_err(from_sqlite)?;
        let acted = key.act(self.db, &self.old)?;
        enforce(self.db, false)?;
        self.db.execute_batch(&key.drop_parent()).map_err(from_sqlite)?;
        enforce(self.db, true)?;
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

/// A statement behind the first one makes the table.
fn is_made_later(text: &str, table: &str) -> bool {
    steps::makes(behind_first(text), table)
}

fn behind_first(text: &str) -> &str {
    text.get(steps::end(text)..).unwrap_or_default()
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

fn enforce(db: &Connection, on: bool) -> Result<()> {
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, on).map(drop).map_err(from_sqlite)
}
