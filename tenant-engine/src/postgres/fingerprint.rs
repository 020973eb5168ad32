//! The verb `fingerprint`: counts and hashes of every table, computed by the server, in one transaction; and a
//! description of every object, from `objects.rs`.
//!
//! A row is hashed as its values in the order of its columns' names: a restore may number columns anew, where some were
//! dropped or inherited. Each column is named with its table's alias, so no column's name can stand for the whole row.
//!
//! Reading a table plans its indexes, and planning may run the functions in them. So this works as the login that
//! migrates, whose rights these functions have anyway, and with the search path that they were written for.

use sqlx::postgres::PgRow;

use super::sql::{literal, quoted, text};
use super::work::Work;
use super::{PostgresEngine, identity, migrator, objects};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{Fingerprint, TableSum};
use crate::identity::Expected;
use crate::placement::Placement;

/// Tables with rows of their own, partitions too, and sequences, each with its columns as SQL names them. Left out are
/// the identity, which differs on purpose, the objects of extensions, and materialized views, which a restore fills anew.
const TABLES: &str = "select n.nspname, c.relname, c.relkind,
       coalesce((select string_agg('fleet_row.' || quote_ident(a.attname), ', ' order by a.attname collate \"C\")
         from pg_attribute a where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped), '')
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'S') and n.nspname not like 'pg\\_%' and n.nspname <> 'information_schema'
     and c.relpersistence <> 't' and (n.nspname, c.relname) <> ('public', '_fleet_identity')
     and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
     order by 1, 2";
/// Tables in one statement: a longer text would cost the server's parser much memory.
const TABLES_AT_ONCE: usize = 100;

/// See [`crate::Engine::fingerprint`].
pub(super) async fn fingerprint(engine: &PostgresEngine, at: &Placement, expected: &Expected) -> Result<Fingerprint> {
    let (site, database) = engine.site(at)?;
    let _slot = site.slot().await?;
    let mut work = migrator::enter(&site, database).await?;
    let print = read(&mut work, expected).await;
    migrator::leave(&site, database, work).await;
    let mut print = print?;
    // Only the catalogs, in which the login that migrates may not name every object.
    let mut work = site.enter(database).await?;
    print.objects = objects::read(&mut work).await?;
    work.close().await;
    Ok(print)
}

/// Rows that a policy hides would not count: that is an error instead.
pub(super) const BEGIN: &str = "begin isolation level repeatable read read only; set local row_security = off;
    set local extra_float_digits = 3; set local timezone = 'UTC'; set local datestyle = 'ISO';
    set local intervalstyle = 'postgres'; set local bytea_output = 'hex'; set local lc_monetary = 'C';
    set local xmloption = 'content'; set local search_path = pg_catalog";

/// The rows of each table, in the transaction that [`BEGIN`] began. The caller ends it.
pub(super) async fn rows(work: &mut Work) -> Result<Fingerprint> {
    let answers = work.answers(TABLES).await?;
    let mut print = Fingerprint::default();
    work.run("set local search_path = \"$user\", public").await?;
    for some in answers.iter().flat_map(|tables| tables.chunks(TABLES_AT_ONCE)) {
        add(work, some, &mut print).await?;
    }
    Ok(print)
}

async fn read(work: &mut Work, expected: &Expected) -> Result<Fingerprint> {
    let answers =
        work.try_answers(format!("{BEGIN}; {}; {TABLES};", identity::READ)).await.map_err(identity::missing)?;
    let [.., row, tables] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "a fingerprint begins with two answers"));
    };
    expected.check(&identity::from_rows(row)?)?;
    let mut print = Fingerprint::default();
    work.run("set local search_path = \"$user\", public").await?;
    for some in tables.chunks(TABLES_AT_ONCE) {
        add(work, some, &mut print).await?;
    }
    work.run("rollback").await?;
    Ok(print)
}

async fn add(work: &mut Work, tables: &[PgRow], print: &mut Fingerprint) -> Result<()> {
    let sums = tables.iter().map(sum).collect::<Result<Vec<_>>>()?;
    for row in work.answers(sums.join(" union all ")).await?.iter().flatten() {
        let rows = text(row, 1)?.parse().map_err(|_| Error::new(ErrorKind::Internal, "a count is no number"))?;
        print.tables.insert(text(row, 0)?, TableSum { rows, sum: text(row, 2)? });
    }
    Ok(())
}

/// The hashes of the rows as text, added up.
fn sum(table: &PgRow) -> Result<String> {
    let (schema, name, kind, columns) = (text(table, 0)?, text(table, 1)?, text(table, 2)?, text(table, 3)?);
    let (shown, from) = (literal(&format!("{schema}.{name}")), format!("{}.{}", quoted(&schema), quoted(&name)));
    Ok(match kind.as_str() {
        "S" => format!("select {shown}, 1::bigint, last_value::text || is_called::text from {from}"),
        _ => format!(
            "select {shown}, pg_catalog.count(*),
                coalesce(pg_catalog.sum(pg_catalog.hashtextextended(row({columns})::text, 0::bigint)::numeric), 0)::text
             from only {from} as fleet_row"
        ),
    })
}
