//! Implements [`crate::Engine::adopt_database`]: copies a database of no fleet to a new placement by dump and restore.
//!
//! The original is only read, with its own credentials, and is not changed. The copy has the content that one `pg_dump`
//! saw. A source that cannot be copied completely is refused first (`dumps/source.rs`). Afterwards the objects are
//! compared, and the rows too, unless the source is large.

use std::process::Stdio;
use std::sync::Arc;

use secrecy::SecretString;

use super::{fingerprint, restore, snapshot};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{DatabaseFingerprint, SchemaObjects};
use crate::identity::Identity;
use crate::migration::LedgerName;
use crate::placement::Placement;
use crate::postgres::PostgresEngine;
use crate::postgres::dumps::programs::{self, ToolLogin};
use crate::postgres::dumps::{archive, contents, source, undumpable};
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::server::PostgresServer;
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::servers::{database, migrator};
use crate::postgres::sql::text_column;
use crate::snapshot::{RestoreOutcome, SnapshotImage};

/// See [`crate::Engine::adopt_database`].
pub(in crate::postgres) async fn adopt_database(
    engine: &PostgresEngine,
    at: &Placement,
    source: &SecretString,
    (identity, ledger): (&Identity, &LedgerName),
) -> Result<RestoreOutcome> {
    let source = Arc::new(PostgresServer::new(source)?);
    let (site, _) = engine.locate_placement(at)?;
    let _slot = site.slot_with_program().await?;
    let (image, objects, rows) = dump_source(engine, &source, ledger).await?;
    let dump = archive::on_disk(image, engine.scratch_directory()).await?;
    let contents = contents::examine_foreign(engine.postgres_tools(), &dump, ledger).await?;
    archive::give_search_path(&dump).await?;
    let restored = restore::from_dump(engine, at, (&dump, &contents), identity).await?;
    let proved = prove_copy(&site, at, (&objects, rows), (&restored, ledger)).await;
    if proved.is_err() {
        database::remove_database(&site, at.catalog_reference()).await?;
    }
    proved.map(|()| restored)
}

/// Fails unless nothing was left out and every object is equal. A copy that differs is dropped; no request was served
/// from it.
async fn prove_copy(
    site: &PostgresServerState,
    at: &Placement,
    (objects, rows): (&SchemaObjects, Option<DatabaseFingerprint>),
    (restored, ledger): (&RestoreOutcome, &LedgerName),
) -> Result<()> {
    if !restored.left_out.is_empty() {
        return Err(source::not_adoptable(&restored.left_out.join("; ")));
    }
    let mut work = site.open_connection(at.catalog_reference()).await?;
    source::compare_objects(objects, &mut work, ledger).await?;
    work.close().await;
    match rows {
        Some(rows) => same_rows(site, (at.catalog_reference(), ledger), objects, rows).await,
        None => Ok(()),
    }
}

/// Above this size, comparing rows takes longer than an adoption may wait. The rows are then trusted as `pg_dump` wrote
/// them.
const COMPARED_BYTES_MAX: u64 = 1 << 30;

/// Reads as the login that migrates, because reading a table may run functions of the source.
async fn same_rows(
    site: &PostgresServerState,
    (database, ledger): (&str, &LedgerName),
    objects: &SchemaObjects,
    mut source: DatabaseFingerprint,
) -> Result<()> {
    let mut work = migrator::enter_as_migrator(site, database).await?;
    let version = work.server_version() / 10_000;
    let copy = match work.run_sql(fingerprint::begin_sql()).await {
        Ok(()) => fingerprint::fingerprint_rows(&mut work).await,
        Err(error) => Err(error),
    };
    migrator::leave_and_dismiss(site, database, work).await;
    let mut copy = copy?;
    // Every copy has a ledger; a source may have one. The server quotes the ledger's name where it must.
    for table in [format!("public.{ledger}"), format!("public.\"{ledger}\"")] {
        if !source.tables.contains_key(&table) {
            copy.tables.remove(&table);
        }
    }
    if version != objects.version {
        // Another version may write a value differently.
        let tables = source.tables.values_mut().chain(source.generated.values_mut());
        tables.for_each(|table| table.sum.clear());
    }
    match source.first_difference(&copy) {
        None => Ok(()),
        Some(difference) => Err(source::not_adoptable(&format!("the copy would differ: {difference}"))),
    }
}

/// The rows as the dump sees them, unless there are too many.
async fn source_rows(work: &mut AdminConnection) -> Result<(String, Option<DatabaseFingerprint>)> {
    let begin = fingerprint::begin_sql();
    let ask = "select pg_export_snapshot(), pg_database_size(current_database())::text";
    let answers = work.fetch_answers(format!("set idle_in_transaction_session_timeout = 0; {begin}; {ask};")).await?;
    let row = answers.iter().flatten().next();
    let row = row.ok_or_else(|| Error::new(ErrorKind::Internal, "one question has one answer"))?;
    let (snapshot, size) = (text_column(row, 0)?, text_column(row, 1)?);
    let small = size.parse().is_ok_and(|size: u64| size <= COMPARED_BYTES_MAX);
    Ok((snapshot, if small { Some(fingerprint::fingerprint_rows(work).await?) } else { None }))
}

async fn dump_source(
    engine: &PostgresEngine,
    source: &Arc<PostgresServer>,
    ledger: &LedgerName,
) -> Result<(SnapshotImage, SchemaObjects, Option<DatabaseFingerprint>)> {
    let database = source.server_dsn().database_name();
    let mut work = AdminConnection::as_maintenance(source, engine.wait_limits(), &database).await?;
    let version = work.server_version();
    undumpable::refuse_undumpable(&mut work).await?;
    let objects = source::examine_source(&mut work, ledger).await?;
    engine.postgres_tools().require_version(version).await?;
    let (view, mut rows) = source_rows(&mut work).await?;
    let mut command = engine.postgres_tools().connecting_command("pg_dump", source, ToolLogin::Maintenance, &database);
    command.args(["--format=custom", "--compress=0", "--no-password", "--snapshot", &view]);
    command.args(["--no-subscriptions", "--no-tablespaces"]);
    command.arg(format!("--lock-wait-timeout={}", engine.wait_limits().lock.as_millis())).stdout(Stdio::piped());
    let mut child = programs::start_program(&mut command)?;
    let stdout = child.stdout.take().expect("it is piped");
    let (taken, ended) =
        programs::finish_program(source, child, archive::read_archive(stdout, engine.scratch_directory())).await?;
    if let Some(rows) = &mut rows {
        fingerprint::forget_moved_sequences(&mut work, &mut rows.tables).await;
    }
    work.close().await;
    match ended.is_success() {
        true => Ok((taken.image, objects, rows)),
        false => Err(snapshot::dump_refused(&ended)),
    }
}
