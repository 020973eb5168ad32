//! The verb `fingerprint`: counts and hashes of every table, computed by the server, in one transaction; and a
//! description of every object, from `objects.rs`. A dump takes the same counts and hashes of what it sees.
//!
//! A row is hashed as its values in the order of its columns' names: a restore may number columns anew, where some were
//! dropped or inherited. Each column is named with its table's alias, so no column's name can stand for the whole row.
//! A restore computes generated columns anew, so rows with them are hashed twice, once without them.
//!
//! Reading a table plans its indexes, and planning may run the functions in them. So this works as the login that
//! migrates, whose rights these functions have anyway, and with the search path that they were written for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sqlx::postgres::PgRow;

use super::site::Site;
use super::sql::{literal, text};
use super::tool::WHOLE_MAX;
use super::work::{Why, Work};
use super::{PostgresEngine, identity, migrator, objects};
use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{Fingerprint, RowSums, TableSum};
use crate::identity::Expected;
use crate::placement::Placement;

/// Tables with rows of their own and sequences: the name to tell (of a partition, its root's), the name to read, the
/// kind, the columns, and all columns where some are generated. Left out are the identity, which differs on purpose, the
/// objects of extensions, and materialized views, which a restore fills anew.
const TABLES: &str = "select format('%I.%I', coalesce(rn.nspname, n.nspname), coalesce(root.relname, c.relname)),
       format('%I.%I', n.nspname, c.relname), c.relkind, columns.stored, columns.with_generated
     from pg_class c join pg_namespace n on n.oid = c.relnamespace
     left join pg_class root on c.relispartition and root.oid = pg_partition_root(c.oid)
     left join pg_namespace rn on rn.oid = root.relnamespace,
     lateral (select coalesce(string_agg(name, ', ' order by attname collate \"C\") filter (where attgenerated = ''), '') stored,
         case when bool_or(attgenerated <> '') then string_agg(name, ', ' order by attname collate \"C\") else '' end with_generated
       from (select 'fleet_row.' || quote_ident(attname) as name, attname, attgenerated
         from pg_attribute where attrelid = c.oid and attnum > 0 and not attisdropped) a) columns
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
const SETTINGS: &str = "set local row_security = off;
    set local extra_float_digits = 3; set local timezone = 'UTC'; set local datestyle = 'ISO';
    set local intervalstyle = 'postgres'; set local bytea_output = 'hex'; set local lc_monetary = 'C';
    set local xmloption = 'content'; set local search_path = pg_catalog; set local statement_timeout = 0";
const BEGIN: &str = "begin isolation level repeatable read read only";

/// Begins the transaction in which rows are read.
pub(super) fn begin() -> String {
    format!("{BEGIN}; {SETTINGS}")
}

/// The rows of each table, in the transaction that [`begin`] began. The caller ends it.
pub(super) async fn rows(work: &mut Work) -> Result<Fingerprint> {
    let tables = work.answers(TABLES).await?.into_iter().flatten().collect::<Vec<_>>();
    sums(work, &tables).await.map_err(Why::into_ours)
}

async fn read(work: &mut Work, expected: &Expected) -> Result<Fingerprint> {
    let sql = format!("{}; {}; {TABLES};", begin(), identity::READ);
    let answers = work.try_answers(sql).await.map_err(identity::missing)?;
    let [.., row, tables] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "a fingerprint begins with two answers"));
    };
    expected.check(&identity::from_rows(row)?)?;
    let print = sums(work, tables).await.map_err(Why::into_ours)?;
    work.run("rollback").await?;
    Ok(print)
}

/// The rows as the transaction sees them that exported `snapshot`, or why the server does not read them: then it is
/// the tenant's objects that forbid it.
///
/// # Errors
/// Faults of the server; [`ErrorKind::Busy`] when a table is locked for too long.
pub(super) async fn of_snapshot(site: &Site, database: &str, snapshot: &str) -> Result<Result<RowSums, String>> {
    let mut work = migrator::enter(site, database).await?;
    let seen = seen_by(&mut work, snapshot).await;
    migrator::leave(site, database, work).await;
    match seen {
        Ok(tables) => Ok(Ok(tables)),
        Err(why) if is_refusal(&why) => Ok(Err(format!("{} of PostgreSQL", why.code()))),
        Err(why) => Err(why.into_ours()),
    }
}

async fn seen_by(work: &mut Work, snapshot: &str) -> Result<RowSums, Why> {
    let begin = format!("{BEGIN}; set transaction snapshot {}; {SETTINGS}; {TABLES}", literal(snapshot));
    let tables = work.try_answers(begin).await?.into_iter().flatten().collect::<Vec<_>>();
    lock(work, &tables).await?;
    let version = work.version() / 10_000;
    let mut print = sums(work, &tables).await?;
    print.objects.version = version;
    Ok(print.row_sums())
}

/// As `pg_dump` does at its start: a table that is rewritten after the snapshot looks empty to it.
async fn lock(work: &mut Work, tables: &[PgRow]) -> Result<(), Why> {
    let mut names = Vec::new();
    for table in tables {
        if text(table, 2).map_err(Why::Silent)? == "r" {
            names.push(text(table, 1).map_err(Why::Silent)?);
        }
    }
    for some in names.chunks(TABLES_AT_ONCE) {
        let sql = format!("lock table only {} in access share mode", some.join(", only "));
        work.try_answers(sql).await?;
    }
    Ok(())
}

/// PURE: the server is well, and another attempt would end as this one.
fn is_refusal(why: &Why) -> bool {
    match why {
        Why::Sql(error) if !super::error::ends_connection(error) => {
            let code = why.code();
            // A limit of the server's, as for the length of one row, and no lack of anything.
            code == "54000" || !["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
        }
        _ => false,
    }
}

/// Forgets the values of sequences that went on while others read them: no snapshot holds these. Call it as the last
/// one of its transaction.
pub(super) async fn forget_moved_sequences(work: &mut Work, tables: &mut BTreeMap<String, TableSum>) {
    let now = match sequences(work).await {
        Ok(now) => now,
        Err(why) => {
            tracing::debug!(why = ?why.code(), "sequences cannot be read again, and count as moved");
            BTreeMap::new()
        }
    };
    for (name, table) in tables.iter_mut().filter(|(_, table)| is_sequence(table)) {
        if now.get(name) != Some(table) {
            table.sum.clear();
        }
    }
}

/// Theirs begin with a word that no number begins with.
fn is_sequence(table: &TableSum) -> bool {
    table.sum.starts_with(SEQUENCE)
}
const SEQUENCE: &str = "at ";

async fn sequences(work: &mut Work) -> Result<BTreeMap<String, TableSum>, Why> {
    let mut sequences = work.try_answers(TABLES.to_owned()).await?.into_iter().flatten().collect::<Vec<_>>();
    sequences.retain(|table| text(table, 2).is_ok_and(|kind| kind == "S"));
    Ok(sums(work, &sequences).await?.tables)
}

async fn sums(work: &mut Work, tables: &[PgRow]) -> Result<Fingerprint, Why> {
    let mut print = Fingerprint::default();
    work.try_answers("set local search_path = \"$user\", public".to_owned()).await?;
    for some in tables.chunks(TABLES_AT_ONCE) {
        add(work, some, &mut print).await?;
    }
    Ok(print)
}

async fn add(work: &mut Work, tables: &[PgRow], print: &mut Fingerprint) -> Result<(), Why> {
    let sql = tables.iter().map(sum).collect::<Result<Vec<_>>>().map_err(Why::Silent)?.concat();
    let sql = sql.trim_start_matches(UNION).to_owned();
    for row in work.try_answers_within(sql, WHOLE_MAX).await?.iter().flatten() {
        add_row(row, print).map_err(Why::Silent)?;
    }
    Ok(())
}

fn add_row(row: &PgRow, print: &mut Fingerprint) -> Result<()> {
    let rows = text(row, 1)?.parse().map_err(|_| no_number())?;
    let (name, sum) = (text(row, 0)?, TableSum { rows, sum: text(row, 2)? });
    let tables = if text(row, 3)? == GENERATED { &mut print.generated } else { &mut print.tables };
    match tables.entry(name) {
        Entry::Vacant(entry) => drop(entry.insert(sum)),
        // Another partition.
        Entry::Occupied(mut entry) => {
            let before = entry.get_mut();
            before.rows += sum.rows;
            before.sum = added(&before.sum, &sum.sum).ok_or_else(no_number)?;
        }
    }
    Ok(())
}

/// Hashes have 64 bits, so the sums of all rows that a server can hold fit.
fn added(one: &str, two: &str) -> Option<String> {
    let (one, two): (i128, i128) = (one.parse().ok()?, two.parse().ok()?);
    Some(one.checked_add(two)?.to_string())
}

fn no_number() -> Error {
    Error::new(ErrorKind::Internal, "the server did not answer with a number")
}

const UNION: &str = " union all ";
/// What marks the sums of whole rows with generated columns.
const GENERATED: &str = "generated";

/// The hashes of the rows as text, added up.
fn sum(table: &PgRow) -> Result<String> {
    let (shown, from, kind) = (literal(&text(table, 0)?), text(table, 1)?, text(table, 2)?);
    if kind == "S" {
        let value = format!("'{SEQUENCE}' || last_value::text || is_called::text");
        return Ok(format!("{UNION}select {shown}, 1::bigint, {value}, '' from {from}"));
    }
    let of = |columns: &str, mark: &str| {
        format!(
            "{UNION}select {shown}, pg_catalog.count(*),
                coalesce(pg_catalog.sum(pg_catalog.hashtextextended(row({columns})::text, 0::bigint)::numeric), 0)::text, '{mark}'
             from only {from} as fleet_row"
        )
    };
    let (stored, with_generated) = (text(table, 3)?, text(table, 4)?);
    let generated = if with_generated.is_empty() { String::new() } else { of(&with_generated, GENERATED) };
    Ok(of(&stored, "") + &generated)
}
