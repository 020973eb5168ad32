//! Copies a catalog from its file into an empty Postgres database.
//!
//! The file's write lock is held from before the first read until `then` has run, so no later write can be missing in
//! the copy. The target is filled in one transaction, so an interrupted copy leaves it empty. The tables and columns
//! are read from the schemas themselves.

use sqlx::any::AnyRow;
use sqlx::{AnyConnection, Executor as _};

use crate::bulk::{self, dynamic_query, sized_chunks, values_clause};
use crate::connection_slots;
use crate::db::{Catalog, CatalogLocation, WriteTx};
use crate::error::{Error, ErrorKind, Result};
use crate::error_mapping;
use crate::opener::{CatalogOpener, FeedUpdate};
use crate::row;
use crate::schema;
use crate::tables::{self, CatalogTable};

/// Rows read at once: a number that both processes can easily hold in memory.
const BATCH: i64 = 512;

/// The result of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CatalogCopyResult {
    /// Number of rows of each table, by its name; equal on both sides.
    pub rows: Vec<(String, i64)>,
    /// The target already contained exactly this catalog: an earlier copy was interrupted after its commit.
    pub was_there: bool,
}

/// Copies `source` to `target`, and runs `then` while no other process can write to the source.
///
/// # Errors
/// `Invalid` when the source is not a file; `AlreadyExists` when the target is not empty; errors of the target.
pub async fn copy_to_postgres(
    source: &Catalog,
    target: &CatalogLocation,
    then: impl FnOnce() -> Result<()>,
) -> Result<CatalogCopyResult> {
    let opener = CatalogOpener::new(target)?;
    if !matches!(
        (source.shared_state().opener.clone(), &opener),
        (CatalogOpener::Sqlite { .. }, CatalogOpener::Postgres { .. })
    ) {
        return Err(Error::new(ErrorKind::Invalid, "a catalog can only be copied from its file to Postgres"));
    }
    let mut from = source.write().await?;
    let mut db = opener.connect().await?;
    opener.prepare_connection(&mut db).await?;
    db.execute(opener.begin_schema()).await.map_err(error_mapping::catalog_error)?;
    let filled = fill_target(&mut from, &opener, &mut db).await;
    let done = match filled {
        Ok(copied) => db
            .execute(opener.commit_statement(FeedUpdate::Unchanged))
            .await
            .map(|_| copied)
            .map_err(error_mapping::commit_error),
        Err(error) => Err(error),
    };
    // Closed first, which rolls back everything that was not committed.
    connection_slots::close_connection(db).await;
    let copied = done?;
    then()?;
    Ok(copied)
}

async fn fill_target(from: &mut WriteTx, opener: &CatalogOpener, db: &mut AnyConnection) -> Result<CatalogCopyResult> {
    let before = from.walk_schema(async |opener, db| tables::count_all_rows(opener, db).await).await?;
    let there = opener.table_names(db).await?;
    if !there.is_empty() {
        let same_names = there.len() == before.len() && before.iter().all(|(name, _)| there.contains(name));
        if same_names && is_same_fleet(from, db).await? && tables::count_all_rows(opener, db).await? == before {
            return Ok(CatalogCopyResult { rows: before, was_there: true });
        }
        let message = "the target is not empty: a catalog can only be copied to an empty database";
        return Err(Error::new(ErrorKind::AlreadyExists, message));
    }
    schema::create_tables(opener, db).await?;
    let source = from.walk_schema(async |opener, db| tables::list_tables(opener, db).await).await?;
    let mut target = tables::list_tables(opener, db).await?;
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
    let after = tables::count_all_rows(opener, db).await?;
    if after != before {
        return Err(Error::new(ErrorKind::Corrupt, "the copy does not have as many rows as the catalog"));
    }
    Ok(CatalogCopyResult { rows: before, was_there: false })
}

/// A catalog on Postgres has no directory, so relative paths of the file become absolute.
async fn name_directories(from: &WriteTx, db: &mut AnyConnection) -> Result<()> {
    let Some(directory) = from.catalog_directory() else { return Ok(()) };
    let sql = "update servers set base = $1 || '/' || base where engine = 'sqlite' and base not like '/%'";
    let sql = sqlx::query(sql).bind(directory.to_string_lossy().into_owned());
    sql.execute(&mut *db).await.map(|_| ()).map_err(error_mapping::catalog_error)
}

/// True when both are catalogs of one fleet, as after an earlier copy.
async fn is_same_fleet(from: &mut WriteTx, db: &mut AnyConnection) -> Result<bool> {
    const FLEET: &str = "select id from fleet";
    let here = from.fetch_row(sqlx::query(FLEET)).await?.map(|row| row::text_column(&row, "id")).transpose()?;
    let there = sqlx::query(FLEET).fetch_optional(db).await.map_err(error_mapping::catalog_error)?;
    Ok(here.is_some() && here == there.map(|row| row::text_column(&row, "id")).transpose()?)
}

async fn copy_rows(from: &mut WriteTx, db: &mut AnyConnection, table: &CatalogTable) -> Result<()> {
    let names = table.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ");
    let types = table.columns.iter().map(|(_, kind)| known_column_type(kind)).collect::<Result<Vec<_>>>()?;
    let read = format!(
        "select rowid as source_row, {names} from {} where rowid > $1 order by rowid limit {BATCH}",
        table.name
    );
    let mut last = i64::MIN;
    loop {
        let rows = from.fetch_rows(dynamic_query(read.clone()).bind(last)).await?;
        for chunk in sized_chunks(&rows) {
            let sql = format!("insert into {} ({names}) {}", table.name, values_clause(chunk.len(), &types));
            let sql = chunk.iter().try_fold(dynamic_query(sql), |sql, row| bind_columns(sql, row, table))?;
            sql.execute(&mut *db).await.map_err(error_mapping::catalog_error)?;
        }
        match rows.last() {
            Some(row) => last = row::int_column(row, "source_row")?,
            None => return Ok(()),
        }
    }
}

/// A catalog has only two column types; see the head of its first migration.
fn known_column_type(kind: &str) -> Result<&'static str> {
    [bulk::INT, bulk::TEXT]
        .into_iter()
        .find(|known| *known == kind)
        .ok_or_else(|| Error::new(ErrorKind::Corrupt, format!("the catalog has a column of an unknown type, {kind}")))
}

fn bind_columns<'q>(mut sql: bulk::SqlQuery<'q>, row: &AnyRow, table: &CatalogTable) -> Result<bulk::SqlQuery<'q>> {
    for (name, kind) in &table.columns {
        sql = match kind.as_str() {
            bulk::INT => sql.bind(row::nullable_int(row, name)?),
            _ => sql.bind(row::nullable_text(row, name)?),
        };
    }
    Ok(sql)
}
