//! Check constraints that call functions of the tenant's own, while a database is filled.
//!
//! Such a function may look at rows that come in later: of another table, or of the same one. So the constraint is taken
//! off before the rows and put back behind them, as valid as it was. Rows that break it by then were accepted by the
//! source, which looks only when a row is written: the constraint is left `not valid` then, and goes on to hold for
//! every new row. Checks of domains are taken off only when rows cannot come in otherwise, because the server cannot
//! validate one that an array uses. The caller learns of every constraint that is left `not valid`.
//!
//! A check whose function takes a row of its own table, or a value of its own domain, is an entry of its own behind the
//! rows. It is added in the same way where the rows break it.

use super::load::Load;
use super::site::Site;
use super::sql::{literal, text};
use super::tool::WHOLE_MAX;
use super::work::{Why, Work};
use super::{archive, contents, migrator, script};
use crate::error::{Error, ErrorKind, Result};

/// One constraint, as SQL makes it again.
#[derive(Debug)]
pub(super) struct Check {
    /// `table public.orders` or `domain public.code`.
    owner: String,
    name: String,
    definition: String,
    is_valid: bool,
    comment: String,
}

/// Whose constraints.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    Table,
    Domain,
}

/// Those that depend on a function or an operator which is not the server's own, parents before children. What a
/// child only inherits goes and comes back with its parent.
const FIND: &str = "
    select case when con.conrelid <> 0 then 'table ' || con.conrelid::regclass else 'domain ' || con.contypid::regtype end,
           quote_ident(con.conname), pg_get_constraintdef(con.oid), con.convalidated::text,
           coalesce(obj_description(con.oid, 'pg_constraint'), '')
    from pg_constraint con
    where con.contype = 'c' and (con.conislocal or con.coninhcount = 0) and exists (
        select from pg_depend d where d.classid = 'pg_constraint'::regclass and d.objid = con.oid
        and d.refclassid in ('pg_proc'::regclass, 'pg_operator'::regclass) and d.refobjid >= 16384)
    order by con.coninhcount, con.oid";

/// Takes them off.
pub(super) async fn take_off(site: &Site, database: &str, of: Owner) -> Result<Vec<Check>> {
    let mut work = enter(site, database).await?;
    let answers = work.answers(FIND).await?;
    let mut checks = answers.iter().flatten().map(check).collect::<Result<Vec<_>>>()?;
    checks.retain(|check| check.owner.starts_with("domain ") == matches!(of, Owner::Domain));
    for Check { owner, name, .. } in &checks {
        work.run(format!("alter {owner} drop constraint if exists {name}")).await?;
    }
    work.close().await;
    Ok(checks)
}

/// Puts them back. Returns a sentence for each that was valid and is not any more.
pub(super) async fn put_back(site: &Site, database: &str, checks: &[Check]) -> Result<Vec<String>> {
    if checks.is_empty() {
        return Ok(Vec::new());
    }
    let mut work = enter(site, database).await?;
    // The constraint sees the rows in the search path of the sessions that write.
    work.run("reset search_path; set statement_timeout = 0").await?;
    let mut not_valid = Vec::new();
    for check in checks {
        not_valid.extend(put_one_back(&mut work, check).await?);
    }
    work.close().await;
    Ok(not_valid)
}

async fn put_one_back(work: &mut Work, check: &Check) -> Result<Option<String>> {
    let Check { owner, name, definition, is_valid, comment } = check;
    let definition = definition.strip_suffix(" NOT VALID").unwrap_or(definition);
    let refused = |why: Why| {
        let reason = why.into_ours();
        let message = format!("the constraint {name} of {owner} could not be restored: {}", reason.message());
        Error::new(ErrorKind::NotRestorable, message).with_source(reason)
    };
    work.try_answers(format!("alter {owner} add constraint {name} {definition} not valid")).await.map_err(refused)?;
    if !comment.is_empty() {
        // The grammar has a word for a domain here, and none for a table.
        let owner = owner.strip_prefix("table ").unwrap_or(owner);
        work.try_answers(format!("comment on constraint {name} on {owner} is {}", literal(comment)))
            .await
            .map_err(refused)?;
    }
    if !is_valid {
        return Ok(None);
    }
    let validate = format!("alter {owner} validate constraint {name}");
    match work.script(&validate, WHOLE_MAX).await.map_err(|stopped| stopped.why) {
        // Rows that break it, a function that fails for some row, or a domain that an array uses.
        Err(Why::Sql(error)) if !super::error::ends_connection(&error) => {
            let why = super::error::from_sqlx(error);
            Ok(Some(format!("the constraint {name} of {owner} is restored, but not valid: {}", why.message())))
        }
        Err(why) => Err(why.into_ours()),
        Ok(()) => Ok(None),
    }
}

/// Whether an entry of a dump is a check that stands for itself.
pub(super) fn is_check(entry: &str) -> bool {
    entry.contains(" CHECK CONSTRAINT ")
}

/// The checks that these entries of a dump are.
pub(super) async fn in_dump(load: &Load<'_>, entries: &[String]) -> Result<Vec<Check>> {
    let (mut file, list) = archive::create(load.engine.scratch())?;
    archive::write(&mut file, (entries.join("\n") + "\n").as_bytes()).await?;
    let text = contents::script(load.engine.tools(), load.dump, &list).await?;
    Ok(script::statements(&text).iter().filter_map(|statement| in_statement(statement.text)).collect())
}

/// PURE: `ALTER TABLE public.t\n    ADD CONSTRAINT c CHECK (…)`, as `dumpConstraint` of PostgreSQL's `pg_dump.c` writes it.
fn in_statement(statement: &str) -> Option<Check> {
    let (owner, rest) = statement.strip_prefix("ALTER ")?.split_once("\n    ADD CONSTRAINT ")?;
    let (kind, owner) = owner.split_once(' ')?;
    let (name, definition) = rest.split_at(name_length(rest)?);
    Some(Check {
        owner: format!("{} {owner}", kind.to_lowercase()),
        name: name.to_owned(),
        definition: definition.trim().to_owned(),
        is_valid: !definition.ends_with(" NOT VALID"),
        comment: String::new(),
    })
}

/// PURE: how long the name is at the beginning of this text; a quoted one may hold blanks and doubled quotes.
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

/// As the login that migrates, which was admitted before the load: validating runs functions of the tenant's.
async fn enter(site: &Site, database: &str) -> Result<Work> {
    let mut work = migrator::connect(site, database).await?;
    // Every other name is printed with its schema.
    work.run("set search_path = pg_catalog").await?;
    Ok(work)
}

fn check(row: &sqlx::postgres::PgRow) -> Result<Check> {
    Ok(Check {
        owner: text(row, 0)?,
        name: text(row, 1)?,
        definition: text(row, 2)?,
        is_valid: text(row, 3)? == "true",
        comment: text(row, 4)?,
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
