//! What an operator asks of a catalog: is it whole, is it quick, how much is in it.

use std::time::{Duration, Instant};

use crate::db::Catalog;
use crate::error::Result;
use crate::leases;
use crate::row;
use crate::tables;

/// The lease that is taken and given back to see how long a durable write takes.
const PROBE: &str = "catalog-check";
const PROBE_MS: i64 = 1_000;

/// What was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The newest migration that was applied.
    pub schema_version: i64,
    /// Rows of each table, by its name.
    pub rows: Vec<(String, i64)>,
    /// Columns of text that do not order by their bytes; pages of lists may skip rows then. Zero when all is well.
    pub columns_out_of_order: i64,
    /// How long one durable write took.
    pub write: Duration,
}

/// Looks at everything, and writes one row that it removes again.
///
/// # Errors
/// `Unavailable`, `ReadOnlyStorage`.
pub async fn check(catalog: &Catalog) -> Result<Found> {
    let mut tx = catalog.read().await?;
    let newest = tx.one(sqlx::query("select coalesce(max(version), 0) as version from _catalog_migrations")).await?;
    let schema_version = newest.map_or(Ok(0), |row| row::int(&row, "version"))?;
    let rows = tx.walk(async |opener, db| tables::counts(opener, db).await).await?;
    let columns_out_of_order = tx.walk(async |opener, db| opener.columns_out_of_order(db).await).await?;
    drop(tx);
    Ok(Found { schema_version, rows, columns_out_of_order, write: probe(catalog).await? })
}

/// How far this process's clock is ahead of the catalog's own, milliseconds; 0 for a file, which has none. Processes that
/// share a catalog decide by their own clocks whose lease and whose date is over.
///
/// # Errors
/// `Unavailable`.
pub async fn skew_ms(catalog: &Catalog) -> Result<i64> {
    let mut tx = catalog.read().await?;
    let theirs = tx.walk(async |opener, db| opener.clock(db).await).await?;
    Ok(theirs.map_or(0, |theirs| catalog.now() - theirs))
}

async fn probe(catalog: &Catalog) -> Result<Duration> {
    let owner = std::process::id().to_string();
    let started = Instant::now();
    let mut tx = catalog.write().await?;
    let until = tx.now() + PROBE_MS;
    leases::take_task(&mut tx, PROBE, &owner, until).await?;
    tx.commit().await?;
    let took = started.elapsed();
    let mut tx = catalog.write().await?;
    leases::release_task(&mut tx, PROBE, &owner).await?;
    tx.commit().await?;
    Ok(took)
}
