//! Implements [`crate::Engine::inspect_database`]: identity, ledger, size and problems of one database. Changes
//! nothing.

use sqlx::postgres::PgRow;

use crate::error::{Error, ErrorKind, Result};
use crate::identity::ExpectedIdentity;
use crate::inspection::{Inspection, InspectionDepth};
use crate::placement::Placement;
use crate::postgres::migrations::ledger;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::database::{PlacementContents, inspect_placement};
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::sql::text_column;
use crate::postgres::{PostgresEngine, identity};

/// Indexes that a concurrent build left unusable. A constraint that is not valid is not a problem: migrations that must
/// not lock a table for long leave constraints so on purpose. The first hundred indexes are enough.
const PROBLEMS: &str = "select format('index %I.%I is invalid: drop it and build it again', n.nspname, c.relname)
    from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
    where not i.indisvalid and c.relkind = 'i' order by 1 limit 100";

/// See [`crate::Engine::inspect_database`].
pub(in crate::postgres) async fn inspect_database(
    engine: &PostgresEngine,
    at: &Placement,
    expected: Option<&ExpectedIdentity>,
    depth: InspectionDepth,
) -> Result<Inspection> {
    let (site, database) = engine.locate_placement(at)?;
    let _slot = site.take_slot().await?;
    let mut work = enter_finished(&site, database).await?;
    let size = "select pg_database_size(current_database())::text";
    let problems = match depth {
        InspectionDepth::Ledger => "select null where false",
        InspectionDepth::Full => PROBLEMS,
    };
    let sql = format!("{}; {size}; {problems}; {};", identity::READ, ledger::RECORD);
    let answers = work.try_answers(sql).await.map_err(identity::identity_read_error)?;
    let [row, size, problems, record] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "four questions have four answers"));
    };
    let identity = identity::from_rows(row)?;
    if let Some(expected) = expected {
        expected.check_identity(&identity)?;
    }
    let applied = format!("{};", ledger::read(&ledger::recorded(record)?));
    let applied = ledger_of(work.try_answers(applied).await)?;
    work.close().await;
    Ok(Inspection {
        identity,
        applied,
        size_bytes: single_count(size)?,
        problems: problems.iter().map(|row| text_column(row, 0)).collect::<Result<_>>()?,
        foreign_key_violations: 0,
    })
}

/// See [`crate::Engine::database_size`].
pub(in crate::postgres) async fn database_size(engine: &PostgresEngine, at: &Placement) -> Result<u64> {
    let (site, database) = engine.locate_placement(at)?;
    let _slot = site.take_slot().await?;
    let mut center = site.maintenance_connection().await?;
    let sql = format!(
        "select pg_catalog.pg_database_size(oid)::text from pg_catalog.pg_database where datname = '{database}';"
    );
    let answers = center.fetch_answers(sql).await?;
    site.return_connection(center);
    match answers.first() {
        Some(rows) if !rows.is_empty() => single_count(rows),
        _ => Err(Error::new(ErrorKind::Missing, format!("there is no database {database}"))),
    }
}

/// Connects to a database. One that was never opened to connections is unfinished, like a file that is still called
/// `.part`.
async fn enter_finished(site: &PostgresServerState, database: &str) -> Result<AdminConnection> {
    match site.open_connection(database).await {
        Err(error) if error.kind() == ErrorKind::Busy => match inspect_placement(site, database).await? {
            PlacementContents::Finished(_, work) => Ok(work),
            PlacementContents::Unfinished | PlacementContents::Nothing => {
                Err(Error::new(ErrorKind::Missing, "the database was never finished").with_source(error))
            }
        },
        entered => entered,
    }
}

/// Reads the ledger; empty when there is none.
fn ledger_of(
    answers: Result<Vec<Vec<PgRow>>, crate::postgres::error::AdminConnectionError>,
) -> Result<Vec<crate::migration::AppliedMigration>> {
    match answers {
        Ok(answers) => ledger::from_rows(answers.first().map_or(&[], Vec::as_slice)),
        Err(why) if why.sqlstate_code() == "42P01" => Ok(Vec::new()),
        Err(why) => Err(why.into_ours()),
    }
}

/// The count in the only row of an answer.
pub(super) fn single_count(rows: &[PgRow]) -> Result<u64> {
    let text = rows.first().map(|row| text_column(row, 0)).transpose()?;
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::new(ErrorKind::Internal, "the server did not answer with a number"))
}
