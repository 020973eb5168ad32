//! The catalog's tables as such: which there are, their columns and how many rows. Derived from the schema itself, so
//! that a new one is not forgotten by what walks over all of them.

use sqlx::AnyConnection;

use crate::bulk::built;
use crate::db::ReadTx;
use crate::error::Result;
use crate::fault;
use crate::opener::Opener;
use crate::row;

/// A table, by what the database itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Name and type, by name.
    pub(crate) columns: Vec<(String, String)>,
}

/// Every table, those that others refer to first: the order in which they were made.
pub(crate) async fn all(opener: &Opener, db: &mut AnyConnection) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for name in opener.tables(db).await? {
        let columns = opener.columns(db, &name).await?;
        tables.push(Table { name, columns });
    }
    Ok(tables)
}

/// How many rows a table has. Its name comes from the schema, never from outside.
pub(crate) async fn count(db: &mut AnyConnection, table: &str) -> Result<i64> {
    let sql = built(format!("select count(*) as found from {table}"));
    let row = sql.fetch_one(db).await.map_err(fault::of)?;
    row::int(&row, "found")
}

/// The rows of each table, by its name.
pub(crate) async fn counts(opener: &Opener, db: &mut AnyConnection) -> Result<Vec<(String, i64)>> {
    let mut counts = Vec::new();
    for table in opener.tables(db).await? {
        let rows = count(db, &table).await?;
        counts.push((table, rows));
    }
    counts.sort_unstable();
    Ok(counts)
}

impl ReadTx {
    /// Lends the transaction's connection to a walk over the schema.
    pub(crate) async fn walk<T>(
        &mut self,
        walk: impl AsyncFnOnce(&Opener, &mut AnyConnection) -> Result<T>,
    ) -> Result<T> {
        let opener = self.opener().clone();
        let walked = walk(&opener, self.lend()?).await?;
        self.returned();
        Ok(walked)
    }
}
