//! Checks of a catalog for operators: its integrity, its speed, its size.

use std::time::{Duration, Instant};

use crate::db::Catalog;
use crate::error::Result;
use crate::leases;
use crate::row;
use crate::tables;

/// The lease that is taken and released to measure a durable write.
const PROBE: &str = "catalog-check";
const PROBE_MS: i64 = 1_000;

/// The results of the inspection.
#[derive(Debug, Clone)]
pub struct CatalogInspection {
    /// The newest applied migration of the catalog.
    pub schema_version: i64,
    /// Number of rows of each table, by its name.
    pub rows: Vec<(String, i64)>,
    /// Number of text columns that are not ordered by bytes. With such columns, pages of lists may skip rows. Zero when
    /// all is well.
    pub columns_out_of_order: i64,
    /// Duration of one durable write.
    pub write: Duration,
}

/// Inspects the whole catalog. Writes one row and removes it again.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable, `ReadOnlyStorage` when it cannot be written.
pub async fn inspect_catalog(catalog: &Catalog) -> Result<CatalogInspection> {
    let mut tx = catalog.read().await?;
    let newest =
        tx.fetch_row(sqlx::query("select coalesce(max(version), 0) as version from _catalog_migrations")).await?;
    let schema_version = newest.map_or(Ok(0), |row| row::int_column(&row, "version"))?;
    let rows = tx.walk_schema(async |opener, db| tables::count_all_rows(opener, db).await).await?;
    let columns_out_of_order = tx.walk_schema(async |opener, db| opener.columns_out_of_order(db).await).await?;
    drop(tx);
    Ok(CatalogInspection { schema_version, rows, columns_out_of_order, write: time_write(catalog).await? })
}

/// How far this process's clock is ahead of the catalog's server, in milliseconds; 0 for a file. Processes that share a
/// catalog use their own clocks to decide which leases and dates are over.
///
/// # Errors
/// `Unavailable` when the catalog is not reachable.
pub async fn skew_ms(catalog: &Catalog) -> Result<i64> {
    let mut tx = catalog.read().await?;
    let theirs = tx.walk_schema(async |opener, db| opener.server_clock(db).await).await?;
    Ok(theirs.map_or(0, |theirs| catalog.now() - theirs))
}

async fn time_write(catalog: &Catalog) -> Result<Duration> {
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
