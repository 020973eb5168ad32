//! The catalog's tables, their columns and numbers of rows, read from the schema itself. So code that walks all tables
//! also finds new ones.

use sqlx::AnyConnection;

use crate::bulk::dynamic_query;
use crate::db::ReadTx;
use crate::error::Result;
use crate::error_mapping;
use crate::opener::CatalogOpener;
use crate::row;

/// A table as the database describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CatalogTable {
    pub(crate) name: String,
    /// Name and type of each column, by name.
    pub(crate) columns: Vec<(String, String)>,
}

/// All tables in the order of their creation, so that referenced tables come first.
pub(crate) async fn list_tables(opener: &CatalogOpener, db: &mut AnyConnection) -> Result<Vec<CatalogTable>> {
    let mut tables = Vec::new();
    for name in opener.table_names(db).await? {
        let columns = opener.table_columns(db, &name).await?;
        tables.push(CatalogTable { name, columns });
    }
    Ok(tables)
}

/// Number of rows of a table. The name comes from the schema, never from outside.
pub(crate) async fn count_rows(db: &mut AnyConnection, table: &str) -> Result<i64> {
    let sql = dynamic_query(format!("select count(*) as found from {table}"));
    let row = sql.fetch_one(db).await.map_err(error_mapping::catalog_error)?;
    row::int_column(&row, "found")
}

/// Number of rows of each table, by its name.
pub(crate) async fn count_all_rows(opener: &CatalogOpener, db: &mut AnyConnection) -> Result<Vec<(String, i64)>> {
    let mut counts = Vec::new();
    for table in opener.table_names(db).await? {
        let rows = count_rows(db, &table).await?;
        counts.push((table, rows));
    }
    counts.sort_unstable();
    Ok(counts)
}

impl ReadTx {
    /// Lends the transaction's connection to code that walks the schema.
    pub(crate) async fn walk_schema<T>(
        &mut self,
        walk: impl AsyncFnOnce(&CatalogOpener, &mut AnyConnection) -> Result<T>,
    ) -> Result<T> {
        let opener = self.opener().clone();
        let walked = walk(&opener, self.lend_connection()?).await?;
        self.take_back_connection();
        Ok(walked)
    }
}
