//! Work on the catalog itself by the owner of the data directory: checking it, and moving it to PostgreSQL. Called by
//! the command line when no control plane may be running, so it does not use the API.

use std::collections::BTreeMap;

use catalog::Catalog;
use catalog::db::{CatalogDsn, CatalogLocation};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::config::Config;
use crate::data_dir::DataDirectory;
use crate::error::{Error, ErrorKind, Result};
use crate::serve;

/// The longest acceptable durable write, milliseconds. It usually takes a few; beyond this limit every operation is
/// slow.
const WRITE_MS_MAX: u128 = 1_000;

/// The findings of [`check_catalog`].
#[derive(Debug, Default, Serialize)]
pub struct CatalogCheckReport {
    /// The catalog's location, without a password.
    pub location: String,
    /// The id of the fleet in the catalog.
    pub fleet_id: Option<String>,
    /// The newest applied migration of the catalog.
    pub schema_version: Option<i64>,
    /// The duration of one durable write, milliseconds.
    pub write_ms: Option<u64>,
    /// The number of rows of each table.
    pub rows: BTreeMap<String, i64>,
    /// The checks, in order. After the first one that fails there are no more.
    pub checks: Vec<CatalogCheck>,
}

/// The result of one check.
#[derive(Debug, Serialize)]
pub struct CatalogCheck {
    /// The name of the check.
    pub name: &'static str,
    /// `ok` or `fail`.
    pub status: &'static str,
    /// The finding.
    pub detail: String,
    /// The advice. Empty when the check is ok.
    pub next_step: String,
}

/// The result of [`copy_catalog`].
#[derive(Debug, Serialize)]
pub struct CatalogCopySummary {
    /// The catalog's new location, without a password.
    pub location: String,
    /// The number of rows of each table, equal on both sides.
    pub rows: BTreeMap<String, i64>,
    /// Whether the copy was complete already: an earlier command was interrupted after it.
    pub was_there: bool,
}

impl CatalogCheckReport {
    fn add_ok(&mut self, name: &'static str, detail: impl Into<String>) {
        self.checks.push(CatalogCheck { name, status: "ok", detail: detail.into(), next_step: String::new() });
    }

    fn add_failure(&mut self, name: &'static str, error: &Error) {
        let next_step =
            error.next_steps.first().cloned().unwrap_or_else(|| format!("fleetctl explain {}", error.code()));
        self.checks.push(CatalogCheck { name, status: "fail", detail: error.detail.clone(), next_step });
    }

    /// Whether no check failed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(|check| check.status == "ok")
    }
}

/// Checks the catalog: reachable, known schema, matching key, text order, speed.
///
/// # Errors
/// `data_dir_unusable`, `invalid`, `not_initialised`. Problems of the catalog itself are in the report.
pub async fn check_catalog(config: &Config) -> Result<CatalogCheckReport> {
    let home = DataDirectory::open_existing(config)?;
    let mut report = CatalogCheckReport { location: home.catalog_name(), ..CatalogCheckReport::default() };
    match home.find_catalog().await {
        Ok(true) => report.add_ok("reachable", report.location.clone()),
        Ok(false) => return Err(crate::data_dir::not_initialised()),
        Err(error) => {
            report.add_failure("reachable", &error);
            return Ok(report);
        }
    }
    match open_catalog(config, &home).await {
        Ok(catalog) => {
            report.add_ok("key", "the key opens sealed values");
            report.fleet_id = Some(catalog.fleet_id().to_string());
            let looked = check_contents(&mut report, &catalog).await;
            catalog.close().await;
            if let Err(error) = looked {
                report.add_failure("write", &home.explain_open_error(error));
            }
        }
        Err(error) if error.kind == ErrorKind::WrongKey => report.add_failure("key", &error),
        Err(error) => report.add_failure("schema", &error),
    }
    Ok(report)
}

async fn check_contents(report: &mut CatalogCheckReport, catalog: &Catalog) -> Result<()> {
    let found = catalog::check::inspect_catalog(catalog).await?;
    report.add_ok("schema", format!("version {}", found.schema_version));
    report.schema_version = Some(found.schema_version);
    match found.columns_out_of_order {
        0 => report.add_ok("order", "text is ordered by its bytes"),
        columns => {
            let detail = format!("{columns} text columns are ordered by a language's rules, so lists may skip rows");
            let next = "alter table … alter column … type text collate \"C\", for each";
            report.add_failure("order", &Error::internal(detail).try_next(next));
        }
    }
    let took = found.write.as_millis();
    report.write_ms = u64::try_from(took).ok();
    match took {
        0..=WRITE_MS_MAX => report.add_ok("write", format!("a durable write took {took} ms")),
        _ => report.add_failure("write", &Error::internal(format!("a durable write took {took} ms")).try_next(SLOW)),
    }
    let listed: Vec<String> = found.rows.iter().map(|(table, rows)| format!("{table} {rows}")).collect();
    report.add_ok("rows", listed.join(", "));
    report.rows = found.rows.into_iter().collect();
    Ok(())
}

const SLOW: &str = "check the disk, the network and the other load of the catalog's server";

/// Copies the catalog of a data directory to an empty PostgreSQL database, and records the move in the directory.
///
/// # Errors
/// `already_serving`, `invalid`, `data_dir_copied`, `identity_unfinished`; `already_exists` when the target is not
/// empty; those of both catalogs. On an error, target and directory are as before.
pub async fn copy_catalog(config: &Config, to: &SecretString) -> Result<CatalogCopySummary> {
    let target = CatalogLocation::Postgres(CatalogDsn::from_text(to.expose_secret())?);
    if config.catalog_url.is_some() {
        let detail = "only the catalog in the data directory can be copied, but another one is configured";
        return Err(Error::new(ErrorKind::Invalid, detail).try_next("unset FLEET_CATALOG_URL (and catalog_url_file)"));
    }
    let home = DataDirectory::open_existing(config)?;
    home.require_catalog().await?;
    // Held to the end: no server may start on a catalog that is about to move.
    let _serves = serve::acquire_lock(&config.data_dir).await?;
    let source = open_catalog(config, &home).await?;
    let copied = copy_original(&source, &home, &target).await;
    source.close().await;
    let copied = copied?;
    let rows = copied.rows.into_iter().collect();
    Ok(CatalogCopySummary { location: target.to_string(), rows, was_there: copied.was_there })
}

/// Refuses a copy of the data directory, and one whose new identity is unfinished. Otherwise copies the catalog.
async fn copy_original(
    source: &Catalog,
    home: &DataDirectory,
    target: &CatalogLocation,
) -> Result<catalog::copy::CatalogCopyResult> {
    crate::app::settle_place(source, home).await?;
    let mark = || home.mark_moved(target).map_err(marker_unwritten);
    Ok(catalog::copy::copy_to_postgres(source, target, mark).await?)
}

fn marker_unwritten(error: Error) -> catalog::Error {
    let message = "the catalog was copied, but this could not be recorded in the data directory; repeat the command";
    catalog::Error::new(catalog::ErrorKind::ReadOnlyStorage, message).with_source(error)
}

async fn open_catalog(config: &Config, home: &DataDirectory) -> Result<Catalog> {
    let opened = Catalog::open(home.catalog_location(), home.fleet_key(config)?, crate::clock::system_clock()).await;
    opened.map_err(|error| home.explain_open_error(error.into()))
}
