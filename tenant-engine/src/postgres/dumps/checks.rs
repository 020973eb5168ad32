//! Check constraints that call the tenant's own functions, while a database is filled.
//!
//! Such a function may read rows that are loaded later, from another table or the same one. So the constraint is
//! dropped before the rows are loaded and added again afterwards, as valid as it was. Rows that violate it then were
//! accepted by the source, because a check runs only when a row is written. In that case the constraint is added as
//! `not valid`, and it still applies to every new row. Checks of domains are dropped only when rows cannot be loaded
//! otherwise, because the server cannot validate a domain that an array uses. The caller is told of every constraint
//! that is left `not valid`.
//!
//! A check whose function takes a row of its own table, or a value of its own domain, is a separate entry behind the
//! rows. It is added in the same way when rows violate it.

use super::load::DumpLoad;
use super::programs::WHOLE_MAX;
use super::{archive, contents};
use crate::error::{Error, ErrorKind, Result};
use crate::postgres::error::AdminConnectionError;
use crate::postgres::migrations::script;
use crate::postgres::servers::admin_connection::AdminConnection;
use crate::postgres::servers::migrator;
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::sql::{sql_literal, text_column};

/// One constraint, with the SQL that makes it again.
#[derive(Debug)]
pub(super) struct CheckConstraint {
    /// `table public.orders` or `domain public.code`.
    owner: String,
    name: String,
    definition: String,
    is_valid: bool,
    comment: String,
}

/// Whose constraints are dropped.
#[derive(Debug, Clone, Copy)]
pub(super) enum ConstraintOwner {
    Table,
    Domain,
}

/// Finds the constraints that depend on a function or operator that is not the server's own, parents before children.
/// An inherited constraint of a child is dropped and added with its parent's.
const FIND: &str = "
    select case when con.conrelid <> 0 then 'table ' || con.conrelid::regclass else 'domain ' || con.contypid::regtype end,
           quote_ident(con.conname), pg_get_constraintdef(con.oid), con.convalidated::text,
           coalesce(obj_description(con.oid, 'pg_constraint'), '')
    from pg_constraint con
    where con.contype = 'c' and (con.conislocal or con.coninhcount = 0) and exists (
        select from pg_depend d where d.classid = 'pg_constraint'::regclass and d.objid = con.oid
        and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass) and d.refobjid >= 16384)
    order by con.coninhcount, con.oid";

/// Drops the constraints and returns them.
pub(super) async fn take_off(
    site: &PostgresServerState,
    database: &str,
    of: ConstraintOwner,
) -> Result<Vec<CheckConstraint>> {
    let mut work = enter_for_checks(site, database).await?;
    let answers = work.fetch_answers(FIND).await?;
    let mut checks = answers.iter().flatten().map(parse_check).collect::<Result<Vec<_>>>()?;
    checks.retain(|check| check.owner.starts_with("domain ") == matches!(of, ConstraintOwner::Domain));
    for CheckConstraint { owner, name, .. } in &checks {
        work.run_sql(format!("alter {owner} drop constraint if exists {name}")).await?;
    }
    work.close().await;
    Ok(checks)
}

/// Adds the constraints again. Returns a sentence for each constraint that was valid and no longer is.
pub(super) async fn put_back(
    site: &PostgresServerState,
    database: &str,
    checks: &[CheckConstraint],
) -> Result<Vec<String>> {
    if checks.is_empty() {
        return Ok(Vec::new());
    }
    let mut work = enter_for_checks(site, database).await?;
    // The constraint reads rows with the search path of the sessions that write.
    work.run_sql("reset search_path; set statement_timeout = 0").await?;
    let mut not_valid = Vec::new();
    for check in checks {
        not_valid.extend(put_one_back(&mut work, check).await?);
    }
    work.close().await;
    Ok(not_valid)
}

async fn put_one_back(work: &mut AdminConnection, check: &CheckConstraint) -> Result<Option<String>> {
    let CheckConstraint { owner, name, definition, is_valid, comment } = check;
    let definition = definition.strip_suffix(" NOT VALID").unwrap_or(definition);
    let refused = |why: AdminConnectionError| {
        let reason = why.into_ours();
        let message = format!("the constraint {name} of {owner} could not be restored: {}", reason.message());
        Error::new(ErrorKind::NotRestorable, message).with_source(reason)
    };
    work.try_answers(format!("alter {owner} add constraint {name} {definition} not valid")).await.map_err(refused)?;
    if !comment.is_empty() {
        // SQL needs the keyword `domain` here for a domain, and no keyword for a table.
        let owner = owner.strip_prefix("table ").unwrap_or(owner);
        work.try_answers(format!("comment on constraint {name} on {owner} is {}", sql_literal(comment)))
            .await
            .map_err(refused)?;
    }
    if !is_valid {
        return Ok(None);
    }
    let validate = format!("alter {owner} validate constraint {name}");
    match work.run_script(&validate, WHOLE_MAX).await.map_err(|stopped| stopped.why) {
        // Rows violate it, a function fails for some row, or an array uses the domain.
        Err(AdminConnectionError::Sql(error)) if !crate::postgres::error::ends_connection(&error) => {
            let why = crate::postgres::error::from_sqlx(error);
            Ok(Some(format!("the constraint {name} of {owner} is restored, but not valid: {}", why.message())))
        }
        Err(why) => Err(why.into_ours()),
        Ok(()) => Ok(None),
    }
}

/// Whether an entry of a dump is a separate check constraint.
pub(super) fn is_check(entry: &str) -> bool {
    entry.contains(" CHECK CONSTRAINT ")
}

/// The check constraints among these entries of a dump.
pub(super) async fn in_dump(load: &DumpLoad<'_>, entries: &[String]) -> Result<Vec<CheckConstraint>> {
    let (mut file, list) = archive::create_scratch_file(load.engine.scratch_directory())?;
    archive::write_scratch_file(&mut file, (entries.join("\n") + "\n").as_bytes()).await?;
    let text = contents::script_text(load.engine.postgres_tools(), load.dump, &list).await?;
    Ok(script::split_statements(&text).iter().filter_map(|statement| in_statement(statement.text)).collect())
}

/// PURE: parses `ALTER TABLE public.t\n    ADD CONSTRAINT c CHECK (…)`, as `dumpConstraint` of PostgreSQL's `pg_dump.c`
/// writes it.
fn in_statement(statement: &str) -> Option<CheckConstraint> {
    let (owner, rest) = statement.strip_prefix("ALTER ")?.split_once("\n    ADD CONSTRAINT ")?;
    let (kind, owner) = owner.split_once(' ')?;
    let (name, definition) = rest.split_at(name_length(rest)?);
    Some(CheckConstraint {
        owner: format!("{} {owner}", kind.to_lowercase()),
        name: name.to_owned(),
        definition: definition.trim().to_owned(),
        is_valid: !definition.ends_with(" NOT VALID"),
        comment: String::new(),
    })
}

/// PURE: length of the name at the start of this text. A quoted name may contain blanks and doubled quotes.
fn name_length(text: &str) -> Option<usize> {
    if !text.starts_with('"') {
        return text.find(' ');
    }
    let mut quoted = false;
    text.char_indices().find_map(|(at, c)| {
        quoted ^= c == '"';
        (c == ' ' && !quoted).then_some(at)
    })
}

/// Connects as the login that migrates, which was admitted before the load: validating runs the tenant's functions.
async fn enter_for_checks(site: &PostgresServerState, database: &str) -> Result<AdminConnection> {
    let mut work = migrator::connect_as_migrator(site, database).await?;
    // With this search path the server prints every other name with its schema.
    work.run_sql("set search_path = pg_catalog").await?;
    Ok(work)
}

fn parse_check(row: &sqlx::postgres::PgRow) -> Result<CheckConstraint> {
    Ok(CheckConstraint {
        owner: text_column(row, 0)?,
        name: text_column(row, 1)?,
        definition: text_column(row, 2)?,
        is_valid: text_column(row, 3)? == "true",
        comment: text_column(row, 4)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_of_a_dump_is_read_whatever_its_name_is() {
        for (statement, owner, name, definition, is_valid) in [
            ("ALTER TABLE a.t\n    ADD CONSTRAINT c CHECK (a.f(t.*))", "table a.t", "c", "CHECK (a.f(t.*))", true),
            (
                "ALTER DOMAIN \"My D\".\"x y\"\n    ADD CONSTRAINT \"a \"\" CHECK (b\" CHECK (f(VALUE)) NOT VALID",
                "domain \"My D\".\"x y\"",
                "\"a \"\" CHECK (b\"",
                "CHECK (f(VALUE)) NOT VALID",
                false,
            ),
        ] {
            let check = in_statement(statement).unwrap();
            assert_eq!((check.owner.as_str(), check.name.as_str()), (owner, name));
            assert_eq!((check.definition.as_str(), check.is_valid), (definition, is_valid));
        }
        assert!(in_statement("COMMENT ON CONSTRAINT c ON t IS 'x'").is_none());
    }
}
