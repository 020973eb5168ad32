//! The verb `inspect`: what one database says about itself. Changes nothing.

use sqlx::postgres::PgRow;

use super::database::{Found, look};
use super::site::Site;
use super::sql::text;
use super::work::Work;
use super::{PostgresEngine, identity, ledger};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Expected;
use crate::inspection::{Depth, Inspection};
use crate::placement::Placement;

/// Indexes that a concurrent build left unusable. A constraint that is not valid is none of these: migrations that must
/// not lock a table for long leave it so on purpose. The first hundred tell enough.
const PROBLEMS: &str = "select format('index %I.%I is invalid: drop it and build it again', n.nspname, c.relname)
    from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
    where not i.indisvalid and c.relkind = 'i' order by 1 limit 100";

/// See [`crate::Engine::inspect`].
pub(super) async fn inspect(
    engine: &PostgresEngine,
    at: &Placement,
    expected: Option<&Expected>,
    depth: Depth,
) -> Result<Inspection> {
    let (site, database) = engine.site(at)?;
    let _slot = site.slot().await?;
    let mut work = enter(&site, database).await?;
    let size = "select pg_database_size(current_database())::text";
    let problems = match depth {
        Depth::Ledger => "select null where false",
        Depth::Full => PROBLEMS,
    };
    let sql = format!("{}; {size}; {problems};", identity::READ);
    let answers = work.try_answers(sql).await.map_err(identity::missing)?;
    let [row, size, problems] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "three questions have three answers"));
    };
    let identity = identity::from_rows(row)?;
    if let Some(expected) = expected {
        expected.check(&identity)?;
    }
    let applied = ledger_of(work.try_answers(format!("{};", ledger::READ)).await)?;
    work.close().await;
    Ok(Inspection {
        identity,
        applied,
        size_bytes: number(size)?,
        problems: problems.iter().map(|row| text(row, 0)).collect::<Result<_>>()?,
        foreign_key_violations: 0,
    })
}

/// See [`crate::Engine::size`].
pub(super) async fn size(engine: &PostgresEngine, at: &Placement) -> Result<u64> {
    let (site, database) = engine.site(at)?;
    let _slot = site.slot().await?;
    let mut center = site.center().await?;
    let sql = format!(
        "select pg_catalog.pg_database_size(oid)::text from pg_catalog.pg_database where datname = '{database}';"
    );
    let answers = center.answers(sql).await?;
    site.leave(center);
    match answers.first() {
        Some(rows) if !rows.is_empty() => number(rows),
        _ => Err(Error::new(ErrorKind::Missing, format!("there is no database {database}"))),
    }
}

/// One that was never opened to connections is no database yet, as a file that is still called `.part` is none.
async fn enter(site: &Site, database: &str) -> Result<Work> {
    match site.enter(database).await {
        Err(error) if error.kind() == ErrorKind::Busy => match look(site, database).await? {
            Found::Finished(_, work) => Ok(work),
            Found::Unfinished | Found::Nothing => {
                Err(Error::new(ErrorKind::Missing, "the database was never finished").with_source(error))
            }
        },
        entered => entered,
    }
}

/// Empty when there is none.
fn ledger_of(answers: Result<Vec<Vec<PgRow>>, super::work::Why>) -> Result<Vec<crate::migration::Applied>> {
    match answers {
        Ok(answers) => ledger::from_rows(answers.first().map_or(&[], Vec::as_slice)),
        Err(why) if why.code() == "42P01" => Ok(Vec::new()),
        Err(why) => Err(why.into_ours()),
    }
}

/// A count in the only row of an answer.
pub(super) fn number(rows: &[PgRow]) -> Result<u64> {
    let text = rows.first().map(|row| text(row, 0)).transpose()?;
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| Error::new(ErrorKind::Internal, "the server did not answer with a number"))
}
