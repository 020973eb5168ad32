//! Check constraints that call functions of the tenant's own, while a database is filled.
//!
//! Such a function may look at rows that come in later: of another table, or of the same one. So the constraint is taken
//! off before the rows and put back behind them, as valid as it was. Rows that break it by then were accepted by the
//! source, which looks only when a row is written: the constraint is left `not valid` then, and goes on to hold for
//! every new row. Checks of domains stay: the server cannot validate one later that is used in an array.

use super::migrator;
use super::site::Site;
use super::sql::{literal, text};
use super::tool::WHOLE_MAX;
use super::work::{Why, Work};
use crate::error::{Error, ErrorKind, Result};

/// One constraint, as SQL makes it again.
#[derive(Debug)]
pub(super) struct Check {
    table: String,
    name: String,
    definition: String,
    is_valid: bool,
    comment: String,
}

/// Those that depend on a function or an operator which is not the server's own, parents before children. What a
/// child only inherits goes and comes back with its parent.
const FIND: &str = "
    select con.conrelid::regclass::text, quote_ident(con.conname), pg_get_constraintdef(con.oid), con.convalidated::text,
           coalesce(obj_description(con.oid, 'pg_constraint'), '')
    from pg_constraint con
    where con.contype = 'c' and con.conrelid <> 0 and (con.conislocal or con.coninhcount = 0) and exists (
        select from pg_depend d where d.classid = 'pg_constraint'::regclass and d.objid = con.oid
        and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass) and d.refobjid >= 16384)
    order by con.coninhcount, con.oid";

/// Takes them off.
pub(super) async fn take_off(site: &Site, database: &str) -> Result<Vec<Check>> {
    let mut work = enter(site, database).await?;
    let answers = work.answers(FIND).await?;
    let checks = answers.iter().flatten().map(check).collect::<Result<Vec<_>>>()?;
    for Check { table, name, .. } in &checks {
        work.run(format!("alter table {table} drop constraint if exists {name}")).await?;
    }
    work.close().await;
    Ok(checks)
}

/// Puts them back.
pub(super) async fn put_back(site: &Site, database: &str, checks: &[Check]) -> Result<()> {
    if checks.is_empty() {
        return Ok(());
    }
    let mut work = enter(site, database).await?;
    // The constraint sees the rows in the search path of the sessions that write.
    work.run("reset search_path; set statement_timeout = 0").await?;
    for check in checks {
        put_one_back(&mut work, check).await?;
    }
    work.close().await;
    Ok(())
}

async fn put_one_back(work: &mut Work, check: &Check) -> Result<()> {
    let Check { table, name, definition, is_valid, comment } = check;
    let definition = definition.strip_suffix(" NOT VALID").unwrap_or(definition);
    let refused = |why: Why| {
        let reason = why.into_ours();
        let message = format!("the constraint {name} of {table} could not be restored: {}", reason.message());
        Error::new(ErrorKind::NotRestorable, message).with_source(reason)
    };
    work.try_answers(format!("alter table {table} add constraint {name} {definition} not valid"))
        .await
        .map_err(refused)?;
    if !comment.is_empty() {
        work.try_answers(format!("comment on constraint {name} on {table} is {}", literal(comment)))
            .await
            .map_err(refused)?;
    }
    if !is_valid {
        return Ok(());
    }
    let validate = format!("alter table {table} validate constraint {name}");
    match work.script(&validate, WHOLE_MAX).await.map_err(|stopped| stopped.why) {
        // Rows that break it, or a function that fails for some row.
        Err(Why::Sql(error)) if !super::error::ends_connection(&error) => Ok(()),
        Err(why) => Err(why.into_ours()),
        Ok(()) => Ok(()),
    }
}

/// As the login that migrates, which was admitted before the load: validating runs functions of the tenant's.
async fn enter(site: &Site, database: &str) -> Result<Work> {
    let mut work = migrator::connect(site, database).await?;
    // Every other name is printed with its schema.
    work.run("set search_path = pg_catalog").await?;
    Ok(work)
}

fn check(row: &sqlx::postgres::PgRow) -> Result<Check> {
    Ok(Check {
        table: text(row, 0)?,
        name: text(row, 1)?,
        definition: text(row, 2)?,
        is_valid: text(row, 3)? == "true",
        comment: text(row, 4)?,
    })
}
