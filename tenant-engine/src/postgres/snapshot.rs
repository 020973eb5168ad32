//! The verb `snapshot`: a dump of a database that goes on serving.
//!
//! One transaction reads identity and ledger and lends its view of the data to `pg_dump`, and to a second connection that
//! counts and hashes the rows. So everything that is said about the dump is true of it. Who replaces the identity
//! meanwhile is noticed at the end.

use std::collections::BTreeMap;
use std::process::Stdio;

use super::site::Site;
use super::sql::text;
use super::tool::{self, Ended, Who};
use super::work::Work;
use super::{PostgresEngine, archive, fingerprint, identity, ledger, objects, undumpable};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{ClassSum, RowSums};
use crate::identity::{Expected, Identity};
use crate::placement::Placement;
use crate::snapshot::{Snapshot, SnapshotInfo};

/// What the transaction saw.
struct View {
    /// The name by which others see the same.
    id: String,
    identity: Identity,
    schema_version: Option<i64>,
}

/// See [`crate::Engine::snapshot`].
pub(super) async fn snapshot(engine: &PostgresEngine, at: &Placement, expected: &Expected) -> Result<Snapshot> {
    let (site, database) = engine.site(at)?;
    let _slot = site.slot_with_program_and_reader().await?;
    let mut work = site.enter(database).await?;
    let view = view(&mut work, expected).await?;
    engine.tools().require(work.version()).await?;
    // At the same time, because each keeps others from changing the tables.
    let read = fingerprint::of_snapshot(&site, database, &view.id);
    let (dumped, read) = tokio::join!(dump(engine, &site, database, &view), read);
    let described = describe(&mut work, read).await;
    work.run("rollback;").await?;
    let (taken, ended) = dumped?;
    if !ended.succeeded() {
        return Err(refused(&ended));
    }
    let still = identity::check(work.connection(), expected).await;
    work.close().await;
    still?;
    let (classes, rows, left_out) = described?;
    let version = engine.tools().major().await?;
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

type Described = (BTreeMap<String, ClassSum>, Option<RowSums>, Vec<String>);

/// The catalogs as this transaction sees them, like the dump. The caller ends it.
async fn describe(work: &mut Work, read: Result<Result<RowSums, String>>) -> Result<Described> {
    let classes = objects::classes(&objects::read(work).await?);
    let mut left_out = undumpable::left_out(work).await?;
    let rows = match read? {
        Ok(mut rows) => {
            fingerprint::forget_moved_sequences(work, &mut rows.tables).await;
            Some(rows)
        }
        // The dump is whole. No message of the server: it may quote a value.
        Err(why) => {
            left_out
                .push(format!("sums of its rows, which a restore compares: reading them ended with the error {why}"));
            None
        }
    };
    Ok((classes, rows, left_out))
}

async fn view(work: &mut Work, expected: &Expected) -> Result<View> {
    let read = identity::READ;
    // The transaction is idle as long as the dump runs.
    let begin = "set idle_in_transaction_session_timeout = 0; begin isolation level repeatable read read only;";
    let answers = work.try_answers(format!("{begin} {read};")).await.map_err(identity::missing)?;
    let identity = identity::from_rows(answers.get(2).map_or(&[], Vec::as_slice))?;
    expected.check(&identity)?;
    undumpable::refuse(work).await?;
    let answers = work.answers(format!("select pg_export_snapshot(); {};", ledger::READ)).await?;
    let [id, rows] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "two questions have two answers"));
    };
    let id = id.first().map(|row| text(row, 0)).transpose()?.unwrap_or_default();
    Ok(View { id, identity, schema_version: ledger::newest(&ledger::from_rows(rows)?) })
}

async fn dump(engine: &PostgresEngine, site: &Site, database: &str, view: &View) -> Result<(archive::Archive, Ended)> {
    let mut command = engine.tools().connecting("pg_dump", &site.server, Who::Maintenance, database);
    command.args(["--format=custom", "--compress=0", "--no-password", "--snapshot", &view.id]);
    // Backups are compressed later, and tablespaces belong to the server.
    command.args(["--no-subscriptions", "--no-tablespaces"]);
    command.arg(format!("--lock-wait-timeout={}", site.patience.lock.as_millis())).stdout(Stdio::piped());
    let mut child = tool::start(&mut command)?;
    let stdout = child.stdout.take().expect("it is piped");
    tool::finish(&site.server, child, archive::take(stdout, engine.scratch())).await
}

/// Our own connection lives, so it is the dump that failed.
pub(super) fn refused(ended: &Ended) -> Error {
    let why = ended.complaint();
    let kind = match &why {
        // Its own limit for a lock is a statement timeout to the server; it has no other.
        _ if why.contains("lock timeout") || why.contains("statement timeout") => ErrorKind::Busy,
        _ if why.contains("permission denied") => ErrorKind::ServerPrivilege,
        _ if why.contains("connection") => ErrorKind::ConnectionLost,
        _ if why.contains("server version") => ErrorKind::ToolTooOld,
        _ => ErrorKind::Internal,
    };
    Error::new(kind, format!("the database could not be dumped: {why}"))
}
