//! The verb `adopt`: a database that no fleet knows yet is copied to a new placement, as a dump and a restore.
//!
//! The original is only read, by its own credentials, and stays as it was. What is adopted is what one `pg_dump` saw.
//! What a copy could not have as well is refused before (`source.rs`). Its objects are compared behind, and its rows
//! unless the source is large.

use std::process::Stdio;
use std::sync::Arc;

use secrecy::SecretString;

use super::server::PostgresServer;
use super::site::Site;
use super::sql::text;
use super::tool::{self, Who};
use super::work::Work;
use super::{
    PostgresEngine, archive, contents, database, fingerprint, migrator, restore, snapshot, source, undumpable,
};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{Fingerprint, Objects};
use crate::identity::Identity;
use crate::placement::Placement;
use crate::snapshot::{Image, Restored};

/// See [`crate::Engine::adopt`].
pub(super) async fn adopt(
    engine: &PostgresEngine,
    at: &Placement,
    source: &SecretString,
    identity: &Identity,
) -> Result<Restored> {
    let source = Arc::new(PostgresServer::new(source)?);
    let (site, _) = engine.site(at)?;
    let _slot = site.slot_with_program().await?;
    let (image, objects, rows) = dump(engine, &source).await?;
    let dump = archive::on_disk(image, engine.scratch()).await?;
    let contents = contents::examine_foreign(engine.tools(), &dump).await?;
    archive::give_search_path(&dump).await?;
    let restored = restore::from_dump(engine, at, (&dump, &contents), identity).await?;
    let proved = prove(&site, at, (&objects, rows), &restored).await;
    if proved.is_err() {
        database::remove(&site, at.reference()).await?;
    }
    proved.map(|()| restored)
}

/// Nothing was left out, and every object is the same. A database that differs is not kept: nothing served from it.
async fn prove(
    site: &Site,
    at: &Placement,
    (objects, rows): (&Objects, Option<Fingerprint>),
    restored: &Restored,
) -> Result<()> {
    if !restored.left_out.is_empty() {
        return Err(source::unfit(&restored.left_out.join("; ")));
    }
    let mut work = site.enter(at.reference()).await?;
    source::compare(objects, &mut work).await?;
    work.close().await;
    match rows {
        Some(rows) => same_rows(site, at.reference(), objects, rows).await,
        None => Ok(()),
    }
}

/// Above this size, comparing takes longer than an adoption may wait: the rows are those that `pg_dump` wrote.
const COMPARED_BYTES_MAX: u64 = 1 << 30;
/// The ledger is in every copy, in a source perhaps.
const LEDGER: &str = "public._sqlx_migrations";

/// As the login that migrates: reading a table may run functions of the source.
async fn same_rows(site: &Site, database: &str, objects: &Objects, mut source: Fingerprint) -> Result<()> {
    let mut work = migrator::enter(site, database).await?;
    let version = work.version() / 10_000;
    let copy = match work.run(fingerprint::begin()).await {
        Ok(()) => fingerprint::rows(&mut work).await,
        Err(error) => Err(error),
    };
    migrator::leave(site, database, work).await;
    let mut copy = copy?;
    if !source.tables.contains_key(LEDGER) {
        copy.tables.remove(LEDGER);
    }
    if version != objects.version {
        // Another version may write a value in another way.
        let tables = source.tables.values_mut().chain(source.generated.values_mut());
        tables.for_each(|table| table.sum.clear());
    }
    match source.difference(&copy) {
        None => Ok(()),
        Some(difference) => Err(source::unfit(&format!("the copy would differ: {difference}"))),
    }
}

/// The rows as the dump sees them, unless there are too many.
async fn source_rows(work: &mut Work) -> Result<(String, Option<Fingerprint>)> {
    let begin = fingerprint::begin();
    let ask = "select pg_export_snapshot(), pg_database_size(current_database())::text";
    let answers = work.answers(format!("set idle_in_transaction_session_timeout = 0; {begin}; {ask};")).await?;
    let row = answers.iter().flatten().next();
    let row = row.ok_or_else(|| Error::new(ErrorKind::Internal, "one question has one answer"))?;
    let (snapshot, size) = (text(row, 0)?, text(row, 1)?);
    let small = size.parse().is_ok_and(|size: u64| size <= COMPARED_BYTES_MAX);
    Ok((snapshot, if small { Some(fingerprint::rows(work).await?) } else { None }))
}

async fn dump(engine: &PostgresEngine, source: &Arc<PostgresServer>) -> Result<(Image, Objects, Option<Fingerprint>)> {
    let database = source.dsn().database();
    let mut work = Work::maintenance(source, engine.patience(), &database).await?;
    let version = work.version();
    undumpable::refuse(&mut work).await?;
    let objects = source::examine(&mut work).await?;
    engine.tools().require(version).await?;
    let (view, mut rows) = source_rows(&mut work).await?;
    let mut command = engine.tools().connecting("pg_dump", source, Who::Maintenance, &database);
    command.args(["--format=custom", "--compress=0", "--no-password", "--snapshot", &view]);
    command.args(["--no-subscriptions", "--no-tablespaces"]);
    command.arg(format!("--lock-wait-timeout={}", engine.patience().lock.as_millis())).stdout(Stdio::piped());
    let mut child = tool::start(&mut command)?;
    let stdout = child.stdout.take().expect("it is piped");
    let (taken, ended) = tool::finish(source, child, archive::take(stdout, engine.scratch())).await?;
    if let Some(rows) = &mut rows {
        fingerprint::forget_moved_sequences(&mut work, &mut rows.tables).await;
    }
    work.close().await;
    match ended.succeeded() {
        true => Ok((taken.image, objects, rows)),
        false => Err(snapshot::refused(&ended)),
    }
}
