//! Tables whose generated columns call the tenant's own functions, while a database is filled.
//!
//! A restore computes these columns while the rows are loaded. A function that reads another table would find it empty
//! and return another value. So these tables are filled after the others.

use crate::error::Result;
use crate::postgres::servers::migrator;
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::sql::text_column;

/// Finds the tables, with schema and name as in a list of `pg_restore`.
const FIND: &str = "
    select distinct n.nspname || ' ' || c.relname
    from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum and a.attgenerated <> ''
    join pg_class c on c.oid = d.adrelid join pg_namespace n on n.oid = c.relnamespace
    where exists (
        select from pg_depend p where p.classid = 'pg_attrdef'::regclass and p.objid = d.oid
        and p.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass) and p.refobjid >= 16384)";

/// Splits the entries: first all others, then those with rows of such tables.
pub(super) async fn separate_entries(
    site: &PostgresServerState,
    database: &str,
    entries: &[String],
) -> Result<(Vec<String>, Vec<String>)> {
    let mut work = migrator::connect_as_migrator(site, database).await?;
    let answers = work.fetch_answers(format!("set search_path = pg_catalog; {FIND}")).await?;
    work.close().await;
    let tables = answers.iter().flatten().map(|row| text_column(row, 0)).collect::<Result<Vec<_>>>()?;
    let is_late = |entry: &&String| tables.iter().any(|table| entry.contains(&format!(" TABLE DATA {table} ")));
    let (late, others) = entries.iter().partition::<Vec<_>, _>(is_late);
    Ok((others.into_iter().cloned().collect(), late.into_iter().cloned().collect()))
}
