//! What is done with a catalog as such, by who owns the data directory: checked, and moved to Postgres. Called by the
//! command line where no control plane may be running, so it goes by no API.

use std::collections::BTreeMap;

use catalog::Catalog;
use catalog::db::{Dsn, Location};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::serve;

/// A durable write takes a few milliseconds; beyond this, every operation is slow.
const WRITE_MS_MAX: u128 = 1_000;

/// What [`check`] found.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Where the catalog is, without its password.
    pub location: String,
    /// Of the fleet in it.
    pub fleet_id: Option<String>,
    /// The newest migration that was applied.
    pub schema_version: Option<i64>,
    /// One durable write, milliseconds.
    pub write_ms: Option<u64>,
    /// Rows of each table.
    pub rows: BTreeMap<String, i64>,
    /// One per thing looked at, in order; after the first that fails, nothing more can be.
    pub checks: Vec<Check>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
pub struct Check {
    /// Which.
    pub name: &'static str,
    /// ok or fail.
    pub status: &'static str,
    /// What was found.
    pub detail: String,
    /// What helps; empty when it is ok.
    pub next_step: String,
}

/// What [`copy`] did.
#[derive(Debug, Serialize)]
pub struct Copied {
    /// Where the catalog is now, without its password.
    pub location: String,
    /// Rows of each table, equal on both sides.
    pub rows: BTreeMap<String, i64>,
    /// It was there already: an earlier command was cut off after its copy was done.
    pub was_there: bool,
}

impl Report {
    fn ok(&mut self, name: &'static str, detail: impl Into<String>) {
        self.checks.push(Check { name, status: "ok", detail: detail.into(), next_step: String::new() });
    }

    fn fail(&mut self, name: &'static str, error: &Error) {
        let next_step = error.next_steps.first().cloned().unwrap_or_else(|| format!("fleetctl explain {}", error.code));
        self.checks.push(Check { name, status: "fail", detail: error.detail.clone(), next_step });
    }

    /// Nothing failed.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.checks.iter().all(|check| check.status == "ok")
    }
}

/// Looks at the catalog: is it reachable, of a known schema, opened by the key, ordered, quick.
///
/// # Errors
/// `data_dir_unusable`, `invalid`, `not_initialised`; what is wrong with the catalog itself is in the report.
pub async fn check(config: &Config) -> Result<Report> {
    let home = Home::at(config)?;
    let mut report = Report { location: home.name(), ..Report::default() };
    match home.look_for_catalog().await {
        Ok(true) => report.ok("reachable", report.location.clone()),
        Ok(false) => return Err(crate::home::not_initialised()),
        Err(error) => {
            report.fail("reachable", &error);
            return Ok(report);
        }
    }
    match open(config, &home).await {
        Ok(catalog) => {
            report.ok("key", "opens what is sealed");
            report.fleet_id = Some(catalog.fleet_id().to_string());
            let looked = look(&mut report, &catalog).await;
            catalog.close().await;
            if let Err(error) = looked {
                report.fail("write", &home.blame(error));
            }
        }
        Err(error) if error.code == "wrong_key" => report.fail("key", &error),
        Err(error) => report.fail("schema", &error),
    }
    Ok(report)
}

async fn look(report: &mut Report, catalog: &Catalog) -> Result<()> {
    let found = catalog::check::check(catalog).await?;
    report.ok("schema", format!("version {}", found.schema_version));
    report.schema_version = Some(found.schema_version);
    match found.columns_out_of_order {
        0 => report.ok("order", "text orders by its bytes"),
        columns => {
            let detail = format!("{columns} columns of text follow a language's order, and lists may skip rows");
            let next = "alter table … alter column … type text collate \"C\", for each";
            report.fail("order", &Error::internal(detail).try_next(next));
        }
    }
    let took = found.write.as_millis();
    report.write_ms = u64::try_from(took).ok();
    match took {
        0..=WRITE_MS_MAX => report.ok("write", format!("a durable write took {took} ms")),
        _ => report.fail("write", &Error::internal(format!("a durable write took {took} ms")).try_next(SLOW)),
    }
    let listed: Vec<String> = found.rows.iter().map(|(table, rows)| format!("{table} {rows}")).collect();
    report.ok("rows", listed.join(", "));
    report.rows = found.rows.into_iter().collect();
    Ok(())
}

const SLOW: &str = "look at the disk, the network and the other load of the catalog's server";

/// Copies the catalog of a data directory to an empty Postgres database, and leaves word of it in the directory.
///
/// # Errors
/// `already_serving`, `invalid`, `already_exists` when the target is not empty, those of both catalogs. The target is as
/// it was then; the directory too.
pub async fn copy(config: &Config, to: &SecretString) -> Result<Copied> {
    let target = Location::Postgres(Dsn::parse(to.expose_secret())?);
    if config.catalog_url.is_some() {
        let detail = "the catalog that is copied is the one in the data directory, but another one is set";
        return Err(Error::new(422, "invalid", detail).try_next("unset FLEET_CATALOG_URL (and catalog_url_file)"));
    }
    let home = Home::at(config)?;
    home.must_have_catalog().await?;
    // Held to the end: no server may begin on a catalog that is about to be somewhere else.
    let _serves = serve::lock(&config.data_dir).await?;
    let source = open(config, &home).await?;
    let mark = || home.mark_moved(&target).map_err(unmarked);
    let copied = catalog::copy::copy(&source, &target, mark).await;
    source.close().await;
    let copied = copied?;
    let rows = copied.rows.into_iter().collect();
    Ok(Copied { location: target.to_string(), rows, was_there: copied.was_there })
}

fn unmarked(error: Error) -> catalog::Error {
    let message = "the catalog was copied, but no word of it could be left in the data directory; repeat the command";
    catalog::Error::new(catalog::ErrorKind::ReadOnlyStorage, message).with_source(error)
}

async fn open(config: &Config, home: &Home) -> Result<Catalog> {
    let opened = Catalog::open(home.catalog(), home.key(config)?, crate::clock::system()).await;
    opened.map_err(|error| home.blame(error.into()))
}
