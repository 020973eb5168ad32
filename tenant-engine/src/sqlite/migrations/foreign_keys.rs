//! Foreign keys that refer to a table, and the rows whose parent is missing.
//!
//! Called by `references.rs` around a table that a migration rebuilds, and by the engine operations that count
//! violations. SQLite itself reports which rows violate a key; this module compares keys only for a table without
//! rowids.

use rusqlite::{Connection, params};

use crate::error::{Error, ErrorKind, Result};
use crate::sqlite::error::from_sqlite;

/// Counting stops here: the number is for comparing and warning, not for listing.
const COUNT_MAX: i64 = 1_000_000;

/// Maximum keys of rows without a parent that are remembered while a table is rebuilt. A database with more was never
/// used with enforced foreign keys.
const OLD_KEYS_MAX: usize = 100_000;

/// One foreign key of a child table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ForeignKey {
    /// The name of the table with the key, as it is written.
    pub(super) child: String,
    /// The table that the key refers to.
    pub(super) parent: String,
    /// What happens to a row whose parent is deleted, in SQLite's words.
    pub(super) on_delete: String,
    id: i64,
    columns: Vec<String>,
    /// The referenced columns; empty for the parent's primary key.
    targets: Vec<String>,
    /// A name for the rowid that no column has.
    rowid: Option<&'static str>,
}

/// Keys that had no parent before: a migration is not responsible for rows with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OldOrphans {
    /// The child table, in lower case.
    child: String,
    columns: usize,
    keys: Vec<String>,
    /// Number of rows with these keys.
    rows: u64,
}

/// Number of violations of all foreign keys, at most a million.
///
/// # Errors
/// SQLite's.
pub(in crate::sqlite) fn count_violations(db: &Connection) -> Result<u64> {
    let sql = "select count(*) from (select 1 from pragma_foreign_key_check limit ?1)";
    let found: i64 = db.query_row(sql, [COUNT_MAX], |row| row.get(0)).map_err(from_sqlite)?;
    Ok(u64::try_from(found).unwrap_or_default())
}

/// The foreign keys of other tables that refer to this one.
///
/// # Errors
/// SQLite's.
pub(super) fn referring_keys(db: &Connection, parent: &str) -> Result<Vec<ForeignKey>> {
    let mut keys = referring_or_own(db, parent)?;
    keys.retain(|key| !key.child.eq_ignore_ascii_case(&key.parent));
    Ok(keys)
}

/// As [`referring_keys`], including the table's own keys that refer to itself.
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
        let (key, column, target, without_rowid) = parse_key(row).map_err(from_sqlite)?;
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

fn parse_key(row: &rusqlite::Row<'_>) -> rusqlite::Result<(ForeignKey, String, Option<String>, bool)> {
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

/// The keys that have no parent now, by child table.
///
/// # Errors
/// [`ErrorKind::MigrationFailed`] when there are too many; otherwise SQLite's.
pub(super) fn old_orphans(db: &Connection, parent: &str) -> Result<Vec<OldOrphans>> {
    let mut found = Vec::new();
    for key in referring_or_own(db, parent)? {
        let rows = key.violation_count(db)?.unwrap_or(0);
        if rows > 0 {
            let (child, columns) = (key.child.to_ascii_lowercase(), key.columns.len());
            found.push(OldOrphans { child, columns, keys: key.orphan_keys(db)?, rows });
        }
    }
    Ok(found)
}

impl ForeignKey {
    /// Number of rows that violate the key; `None` when SQLite cannot tell, because the parent has no such unique key.
    ///
    /// # Errors
    /// SQLite's.
    pub(super) fn violation_count(&self, db: &Connection) -> Result<Option<u64>> {
        let sql = "select count(*) from pragma_foreign_key_check(?1, 'main') where fkid = ?2";
        match db.query_row(sql, params![self.child, self.id], |row| row.get::<_, i64>(0)) {
            Ok(count) => Ok(Some(u64::try_from(count).unwrap_or_default())),
            Err(error) if error.to_string().contains("foreign key mismatch") => Ok(None),
            Err(error) => Err(from_sqlite(error)),
        }
    }

    /// Number of rows that violate the key and did not violate it before.
    ///
    /// # Errors
    /// [`ErrorKind::MigrationFailed`] when they cannot be determined; otherwise SQLite's.
    pub(super) fn new_orphans(&self, db: &Connection, old: &[OldOrphans]) -> Result<u64> {
        let sql = format!("select count(*) from {} where {}", self.quoted_table(), self.is_new_orphan(db)?);
        let count: i64 = db.query_row(&sql, [self.old_keys(db, old)?], |row| row.get(0)).map_err(from_sqlite)?;
        Ok(u64::try_from(count).unwrap_or_default())
    }

    /// Applies the key's declared action for a deleted parent to these rows. Returns false when the key declares none.
    ///
    /// # Errors
    /// SQLite's, when a constraint forbids it.
    pub(super) fn apply_action(&self, db: &Connection, old: &[OldOrphans]) -> Result<bool> {
        let start = match self.on_delete.as_str() {
            "CASCADE" => format!("delete from {}", self.quoted_table()),
            "SET NULL" => format!("update {} set {}", self.quoted_table(), self.set_clause(|_| Ok("null".to_owned()))?),
            "SET DEFAULT" => {
                format!("update {} set {}", self.quoted_table(), self.set_clause(|name| self.default_of(db, name))?)
            }
            _ => return Ok(false),
        };
        self.require_old_ones_known(db, old)?;
        let sql = format!("{start} where {}", self.is_new_orphan(db)?);
        db.execute(&sql, [self.old_keys(db, old)?]).map_err(from_sqlite)?;
        Ok(true)
    }

    /// Rows that already lacked their parent are recognized by their keys. If the file changed the type or the order of
    /// the key's columns, they would be taken for new violations.
    fn require_old_ones_known(&self, db: &Connection, old: &[OldOrphans]) -> Result<()> {
        let before: u64 = self.of_this(db, old)?.iter().map(|orphans| orphans.rows).sum();
        let known = self.violation_count(db)?.unwrap_or(0).saturating_sub(self.new_orphans(db, old)?);
        if known >= before {
            return Ok(());
        }
        let (child, parent) = (&self.child, &self.parent);
        Err(unclear_rows(format!("which rows of '{child}' lacked their row of '{parent}' before the file ran")))
    }

    /// SQL that makes an empty parent table.
    pub(super) fn empty_parent(&self) -> String {
        let targets = if self.targets.is_empty() { &self.columns } else { &self.targets };
        let names = targets.iter().map(|name| quoted_name(name)).collect::<Vec<_>>().join(", ");
        format!("create table main.{}({names}, primary key({names}))", quoted_name(&self.parent))
    }

    /// SQL that drops the empty parent table.
    pub(super) fn drop_parent(&self) -> String {
        format!("drop table main.{}", quoted_name(&self.parent))
    }

    fn quoted_table(&self) -> String {
        format!("main.{}", quoted_name(&self.child))
    }

    fn set_clause(&self, value: impl Fn(&str) -> Result<String>) -> Result<String> {
        let set = |name: &String| Ok(format!("{} = {}", quoted_name(name), value(name)?));
        Ok(self.columns.iter().map(set).collect::<Result<Vec<_>>>()?.join(", "))
    }

    fn default_of(&self, db: &Connection, column: &str) -> Result<String> {
        let sql = "select dflt_value from pragma_table_xinfo(?1, 'main') where name = ?2 collate nocase";
        let value: Option<String> = db.query_row(sql, [&self.child, column], |row| row.get(0)).map_err(from_sqlite)?;
        Ok(value.map_or_else(|| "null".to_owned(), |value| format!("({value})")))
    }

    /// SQL for the key's values of a row as one text.
    fn key_expression(&self) -> String {
        self.columns.iter().map(|name| format!("quote({})", quoted_name(name))).collect::<Vec<_>>().join(" || ',' || ")
    }

    fn orphan_keys(&self, db: &Connection) -> Result<Vec<String>> {
        let sql = format!(
            "select distinct {} from {} where {}",
            self.key_expression(),
            self.quoted_table(),
            self.is_orphan(db)?
        );
        let mut statement = db.prepare(&sql).map_err(from_sqlite)?;
        let rows = statement.query_map([], |row| row.get(0)).map_err(from_sqlite)?;
        let keys: Vec<String> = rows.take(OLD_KEYS_MAX + 1).collect::<rusqlite::Result<_>>().map_err(from_sqlite)?;
        if keys.len() > OLD_KEYS_MAX {
            let (child, parent) = (&self.child, &self.parent);
            return Err(unclear_rows(format!(
                "the rows of '{child}' that lack their row of '{parent}' apart: they are too many"
            )));
        }
        Ok(keys)
    }

    fn is_new_orphan(&self, db: &Connection) -> Result<String> {
        Ok(format!("{} and {} not in (select value from json_each(?1))", self.is_orphan(db)?, self.key_expression()))
    }

    fn old_keys(&self, db: &Connection, old: &[OldOrphans]) -> Result<String> {
        let keys: Vec<&String> = self.of_this(db, old)?.into_iter().flat_map(|orphans| &orphans.keys).collect();
        Ok(serde_json::to_string(&keys).unwrap_or_else(|_| "[]".to_owned()))
    }

    /// The old violations that may belong to this child: the rows of a dropped table may continue under another name.
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

    /// SQL for a table without rowids. The comparison may differ from SQLite's, so both must find equal numbers of
    /// rows.
    fn is_orphan_by_key(&self, db: &Connection) -> Result<String> {
        let present: Vec<_> = self.columns.iter().map(|name| format!("{} is not null", quoted_name(name))).collect();
        let mut condition = present.join(" and ");
        if table_exists(db, &self.parent)? {
            let child = quoted_name(&self.child);
            let pair = |(column, target): (&String, &String)| {
                format!("parent.{} = {child}.{}", quoted_name(target), quoted_name(column))
            };
            let equal: Vec<_> = self.columns.iter().zip(&self.target_columns(db)?).map(pair).collect();
            let parent = quoted_name(&self.parent);
            condition += &format!(" and not exists (select 1 from main.{parent} parent where {})", equal.join(" and "));
        }
        let sql = format!("select count(*) from {} where {condition}", self.quoted_table());
        let found: i64 = db.query_row(&sql, [], |row| row.get(0)).map_err(from_sqlite)?;
        if self.violation_count(db)? != u64::try_from(found).ok() {
            return Err(unclear_rows(format!("which rows of '{}' lack their row of '{}'", self.child, self.parent)));
        }
        Ok(condition)
    }

    fn target_columns(&self, db: &Connection) -> Result<Vec<String>> {
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

pub(super) fn quoted_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn unclear_rows(what: String) -> Error {
    Error::new(ErrorKind::MigrationFailed, format!("cannot tell {what}: remove or repair these rows first"))
}
