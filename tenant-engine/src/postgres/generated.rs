//! Tables whose generated columns call functions of the tenant's own, while a database is filled.
//!
//! A restore computes these columns anew, while the rows come in. A function that reads another table would find it empty
//! and give another value. So these tables are filled behind the others.

use super::migrator;
use super::site::Site;
use super::sql::text;
use crate::error::Result;

/// Schema and name, as a list of `pg_restore` tells them.
const FIND: &str = "
    select distinct n.nspname || ' ' || c.relname
    from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum and a.attgenerated <> ''
    join pg_class c on c.oid = d.adrelid join pg_namespace n on n.oid = c.relnamespace
    where exists (
        select from pg_depend p where p.classid = 'pg_attrdef'::regclass and p.objid = d.oid
        and p.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass) and p.refobjid >= 16384)";

/// The entries with rows of such tables, and before them all others.
pub(super) async fn apart(site: &Site, database: &str, entries: &[String]) -> Result<(Vec<String>, Vec<String>)> {
    let mut work = migrator::connect(site, database).await?;
    let answers = work.answers(format!("set search_path = pg_catalog; {FIND}")).await?;
    work.close().await;
    let tables = answers.iter().flatten().map(|row| text(row, 0)).collect::<Result<Vec<_>>>()?;
    let is_late = |entry: &&String| tables.iter().any(|table| entry.contains(&format!(" TABLE DATA {table} ")));
    let (late, others) = entries.iter().partition::<Vec<_>, _>(is_late);
    Ok((others.into_iter().cloned().collect(), late.into_iter().cloned().collect()))
}
