//! The way up from one machine: copies a catalog from its file into an empty Postgres database.
//!
//! The file's write lock is held from before the first row is read until `then` has run, so nothing is written there that
//! the copy does not have. The target is filled in one transaction: cut off at any moment, it is as empty as before.
//! Which tables and columns there are is asked of the schemas themselves.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Executor as _};

use crate::bulk::{self, built, chunks, values};
use crate::db::{Catalog, Location, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::fault;
use crate::lane;
use crate::opener::{Feed, Opener};
use crate::row;
use crate::schema;
use crate::tables::{self, Table};

/// Rows read at once: what both processes hold without noticing.
const BATCH: i64 = 512;

/// What a copy came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// Rows of each table, equal on both sides, by its name.
    pub rows: Vec<(String, i64)>,
    /// The target held exactly this catalog before: an earlier copy was cut off after it was done.
    pub was_there: bool,
}

/// Copies `source` to `target` and runs `then` while nobody else can write to the source.
///
/// # Errors
/// `Invalid` when the source is no file; `AlreadyExists` when the target is not empty; those of the target.
pub async fn copy(source: &Catalog, target: &Location, then: impl FnOnce() -> Result<()>) -> Result<Copied> {
    let opener = Opener::new(target)?;
    if !matches!((source.shared().opener.clone(), &opener), (Opener::Sqlite { .. }, Opener::Postgres { .. })) {
        return Err(Error::new(ErrorKind::Invalid, "a catalog is copied from its file to Postgres, no other way"));
    }
    let mut from = source.write().await?;
    let mut db = opener.connect().await?;
    opener.settle(&mut db).await?;
    db.execute(opener.begin_schema()).await.map_err(fault::of)?;
    let filled = fill(&mut from, &opener, &mut db).await;
    let done = match filled {
        Ok(copied) => db.execute(opener.commit(Feed::Unchanged)).await.map(|_| copied).map_err(fault::of_commit),
        Err(error) => Err(error),
    };
    // Closed before anything else: what was not committed is rolled back by it.
    lane::close(db).await;
    let copied = done?;
    then()?;
    Ok(copied)
}

async fn fill(from: &mut WriteTx, opener: &Opener, db: &mut AnyConnection) -> Result<Copied> {
    let before = from.walk(async |opener, db| tables::counts(opener, db).await).await?;
    let there = opener.tables(db).await?;
    if !there.is_empty() {
        let same_names = there.len() == before.len() && before.iter().all(|(name, _)| there.contains(name));
        if same_names && is_same_fleet(from, db).await? && tables::counts(opener, db).await? == before {
            return Ok(Copied { rows: before, was_there: true });
        }
        let message = "the target is not empty: a catalog is copied to an empty database only";
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    schema::make(opener, db).await?;
    let source = from.walk(async |opener, db| tables::all(opener, db).await).await?;
    let mut target = tables::all(opener, db).await?;
    target.sort_by_key(|table| source.iter().position(|other| other.name == table.name));
    if source != target {
        return Err(Error::new(ErrorKind::Corrupt, "the tables of the catalog are not those of this program"));
    }
    for table in &source {
        copy_rows(from, db, table).await.map_err(|error| {
            Error::new(error.kind(), format!("the table {} was not copied: {error}", table.name)).with_source(error)
        })?;
    }
    name_directories(from, db).await?;
    let after = tables::counts(opener, db).await?;
    if after != before {
        return Err(Error::new(ErrorKind::Corrupt, "the copy does not have as many rows as the catalog"));
    }
    Ok(Copied { rows: before, was_there: false })
}

/// A catalog on Postgres is beside no directory: what was relative to the file's is absolute there.
async fn name_directories(from: &WriteTx, db: &mut AnyConnection) -> Result<()> {
    let Some(directory) = from.directory() else { return Ok(()) };
    let sql = "update servers set base = $1 || '/' || base where engine = 'sqlite' and base not like '/%'";
    let sql = sqlx::query(sql).bind(directory.to_string_lossy().into_owned());
    sql.execute(&mut *db).await.map(|_| ()).map_err(fault::of)
}

/// Whether both are catalogs of one fleet, as an earlier copy leaves them.
async fn is_same_fleet(from: &mut WriteTx, db: &mut AnyConnection) -> Result<bool> {
    const FLEET: &str = "select id from fleet";
    let here = from.one(sqlx::query(FLEET)).await?.map(|row| row::text(&row, "id")).transpose()?;
    let there = sqlx::query(FLEET).fetch_optional(db).await.map_err(fault::of)?;
    Ok(here.is_some() && here == there.map(|row| row::text(&row, "id")).transpose()?)
}

async fn copy_rows(from: &mut WriteTx, db: &mut AnyConnection, table: &Table) -> Result<()> {
    let names = table.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let types = table.columns.iter().map(|(_, kind)| known(kind)).collect::<Result<Vec<_>>>()?;
    let read = format!(
        "select rowid as source_row, {names} from {} where rowid > $1 order by rowid limit {BATCH}",
        table.name
    );
    let mut last = i64::MIN;
    loop {
        let rows = from.all(built(read.clone()).bind(last)).await?;
        for chunk in chunks(&rows) {
            let sql = format!("insert into {} ({names}) {}", table.name, values(chunk.len(), &types));
            let sql = chunk.iter().try_fold(built(sql), |sql, row| bind(sql, row, table))?;
            sql.execute(&mut *db).await.map_err(fault::of)?;
        }
        match rows.last() {
            Some(row) => last = row::int(row, "source_row")?,
            None => return Ok(()),
        }
    }
}

/// The catalog has two types; see the head of its first migration.
fn known(kind: &str) -> Result<&'static str> {
    [bulk::INT, bulk::TEXT]
        .into_iter()
        .find(|known| *known == kind)
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("the catalog has a column of an unknown type, {kind}")))
}

fn bind<'q>(mut sql: bulk::Sql<'q>, row: &AnyRow, table: &Table) -> Result<bulk::Sql<'q>> {
    for (name, kind) in &table.columns {
        sql = match kind.as_str() {
            bulk::INT => sql.bind(row::int_or_null(row, name)?),
            _ => sql.bind(row::text_or_null(row, name)?),
        };
    }
    Ok(sql)
}
