//! The first wall of a tenant's database: the right to run functions, and to read relations, that tell of other databases
//! of the server. The check of a request's words (`requests/sandbox.rs`) is the second one.
//!
//! PUBLIC has these rights by default, and only a superuser may take them away, in each database. A copy of a database
//! keeps its rights. So a superuser prepares one database, [`TEMPLATE`], and every later one is a copy of it: templates
//! of releases (`template.rs`) and what a dump is restored into (`database.rs`). A maintenance role that is a superuser
//! prepares it by itself ([`prepare`]); otherwise [`script`] is what an administrator runs. The maintenance role keeps
//! the rights, because it manages the server and makes the dumps.

use super::PostgresEngine;
use super::functions;
use super::prepare::SERVER_LOCK;
use super::site::Site;
use super::sql::{literal, quoted, text};
use super::work::Work;
use crate::error::Result;
use crate::server::{FunctionRights, Server};

/// The database that new ones are copies of.
pub(super) const TEMPLATE: &str = "fleet_template";
/// What they are copies of on a server that nobody prepared.
const UNPREPARED: &str = "template0";
/// Not the locks of the roles and of the templates.
const PREPARE_LOCK: i64 = SERVER_LOCK + 2;
/// Databases a survey looks into: those that are oldest, which were made before the server was prepared.
const LOOKED_MAX: usize = 3;
/// Databases that a script names; one with more runs again.
const SCRIPT_DATABASES_MAX: usize = 10_000;

/// What a template says about itself when its rights are those that this program takes away.
fn mark() -> String {
    let hash = blake3::hash(statements("").as_bytes()).to_hex();
    format!("fleet rights {}", &hash[..12])
}

/// Takes the rights away in the database that the session is in, and gives them to `role`. May run again.
fn statements(role: &str) -> String {
    let array = |names: Vec<&str>| literal(&format!("{{{}}}", names.join(",")));
    let (refused, known) = (array(functions::of_server()), array(functions::known()));
    let relations = array(functions::relations().collect());
    let role = literal(role);
    format!(
        "do $fleet$ declare found text; begin
           set local search_path = pg_catalog;
           for found in select p.oid::regprocedure::text from pg_proc p
             where p.pronamespace = 'pg_catalog'::regnamespace
               and (p.proname = any({refused}::text[])
                    or p.proname ~ '^(pg_|binary_upgrade_|to_regrole)' and not p.proname = any({known}::text[]))
               and (p.proacl is null or exists (select from aclexplode(p.proacl) where grantee = 0)) loop
             execute format('revoke execute on routine %s from public', found);
             execute format('grant execute on routine %s to %I', found, {role});
           end loop;
           for found in select c.oid::regclass::text from pg_class c
             where c.relnamespace = 'pg_catalog'::regnamespace and c.relkind in ('r', 'v')
               and (c.relname = any({relations}::text[])
                    or c.relname ~ '^pg_stat_' and c.relname !~ '^pg_stat_(all|sys|user|xact)_')
               and exists (select from aclexplode(c.relacl) where grantee = 0) loop
             execute format('revoke all on %s from public', found);
             execute format('grant select on %s to %I', found, {role});
           end loop;
           revoke all on pg_subscription from public;
           execute format('grant select (oid, subdbid, subname, subowner, subenabled) on pg_subscription to %I', {role});
           revoke usage on type regrole, aclitem from public;
           execute format('grant set on parameter temp_file_limit to %I', {role});
         end $fleet$;"
    )
}

/// What a superuser runs with psql: it prepares the template and the databases that are there already.
fn script(role: &str, center: &str, databases: &[String]) -> String {
    let (template, mark, body) = (quoted(TEMPLATE), literal(&mark()), statements(role));
    let there: String = databases.iter().map(|database| format!("\\connect {}\n:rights\n", quoted(database))).collect();
    format!(
        "-- Run this as a superuser: fleetctl server prepare <server> | psql <connection string of a superuser>\n\
         \\set ON_ERROR_STOP on\n\
         \\connect {center}\n\
         select $rights${body}$rights$ as rights \\gset\n\
         select 'create database {template} template template0 encoding ''UTF8'''\n  \
           where not exists (select from pg_database where datname = '{TEMPLATE}') \\gexec\n\
         revoke all on database {template} from public;\n\
         alter database {template} with allow_connections true;\n\
         \\connect {template}\n\
         :rights\n\
         -- An extension that only a superuser may create is created here: create extension …;\n\
         \\connect {center}\n\
         comment on database {template} is {mark};\n\
         alter database {template} with is_template true;\n\
         {there}",
        center = quoted(center),
    )
}

/// See [`crate::Engine::preparation`].
pub(super) async fn preparation(engine: &PostgresEngine, on: &Server) -> Result<String> {
    let site = engine.site_of(on)?;
    let mut center = site.center().await?;
    let sql = format!("select datname from pg_database where {TENANTS} order by oid limit {SCRIPT_DATABASES_MAX}");
    let answers = center.answers(sql).await?;
    let databases = answers.iter().flatten().map(|row| text(row, 0)).collect::<Result<Vec<_>>>()?;
    site.leave(center);
    let dsn = site.server.dsn();
    Ok(script(&dsn.user(), &dsn.database(), &databases))
}

/// Databases of tenants that can be entered.
const TENANTS: &str = "datname ~ '^t_[0-9a-f]{32}_g[0-9]+_[0-9]+$' and datallowconn";

/// What new databases are copies of, with what it says about itself.
pub(super) struct Base {
    pub(super) name: &'static str,
    /// Stays the same as long as copies have the same rights.
    pub(super) mark: Option<String>,
}

/// The prepared template if there is one.
pub(super) async fn base(center: &mut Work) -> Result<Base> {
    let sql = format!(
        "select oid::text || ' ' || coalesce(shobj_description(oid, 'pg_database'), '') from pg_database
         where datname = '{TEMPLATE}' and datistemplate"
    );
    let answers = center.answers(sql).await?;
    Ok(match answers.iter().flatten().next() {
        Some(row) => Base { name: TEMPLATE, mark: Some(text(row, 0)?) },
        None => Base { name: UNPREPARED, mark: None },
    })
}

/// Prepares the template if the maintenance role may do that, and it is not prepared as this program does it.
pub(super) async fn prepare(site: &Site, center: &mut Work) -> Result<()> {
    if !is_some(center, "select 1 from pg_roles where rolname = current_user and rolsuper").await?
        || is_current(&base(center).await?)
    {
        return Ok(());
    }
    center.run(format!("select pg_advisory_lock({PREPARE_LOCK})")).await?;
    let made = make(site, center).await;
    center.run(format!("select pg_advisory_unlock({PREPARE_LOCK})")).await?;
    made
}

async fn make(site: &Site, center: &mut Work) -> Result<()> {
    if is_current(&base(center).await?) {
        return Ok(());
    }
    if !is_some(center, &format!("select 1 from pg_database where datname = '{TEMPLATE}'")).await? {
        center.run(format!("create database {TEMPLATE} template template0 encoding 'UTF8'")).await?;
    }
    center.run(format!("revoke all on database {TEMPLATE} from public")).await?;
    center.run(format!("alter database {TEMPLATE} with allow_connections true")).await?;
    let mut work = site.enter(TEMPLATE).await?;
    work.run(statements(&site.server.dsn().user())).await?;
    work.close().await;
    let mark = literal(&mark());
    center.run(format!("comment on database {TEMPLATE} is {mark}")).await?;
    center.run(format!("alter database {TEMPLATE} with is_template true")).await
}

fn is_current(base: &Base) -> bool {
    base.mark.as_ref().is_some_and(|found| found.ends_with(&mark()))
}

/// Which walls stand on a server; looks into its oldest databases.
pub(super) async fn look(site: &Site, center: &mut Work) -> Result<FunctionRights> {
    let base = base(center).await?;
    if base.mark.is_none() {
        return Ok(FunctionRights::Granted);
    }
    if !is_current(&base) {
        return Ok(FunctionRights::Outdated);
    }
    let sql = format!("select datname from pg_database where {TENANTS} order by oid limit {LOOKED_MAX}");
    for row in center.answers(sql).await?.iter().flatten() {
        let mut inside = site.enter(&text(row, 0)?).await?;
        let open = is_some(&mut inside, IS_OPEN).await?;
        inside.close().await;
        if open {
            return Ok(FunctionRights::RevokedInNew);
        }
    }
    Ok(FunctionRights::Revoked)
}

/// One of the functions stands for all: they lose their rights together.
const IS_OPEN: &str = "select 1 from pg_proc where oid = 'pg_catalog.pg_lock_status()'::regprocedure
    and (proacl is null or exists (select from aclexplode(proacl) where grantee = 0))";

async fn is_some(work: &mut Work, question: &str) -> Result<bool> {
    Ok(work.answers(question).await?.iter().any(|rows| !rows.is_empty()))
}
