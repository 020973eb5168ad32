//! Implements [`crate::Engine::compute_fingerprint`]: counts and hashes of every table, computed by the server in one
//! transaction, and a description of every object, from `dumps/objects.rs`. A dump takes equal counts and hashes of the
//! rows that it sees.
//!
//! A row is hashed as its values in the order of its columns' names. A restore may number columns differently where
//! some were dropped or inherited. Each column is named with its table's alias, so a column's name cannot be mistaken
//! for the whole row. A restore computes generated columns again, so rows with such columns are hashed twice, once
//! without them.
//!
//! Reading a table plans its indexes, and planning may run the functions in them. So this code works as the login that
//! migrates, whose rights these functions have anyway. It uses the search path that they were written for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use sqlx::postgres::PgRow;

use crate::error::{Error, ErrorKind, Result};
use crate::fingerprint::{DatabaseFingerprint, RowSums, TableSum};
use crate::identity::ExpectedIdentity;
use crate::own_tables::is_own_table;
use crate::placement::Placement;
use crate::postgres::dumps::objects;
use crate::postgres::dumps::programs::WHOLE_MAX;
use crate::postgres::error::AdminConnectionError;
use crate::postgres::migrations::ledger;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::migrator;
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::sql::{sql_literal, text_column};
use crate::postgres::{PostgresEngine, identity};

/// Finds the tables with rows of their own, and the sequences. The columns are: the name to report (for a partition,
/// its root's name), the name to read, the kind, the columns, and all columns where some are generated. It leaves out
/// the identity, which differs on purpose, the objects of extensions, and materialized views, which a restore fills
/// again.
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
/// Tables in one statement: parsing a longer text would cost the server much memory.
const TABLES_AT_ONCE: usize = 100;

/// See [`crate::Engine::compute_fingerprint`].
pub(in crate::postgres) async fn compute_fingerprint(
    engine: &PostgresEngine,
    at: &Placement,
    expected: &ExpectedIdentity,
) -> Result<DatabaseFingerprint> {
    let (site, database) = engine.locate_placement(at)?;
    let _slot = site.take_slot().await?;
    let mut work = migrator::enter_as_migrator(&site, database).await?;
    let print = read_fingerprint(&mut work, expected).await;
    migrator::leave_and_dismiss(&site, database, work).await;
    let mut print = print?;
    // This connection reads only the system catalogs, in which the login that migrates may not name every object.
    let mut work = site.open_connection(database).await?;
    let name = ledger::recorded(work.fetch_answers(ledger::RECORD).await?.first().map_or(&[], Vec::as_slice))?;
    print.objects = objects::read_objects(&mut work, &name).await?;
    work.close().await;
    Ok(print)
}

/// Makes it an error when a policy hides rows, because hidden rows would not be counted.
const SETTINGS: &str = "set local row_security = off;
    set local extra_float_digits = 3; set local timezone = 'UTC'; set local datestyle = 'ISO';
    set local intervalstyle = 'postgres'; set local bytea_output = 'hex'; set local lc_monetary = 'C';
    set local xmloption = 'content'; set local search_path = pg_catalog; set local statement_timeout = 0";
const BEGIN: &str = "begin isolation level repeatable read read only";

/// The SQL that begins the transaction for reading rows.
pub(super) fn begin_sql() -> String {
    format!("{BEGIN}; {SETTINGS}")
}

/// Fingerprints the rows of each table in the transaction of [`begin_sql`], which the caller ends.
pub(super) async fn fingerprint_rows(work: &mut AdminConnection) -> Result<DatabaseFingerprint> {
    let tables = work.fetch_answers(TABLES).await?.into_iter().flatten().collect::<Vec<_>>();
    sum_tables(work, &tables).await.map_err(AdminConnectionError::into_ours)
}

async fn read_fingerprint(work: &mut AdminConnection, expected: &ExpectedIdentity) -> Result<DatabaseFingerprint> {
    let sql = format!("{}; {}; {TABLES};", begin_sql(), identity::READ);
    let answers = work.try_answers(sql).await.map_err(identity::identity_read_error)?;
    let [.., row, tables] = answers.as_slice() else {
        return Err(Error::new(ErrorKind::Internal, "a fingerprint begins with two answers"));
    };
    expected.check_identity(&identity::from_rows(row)?)?;
    let print = sum_tables(work, tables).await.map_err(AdminConnectionError::into_ours)?;
    work.run_sql("rollback").await?;
    Ok(print)
}

/// Fingerprints the rows as seen by the transaction that exported `snapshot`. Returns the reason instead when the
/// server refuses to read them because of the tenant's objects.
///
/// # Errors
/// Faults of the server; [`ErrorKind::Busy`] when a table is locked for too long.
pub(super) async fn of_snapshot(
    site: &PostgresServerState,
    database: &str,
    snapshot: &str,
) -> Result<Result<RowSums, String>> {
    let mut work = migrator::enter_as_migrator(site, database).await?;
    let seen = seen_by(&mut work, snapshot).await;
    migrator::leave_and_dismiss(site, database, work).await;
    match seen {
        Ok(tables) => Ok(Ok(tables)),
        Err(why) if is_refusal(&why) => Ok(Err(format!("{} of PostgreSQL", why.sqlstate_code()))),
        Err(why) => Err(why.into_ours()),
    }
}

async fn seen_by(work: &mut AdminConnection, snapshot: &str) -> Result<RowSums, AdminConnectionError> {
    let begin = format!("{BEGIN}; set transaction snapshot {}; {SETTINGS}; {TABLES}", sql_literal(snapshot));
    let tables = work.try_answers(begin).await?.into_iter().flatten().collect::<Vec<_>>();
    lock_tables(work, &tables).await?;
    let version = work.server_version() / 10_000;
    let mut print = sum_tables(work, &tables).await?;
    print.objects.version = version;
    Ok(print.row_sums())
}

/// Locks the tables as `pg_dump` does at its start: a table that is rewritten after the snapshot looks empty to it.
async fn lock_tables(work: &mut AdminConnection, tables: &[PgRow]) -> Result<(), AdminConnectionError> {
    let mut names = Vec::new();
    for table in tables {
        if text_column(table, 2).map_err(AdminConnectionError::Silent)? == "r" {
            names.push(text_column(table, 1).map_err(AdminConnectionError::Silent)?);
        }
    }
    for some in names.chunks(TABLES_AT_ONCE) {
        let sql = format!("lock table only {} in access share mode", some.join(", only "));
        work.try_answers(sql).await?;
    }
    Ok(())
}

/// PURE: true when the server is healthy and another attempt would fail in the same way.
fn is_refusal(why: &AdminConnectionError) -> bool {
    match why {
        AdminConnectionError::Sql(error) if !crate::postgres::error::ends_connection(error) => {
            let code = why.sqlstate_code();
            // 54000 is a limit of the server, such as the length of one row, and not a shortage of resources.
            code == "54000" || !["08", "40", "53", "55", "57", "58"].iter().any(|class| code.starts_with(class))
        }
        _ => false,
    }
}

/// Removes the values of sequences that changed while others were read, because no snapshot holds these values. Call it
/// last in its transaction.
pub(super) async fn forget_moved_sequences(work: &mut AdminConnection, tables: &mut BTreeMap<String, TableSum>) {
    let now = match read_sequences(work).await {
        Ok(now) => now,
        Err(why) => {
            tracing::debug!(why = ?why.sqlstate_code(), "sequences cannot be read again, and count as moved");
            BTreeMap::new()
        }
    };
    for (name, table) in tables.iter_mut().filter(|(_, table)| is_sequence(table)) {
        if now.get(name) != Some(table) {
            table.sum.clear();
        }
    }
}

/// The sums of sequences begin with a word with which no number begins.
fn is_sequence(table: &TableSum) -> bool {
    table.sum.starts_with(SEQUENCE)
}
const SEQUENCE: &str = "at ";

async fn read_sequences(work: &mut AdminConnection) -> Result<BTreeMap<String, TableSum>, AdminConnectionError> {
    let mut sequences = work.try_answers(TABLES.to_owned()).await?.into_iter().flatten().collect::<Vec<_>>();
    sequences.retain(|table| text_column(table, 2).is_ok_and(|kind| kind == "S"));
    Ok(sum_tables(work, &sequences).await?.tables)
}

async fn sum_tables(work: &mut AdminConnection, tables: &[PgRow]) -> Result<DatabaseFingerprint, AdminConnectionError> {
    let mut print = DatabaseFingerprint::default();
    work.try_answers("set local search_path = \"$user\", public".to_owned()).await?;
    for some in tables.chunks(TABLES_AT_ONCE) {
        add_tables(work, some, &mut print).await?;
    }
    // A database has no such table before its first job, and a restored copy of it has an empty one.
    print.tables.retain(|name, table| table.rows > 0 || !name.strip_prefix("public.").is_some_and(is_own_table));
    Ok(print)
}

async fn add_tables(
    work: &mut AdminConnection,
    tables: &[PgRow],
    print: &mut DatabaseFingerprint,
) -> Result<(), AdminConnectionError> {
    let sql =
        tables.iter().map(row_sum_sql).collect::<Result<Vec<_>>>().map_err(AdminConnectionError::Silent)?.concat();
    let sql = sql.trim_start_matches(UNION).to_owned();
    for row in work.try_answers_within(sql, WHOLE_MAX).await?.iter().flatten() {
        add_row(row, print).map_err(AdminConnectionError::Silent)?;
    }
    Ok(())
}

fn add_row(row: &PgRow, print: &mut DatabaseFingerprint) -> Result<()> {
    let rows = text_column(row, 1)?.parse().map_err(|_| no_number())?;
    let (name, sum) = (text_column(row, 0)?, TableSum { rows, sum: text_column(row, 2)? });
    let tables = if text_column(row, 3)? == GENERATED { &mut print.generated } else { &mut print.tables };
    match tables.entry(name) {
        Entry::Vacant(entry) => drop(entry.insert(sum)),
        // Another partition of the same table.
        Entry::Occupied(mut entry) => {
            let before = entry.get_mut();
            before.rows += sum.rows;
            before.sum = add_hashes(&before.sum, &sum.sum).ok_or_else(no_number)?;
        }
    }
    Ok(())
}

/// Hashes have 64 bits, so the sums of all rows that a server can hold fit.
fn add_hashes(one: &str, two: &str) -> Option<String> {
    let (one, two): (i128, i128) = (one.parse().ok()?, two.parse().ok()?);
    Some(one.checked_add(two)?.to_string())
}

fn no_number() -> Error {
    Error::new(ErrorKind::Internal, "the server did not answer with a number")
}

const UNION: &str = " union all ";
/// Marks the sums of whole rows with generated columns.
const GENERATED: &str = "generated";

/// SQL for the sum of the hashes of the rows as text.
fn row_sum_sql(table: &PgRow) -> Result<String> {
    let (shown, from, kind) = (sql_literal(&text_column(table, 0)?), text_column(table, 1)?, text_column(table, 2)?);
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
    let (stored, with_generated) = (text_column(table, 3)?, text_column(table, 4)?);
    let generated = if with_generated.is_empty() { String::new() } else { of(&with_generated, GENERATED) };
    Ok(of(&stored, "") + &generated)
}
