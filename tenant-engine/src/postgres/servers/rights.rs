//! The first protection of a tenant's database: it revokes the right to run functions, and to read relations, that tell
//! about other databases of the server. The second protection is the check of each request's SQL
//! (`requests/sandbox.rs`).
//!
//! By default PUBLIC has these rights, and only a superuser may revoke them, in each database. A copy of a database
//! keeps its rights. So a superuser prepares one database, [`TEMPLATE`], and every later one is a copy of it: templates
//! of releases (`actions/template.rs`) and databases for a restore (`database.rs`). A maintenance role that is a
//! superuser prepares it by itself ([`prepare_base_template`]). Otherwise an administrator runs the script of
//! `actions/preparation.rs`. The maintenance role keeps the rights, because it manages the server and makes the dumps.

use super::admin_connection::AdminConnection;
use super::functions;
use super::prepare::SERVER_LOCK;
use super::server_state::PostgresServerState;
use crate::error::Result;
use crate::postgres::sql::{sql_literal, text_column};
use crate::server::FunctionRights;

/// The database from which new databases are copied.
pub(in crate::postgres) const TEMPLATE: &str = "fleet_template";
/// The database from which they are copied on a server that was not prepared.
const UNPREPARED: &str = "template0";
/// A lock of its own, different from the locks of the roles and of the templates.
const PREPARE_LOCK: i64 = SERVER_LOCK + 2;
/// Databases that a survey checks: the oldest, because they were made before the server was prepared.
const LOOKED_MAX: usize = 3;

/// The comment of a template whose rights are those that this program sets.
pub(in crate::postgres) fn rights_mark() -> String {
    let hash = blake3::hash(rights_sql("").as_bytes()).to_hex();
    format!("fleet rights {}", &hash[..12])
}

/// SQL that revokes the rights in the current database, and grants them to `role`. May run again.
pub(in crate::postgres) fn rights_sql(role: &str) -> String {
    let array = |names: Vec<&str>| sql_literal(&format!("{{{}}}", names.join(",")));
    let (refused, known) = (array(functions::of_server()), array(functions::known_functions()));
    let relations = array(functions::restricted_relations().collect());
    let role = sql_literal(role);
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

/// Matches the databases of tenants that accept connections.
pub(in crate::postgres) const TENANTS: &str = "datname ~ '^t_[0-9a-f]{32}_g[0-9]+_[0-9]+$' and datallowconn";

/// The database from which new databases are copied, with its mark.
pub(in crate::postgres) struct BaseTemplate {
    pub(in crate::postgres) name: &'static str,
    /// Equal as long as copies have equal rights.
    pub(in crate::postgres) mark: Option<String>,
}

/// The prepared template if there is one, otherwise PostgreSQL's own.
pub(in crate::postgres) async fn base_template(center: &mut AdminConnection) -> Result<BaseTemplate> {
    let sql = format!(
        "select oid::text || ' ' || coalesce(shobj_description(oid, 'pg_database'), '') from pg_database
         where datname = '{TEMPLATE}' and datistemplate"
    );
    let answers = center.fetch_answers(sql).await?;
    Ok(match answers.iter().flatten().next() {
        Some(row) => BaseTemplate { name: TEMPLATE, mark: Some(text_column(row, 0)?) },
        None => BaseTemplate { name: UNPREPARED, mark: None },
    })
}

/// Prepares the template, if the maintenance role may do that and this program's rights are not set yet.
pub(super) async fn prepare_base_template(site: &PostgresServerState, center: &mut AdminConnection) -> Result<()> {
    if !is_some(center, "select 1 from pg_roles where rolname = current_user and rolsuper").await?
        || is_current(&base_template(center).await?)
    {
        return Ok(());
    }
    center.run_sql(format!("select pg_advisory_lock({PREPARE_LOCK})")).await?;
    let made = make_base_template(site, center).await;
    center.run_sql(format!("select pg_advisory_unlock({PREPARE_LOCK})")).await?;
    made
}

async fn make_base_template(site: &PostgresServerState, center: &mut AdminConnection) -> Result<()> {
    if is_current(&base_template(center).await?) {
        return Ok(());
    }
    if !is_some(center, &format!("select 1 from pg_database where datname = '{TEMPLATE}'")).await? {
        center.run_sql(format!("create database {TEMPLATE} template template0 encoding 'UTF8'")).await?;
    }
    center.run_sql(format!("revoke all on database {TEMPLATE} from public")).await?;
    center.run_sql(format!("alter database {TEMPLATE} with allow_connections true")).await?;
    let mut work = site.open_connection(TEMPLATE).await?;
    work.run_sql(rights_sql(&site.server.server_dsn().user_name())).await?;
    work.close().await;
    let mark = sql_literal(&rights_mark());
    center.run_sql(format!("comment on database {TEMPLATE} is {mark}")).await?;
    center.run_sql(format!("alter database {TEMPLATE} with is_template true")).await
}

fn is_current(base: &BaseTemplate) -> bool {
    base.mark.as_ref().is_some_and(|found| found.ends_with(&rights_mark()))
}

/// Reports which protections a server has; checks its oldest databases.
pub(in crate::postgres) async fn function_rights(
    site: &PostgresServerState,
    center: &mut AdminConnection,
) -> Result<FunctionRights> {
    let base = base_template(center).await?;
    if base.mark.is_none() {
        return Ok(FunctionRights::Granted);
    }
    if !is_current(&base) {
        return Ok(FunctionRights::Outdated);
    }
    let sql = format!("select datname from pg_database where {TENANTS} order by oid limit {LOOKED_MAX}");
    for row in center.fetch_answers(sql).await?.iter().flatten() {
        let mut inside = site.open_connection(&text_column(row, 0)?).await?;
        let open = is_some(&mut inside, IS_OPEN).await?;
        inside.close().await;
        if open {
            return Ok(FunctionRights::RevokedInNew);
        }
    }
    Ok(FunctionRights::Revoked)
}

/// One function represents all, because they lose their rights together.
const IS_OPEN: &str = "select 1 from pg_proc where oid = 'pg_catalog.pg_lock_status()'::regprocedure
    and (proacl is null or exists (select from aclexplode(proacl) where grantee = 0))";

async fn is_some(work: &mut AdminConnection, question: &str) -> Result<bool> {
    Ok(work.fetch_answers(question).await?.iter().any(|rows| !rows.is_empty()))
}
