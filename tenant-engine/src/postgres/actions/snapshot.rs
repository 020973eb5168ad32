//! Implements [`crate::Engine::take_snapshot`]: dumps a database while it serves requests.
//!
//! One transaction reads identity and ledger, and exports its view of the data. `pg_dump` uses this view, and so does a
//! second connection that counts and hashes the rows. So everything that is reported about the dump is true of it. An
//! identity that is replaced meanwhile is noticed at the end.

use std::collections::BTreeMap;
use std::process::Stdio;

use super::fingerprint;
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{ClassSum, RowSums};
use crate::identity::{ExpectedIdentity, Identity};
use crate::migration::LedgerName;
use crate::placement::Placement;
use crate::postgres::dumps::programs::{self, FinishedProgram, ToolLogin};
use crate::postgres::dumps::{archive, objects, undumpable};
use crate::postgres::migrations::ledger;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::sql::text_column;
use crate::postgres::{PostgresEngine, identity};
use crate::snapshot::{Snapshot, SnapshotInfo};

/// What the transaction read.
struct SnapshotView {
    /// The name by which other transactions use its snapshot.
    id: String,
    identity: Identity,
    schema_version: Option<i64>,
    ledger: LedgerName,
}

/// See [`crate::Engine::take_snapshot`].
pub(in crate::postgres) async fn take_snapshot(
    engine: &PostgresEngine,
    at: &Placement,
    expected: &ExpectedIdentity,
) -> Result<Snapshot> {
    let (site, database) = engine.locate_placement(at)?;
    let _slot = site.slot_with_program_and_reader().await?;
    let mut work = site.open_connection(database).await?;
    let view = begin_view(&mut work, expected).await?;
    engine.postgres_tools().require_version(work.server_version()).await?;
    // Both run at the same time, because each keeps other sessions from changing the tables.
    let read = fingerprint::of_snapshot(&site, database, &view.id);
    let (dumped, read) = tokio::join!(run_dump(engine, &site, database, &view), read);
    let described = describe_snapshot(&mut work, &view.ledger, read).await;
    work.run_sql("rollback;").await?;
    let (taken, ended) = dumped?;
    if !ended.is_success() {
        return Err(dump_refused(&ended));
    }
    let still = identity::check_identity(work.driver_connection(), expected).await;
    work.close().await;
    still?;
    let (classes, rows, left_out) = described?;
    let version = engine.postgres_tools().major_version().await?;
    let info = SnapshotInfo {
        identity: view.identity,
        schema_version: view.schema_version,
        content_hash: taken.content_hash,
        size_bytes: taken.size_bytes,
        engine_version: format!("pg_dump {version}"),
        foreign_key_violations: 0,
        classes,
        rows,
        left_out,
    };
    Ok(Snapshot { info, image: taken.image })
}

type SnapshotDescription = (BTreeMap<String, ClassSum>, Option<RowSums>, Vec<String>);

/// Describes the schema as this transaction sees it, which is also what the dump sees. The caller ends the transaction.
async fn describe_snapshot(
    work: &mut AdminConnection,
    name: &LedgerName,
    read: Result<Result<RowSums, String>>,
) -> Result<SnapshotDescription> {
    let classes = objects::class_sums(&objects::read_objects(work, name).await?);
    let mut left_out = undumpable::left_out(work).await?;
    let rows = match read? {
        Ok(mut rows) => {
            fingerprint::forget_moved_sequences(work, &mut rows.tables).await;
            Some(rows)
        }
        // The dump is complete. The server's message is left out, because it may quote a value.
        Err(why) => {
            left_out
                .push(format!("sums of its rows, which a restore compares: reading them ended with the error {why}"));
            None
        }
    };
    Ok((classes, rows, left_out))
}

async fn begin_view(work: &mut AdminConnection, expected: &ExpectedIdentity) -> Result<SnapshotView> {
    let read = identity::READ;
    // The transaction is idle as long as the dump runs.
    let begin = "set idle_in_transaction_session_timeout = 0; begin isolation level repeatable read read only;";
    let answers = work
        .try_answers(format!("{begin} {read}; {};", ledger::RECORD))
        .await
        .map_err(identity::identity_read_error)?;
    let identity = identity::from_rows(answers.get(2).map_or(&[], Vec::as_slice))?;
    expected.check_identity(&identity)?;
    let name = ledger::recorded(answers.get(3).map_or(&[], Vec::as_slice))?;
    undumpable::refuse_undumpable(work).await?;
    let answers = work.fetch_answers(format!("select pg_export_snapshot(); {};", ledger::read(&name))).await?;
    let [id, rows] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "two questions have two answers"));
    };
    let id = id.first().map(|row| text_column(row, 0)).transpose()?.unwrap_or_default();
    Ok(SnapshotView { id, identity, schema_version: ledger::newest_version(&ledger::from_rows(rows)?), ledger: name })
}

async fn run_dump(
    engine: &PostgresEngine,
    site: &PostgresServerState,
    database: &str,
    view: &SnapshotView,
) -> Result<(archive::DumpArchive, FinishedProgram)> {
    let mut command =
        engine.postgres_tools().connecting_command("pg_dump", &site.server, ToolLogin::Maintenance, database);
    command.args(["--format=custom", "--compress=0", "--no-password", "--snapshot", &view.id]);
    // Backups are compressed later, and tablespaces belong to the server.
    command.args(["--no-subscriptions", "--no-tablespaces"]);
    command.arg(format!("--lock-wait-timeout={}", site.patience.lock.as_millis())).stdout(Stdio::piped());
    let mut child = programs::start_program(&mut command)?;
    let stdout = child.stdout.take().expect("it is piped");
    programs::finish_program(&site.server, child, archive::read_archive(stdout, engine.scratch_directory())).await
}

/// The error of a failed dump while the connection of the engine still works.
pub(super) fn dump_refused(ended: &FinishedProgram) -> Error {
    let why = ended.first_complaint();
    let kind = match &why {
        // To the server, `pg_dump`'s own limit for a lock is a statement timeout; it has no other.
        _ if why.contains("lock timeout") || why.contains("statement timeout") => ErrorKind::Busy,
        _ if why.contains("permission denied") => ErrorKind::ServerPrivilege,
        _ if why.contains("connection") => ErrorKind::ConnectionLost,
        _ if why.contains("server version") => ErrorKind::ToolTooOld,
        _ => ErrorKind::ToolFailed,
    };
    Error::new(kind, format!("the database could not be dumped: {why}"))
}
