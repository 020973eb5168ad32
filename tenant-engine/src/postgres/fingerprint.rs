//! The verb `fingerprint`: counts and hashes of every table, computed by the server, in one transaction.

use sqlx::postgres::PgRow;

use super::sql::{literal, quoted, text};
use super::work::Work;
use super::{PostgresEngine, identity};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{Fingerprint, TableSum};
use crate::identity::Expected;
use crate::placement::Placement;

/// Tables with rows of their own, partitions too, and sequences; not the identity, which differs on purpose, nor what
/// belongs to an extension.
const OBJECTS: &str = "select n.nspname, c.relname, c.relkind from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'm', 'S') and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
     and c.relpersistence <> 't' and (n.nspname, c.relname) <> ('public', '_fleet_identity')
     and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
     order by 1, 2";
/// A statement for so many tables: a server's parser does not like megabytes.
const TABLES_AT_ONCE: usize = 100;

/// See [`crate::Engine::fingerprint`].
pub(super) async fn fingerprint(engine: &PostgresEngine, at: &Placement, expected: &Expected) -> Result<Fingerprint> {
    let (site, database) = engine.site(at)?;
    let _slot = site.slot().await?;
    let mut work = site.enter(database).await?;
    // Rows that a policy hides would not count: that is an error instead.
    let begin = "begin isolation level repeatable read read only; set local row_security = off;
                 set local extra_float_digits = 3; set local timezone = 'UTC'; set local datestyle = 'ISO';
                 set local intervalstyle = 'postgres'; set local bytea_output = 'hex'";
    let answers =
        work.try_answers(format!("{begin}; {}; {OBJECTS};", identity::READ)).await.map_err(identity::missing)?;
    let [.., row, objects] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "a fingerprint begins with two answers"));
    };
    expected.check(&identity::from_rows(row)?)?;
    let mut print = Fingerprint::default();
    for some in objects.chunks(TABLES_AT_ONCE) {
        add(&mut work, some, &mut print).await?;
    }
    work.run("rollback").await?;
    work.close().await;
    Ok(print)
}

async fn add(work: &mut Work, objects: &[PgRow], print: &mut Fingerprint) -> Result<()> {
    let sums = objects.iter().map(sum).collect::<Result<Vec<_>>>()?;
    for row in work.answers(sums.join(" union all ")).await?.iter().flatten() {
        let rows = text(row, 1)?.parse().map_err(|_| Error::new(ErrorKind::Internal, "a count is no number"))?;
        print.tables.insert(text(row, 0)?, TableSum { rows, sum: text(row, 2)? });
    }
    Ok(())
}

/// The hashes of the rows as text, added up.
fn sum(object: &PgRow) -> Result<String> {
    let (schema, name, kind) = (text(object, 0)?, text(object, 1)?, text(object, 2)?);
    let (shown, from) = (literal(&format!("{schema}.{name}")), format!("{}.{}", quoted(&schema), quoted(&name)));
    Ok(match kind.as_str() {
        "S" => format!("select {shown}, 1::bigint, last_value::text || is_called::text from {from}"),
        _ => format!(
            "select {shown}, count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text from only {from} t"
        ),
    })
}
