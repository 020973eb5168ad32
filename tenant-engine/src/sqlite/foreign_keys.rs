//! Foreign keys that refer to a table, and the rows whose parent is missing.
//!
//! Called by `references.rs` around a table that a migration makes anew, and by the verbs that count violations. SQLite
//! itself says which rows violate a key; nothing here compares keys except for a table without rowids.

use rusqlite::{Connection, params};

use super::error::from_sqlite;
use crate::error::{Error, ErrorKind, Result};

/// Counting stops here: the number serves to compare and to warn, not to list.
const COUNT_MAX: i64 = 1_000_000;

/// Keys of rows without a parent that are remembered while a table is made anew. A database with more was never kept
/// under enforced foreign keys.
const OLD_KEYS_MAX: usize = 100_000;

/// One foreign key of a child table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignKey {
    /// The table with the key, as it is written.
    pub(super) child: String,
    /// The table that the key refers to.
    pub(super) parent: String,
    /// What happens to a row whose parent is deleted, in SQLite's words.
    pub(super) on_delete: String,
    id: i64,
    columns: Vec<String>,
    /// Empty for the parent's primary key.
    targets: Vec<String>,
    /// A name of the rowid that no column has.
    rowid: Option<&'static str>,
}

/// Keys that had no parent before: rows with them are no business of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OldOrphans {
    /// The child table, in lower case.
    child: String,
    columns: usize,
    keys: Vec<String>,
    /// How many rows have them.
    rows: u64,
}

/// How many violations there are, at most a million.
///
/// # Errors
/// SQLite's.
pub(super) fn count(db: &Connection) -> Result<u64> {
    let sql = "select count(*) from (select 1 from pragma_foreign_key_check limit ?1)";
    let found: i64 = db.query_row(sql, [COUNT_MAX], |row| row.get(0)).map_err(from_sqlite)?;
    Ok(u64::try_from(found).unwrap_or_default())
}

/// The foreign keys of other tables that refer to this one.
///
/// # Errors
/// SQLite's.
pub(super) fn referring(db: &Connection, parent: &str) -> Result<Vec<ForeignKey>> {
    let mut keys = referring_or_own(db, parent)?;
    keys.retain(|key| !key.child.eq_ignore_ascii_case(&key.parent));
    Ok(keys)
}

/// The same, with the table's own keys that refer to itself.
///
/// # Errors
/// SQLite's.
pub(super) fn referring_or_own(db: &Connection, parent: &str) -> Result<Vec<ForeignKey>> {
    let sql = "select t.name, f.\"table\", f.on_delete, f.id, f.\"from\", f.\"to\", t.wr
               from pragma_table_list t join pragma_foreign_key_list(t.name, 'main') f
               where t.schema = 'main' and t.type = 'table' and f.\"table\" = ?1 collate nocase
               order by t.name, f.id, f.seq";
    let mut statement = db.prepare(sql).map_err(from_sqlite)?;
    let mut rows = statement.query([parent]).map_err(from_sqlite)?;
    let mut keys: Vec<ForeignKey> = Vec::new();
    while let Some(row) = rows.next().map_err(from_sqlite)? {
        let (key, column, target, without_rowid) = read(row).map_err(from_sqlite)?;
        let same = |last: &&mut ForeignKey| last.child == key.child && last.id == key.id;
        if keys.last_mut().filter(same).is_none() {
            let rowid = if without_rowid { None } else { rowid_name(db, &key.child)? };
            keys.push(ForeignKey { rowid, ..key });
        }
        if let Some(last) = keys.last_mut() {
            last.columns.push(column);
            last.targets.extend(target);
        }
    }
    Ok(keys)
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<(ForeignKey, String, Option<String>, bool)> {
    let (columns, targets, rowid) = (Vec::new(), Vec::new(), None);
    let (child, parent, on_delete, id) = (row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?);
    let key = ForeignKey { child, parent, on_delete, id, columns, targets, rowid };
    Ok((key, row.get(4)?, row.get(5)?, row.get(6)?))
}

fn rowid_name(db: &Connection, table: &str) -> Result<Option<&'static str>> {
    let sql = "select 1 from pragma_table_xinfo(?1, 'main') where name = ?2 collate nocase";
    let mut statement = db.prepare_cached(sql).map_err(from_sqlite)?;
    for name in ["rowid", "_rowid_", "oid"] {
        if !statement.exists([table, name]).map_err(from_sqlite)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// The keys that refer to nothing now, by child table.
///
/// # Errors
/// [`ErrorKind::MigrationFailed`] when there are too many; otherwise SQLite's.
pub(super) fn old_orphans(db: &Connection, parent: &str) -> Result<Vec<OldOrphans>> {
    let mut found = Vec::new();
    for key in referring_or_own(db, parent)? {
        let rows = key.violations(db)?.unwrap_or(0);
        if rows > 0 {
            let (child, columns) = (key.child.to_ascii_lowercase(), key.columns.len());
            found.push(OldOrphans { child, columns, keys: key.orphans(db)?, rows });
        }
    }
    Ok(found)
}

impl ForeignKey {
    /// How many rows violate it; `None` when SQLite cannot tell, because the parent has no such unique key.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn violations(&self, db: &Connection) -> Result<Option<u64>> {
        let sql = "select count(*) from pragma_foreign_key_check(?1, 'main') where fkid = ?2";
        match db.query_row(sql, params![self.child, self.id], |row| row.get::<_, i64>(0)) {
            Ok(count) => Ok(Some(u64::try_from(count).unwrap_or_default())),
            Err(error) if error.to_string().contains("foreign key mismatch") => Ok(None),
            Err(error) => Err(from_sqlite(error)),
        }
    }

    /// How many rows violate it whose keys are not old.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationFailed`] when they cannot be told; otherwise SQLite's.
    pub(super) fn new_orphans(&self, db: &Connection, old: &[OldOrphans]) -> Result<u64> {
        let sql = format!("select count(*) from {} where {}", self.table(), self.is_new_orphan(db)?);
        let count: i64 = db.query_row(&sql, [self.old_keys(db, old)?], |row| row.get(0)).map_err(from_sqlite)?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Does to these rows what the key declares for a parent that is deleted. Returns false when it declares nothing.
    ///
    /// # Errors
    /// SQLite's, when a constraint forbids it.
    pub(super) fn act(&self, db: &Connection, old: &[OldOrphans]) -> Result<bool> {
        let start = match self.on_delete.as_str() {
            "CASCADE" => format!("delete from {}", self.table()),
            "SET NULL" => format!("update {} set {}", self.table(), self.set(|_| Ok("null".to_owned()))?),
            "SET DEFAULT" => format!("update {} set {}", self.table(), self.set(|name| self.default_of(db, name))?),
            _ => return Ok(false),
        };
        self.require_old_ones_known(db, old)?;
        let sql = format!("{start} where {}", self.is_new_orphan(db)?);
        db.execute(&sql, [self.old_keys(db, old)?]).map_err(from_sqlite)?;
        Ok(true)
    }

    /// Rows that lacked their parent before are known by their keys. Where the file has changed the type or the order of the
    /// key's columns, they would be taken for new ones.
    fn require_old_ones_known(&self, db: &Connection, old: &[OldOrphans]) -> Result<()> {
        let before: u64 = self.of_this(db, old)?.iter().map(|orphans| orphans.rows).sum();
        let known = self.violations(db)?.unwrap_or(0).saturating_sub(self.new_orphans(db, old)?);
        if known >= before {
            return Ok(());
        }
        let (child, parent) = (&self.child, &self.parent);
        Err(unclear(format!("which rows of '{child}' lacked their row of '{parent}' before the file ran")))
    }

    /// Makes a parent without rows.
    pub(super) fn empty_parent(&self) -> String {
        let targets = if self.targets.is_empty() { &self.columns } else { &self.targets };
        let names = targets.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
        format!("create table main.{}({names}, primary key({names}))", quoted(&self.parent))
    }

    /// Drops it.
    pub(super) fn drop_parent(&self) -> String {
        format!("drop table main.{}", quoted(&self.parent))
    }

    fn table(&self) -> String {
        format!("main.{}", quoted(&self.child))
    }

    fn set(&self, value: impl Fn(&str) -> Result<String>) -> Result<String> {
        let set = |name: &String| Ok(format!("{} = {}", quoted(name), value(name)?));
        Ok(self.columns.iter().map(set).collect::<Result<Vec<_>>>()?.join(", "))
    }

    fn default_of(&self, db: &Connection, column: &str) -> Result<String> {
        let sql = "select dflt_value from pragma_table_xinfo(?1, 'main') where name = ?2 collate nocase";
        let value: Option<String> = db.query_row(sql, [&self.child, column], |row| row.get(0)).map_err(from_sqlite)?;
        Ok(value.map_or_else(|| "null".to_owned(), |value| format!("({value})")))
    }

    /// The key's values of a row as one text.
    fn key(&self) -> String {
        self.columns.iter().map(|name| format!("quote({})", quoted(name))).collect::<Vec<_>>().join(" || ',' || ")
    }

    fn orphans(&self, db: &Connection) -> Result<Vec<String>> {
        let sql = format!("select distinct {} from {} where {}", self.key(), self.table(), self.is_orphan(db)?);
        let mut statement = db.prepare(&sql).map_err(from_sqlite)?;
        let rows = statement.query_map([], |row| row.get(0)).map_err(from_sqlite)?;
        let keys: Vec<String> = rows.take(OLD_KEYS_MAX + 1).collect::<rusqlite::Result<_>>().map_err(from_sqlite)?;
        if keys.len() > OLD_KEYS_MAX {
            let (child, parent) = (&self.child, &self.parent);
            return Err(unclear(format!(
                "the rows of '{child}' that lack their row of '{parent}' apart: they are too many"
            )));
        }
        Ok(keys)
    }

    fn is_new_orphan(&self, db: &Connection) -> Result<String> {
        Ok(format!("{} and {} not in (select value from json_each(?1))", self.is_orphan(db)?, self.key()))
    }

    fn old_keys(&self, db: &Connection, old: &[OldOrphans]) -> Result<String> {
        let keys: Vec<&String> = self.of_this(db, old)?.into_iter().flat_map(|orphans| &orphans.keys).collect();
        Ok(serde_json::to_string(&keys).unwrap_or_else(|_| "[]".to_owned()))
    }

    /// Those that may be this child's: the rows of a table that is gone may live on under another name.
    fn of_this<'o>(&self, db: &Connection, old: &'o [OldOrphans]) -> Result<Vec<&'o OldOrphans>> {
        let mut found = Vec::new();
        for orphans in old.iter().filter(|orphans| orphans.columns == self.columns.len()) {
            if orphans.child == self.child.to_ascii_lowercase() || !table_exists(db, &orphans.child)? {
                found.push(orphans);
            }
        }
        Ok(found)
    }

    fn is_orphan(&self, db: &Connection) -> Result<String> {
        let Some(rowid) = self.rowid else { return self.is_orphan_by_key(db) };
        let child = self.child.replace('\'', "''");
        Ok(format!(
            "{rowid} in (select rowid from pragma_foreign_key_check('{child}', 'main') where fkid = {})",
            self.id
        ))
    }

    /// For a table without rowids. The comparison may differ from SQLite's, so both must find as many rows.
    fn is_orphan_by_key(&self, db: &Connection) -> Result<String> {
        let present: Vec<_> = self.columns.iter().map(|name| format!("{} is not null", quoted(name))).collect();
        let mut condition = present.join(" and ");
        if table_exists(db, &self.parent)? {
            let child = quoted(&self.child);
            let pair = |(column, target): (&String, &String)| {
                format!("parent.{} = {child}.{}", quoted(target), quoted(column))
            };
            let equal: Vec<_> = self.columns.iter().zip(&self.targets(db)?).map(pair).collect();
            let parent = quoted(&self.parent);
            condition += &format!(" and not exists (select 1 from main.{parent} parent where {})", equal.join(" and "));
        }
        let sql = format!("select count(*) from {} where {condition}", self.table());
        let found: i64 = db.query_row(&sql, [], |row| row.get(0)).map_err(from_sqlite)?;
        if self.violations(db)? != u64::try_from(found).ok() {
            return Err(unclear(format!("which rows of '{}' lack their row of '{}'", self.child, self.parent)));
        }
        Ok(condition)
    }

    fn targets(&self, db: &Connection) -> Result<Vec<String>> {
        if !self.targets.is_empty() {
            return Ok(self.targets.clone());
        }
        let sql = "select name from pragma_table_info(?1, 'main') where pk > 0 order by pk";
        let mut statement = db.prepare(sql).map_err(from_sqlite)?;
        let rows = statement.query_map([&self.parent], |row| row.get(0)).map_err(from_sqlite)?;
        rows.collect::<rusqlite::Result<_>>().map_err(from_sqlite)
    }
}

/// Whether the main database has a table of this name.
///
/// # Errors
/// SQLite's.
pub(super) fn table_exists(db: &Connection, name: &str) -> Result<bool> {
    let sql = "select 1 from main.sqlite_schema where type = 'table' and name = ?1 collate nocase";
    db.prepare_cached(sql).and_then(|mut statement| statement.exists([name])).map_err(from_sqlite)
}

pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn unclear(what: String) -> Error {
    Error::new(ErrorKind::MigrationFailed, format!("cannot tell {what}: remove or repair these rows first"))
}
