//! Implements [`crate::Engine::preparation_script`]: the script with which an administrator prepares a server, when its
//! maintenance role is not a superuser. `servers/rights.rs` says what the script protects.

use crate::error::Result;
use crate::postgres::PostgresEngine;
use crate::postgres::servers::rights::{TEMPLATE, TENANTS, rights_mark, rights_sql};
use crate::postgres::sql::{quoted_name, sql_literal, text_column};
use crate::server::DatabaseServer;

/// Maximum databases in a script; a server with more needs the script again.
const SCRIPT_DATABASES_MAX: usize = 10_000;

/// The script that a superuser runs with psql: it prepares the template and the existing databases.
fn superuser_script(role: &str, center: &str, databases: &[String]) -> String {
    let (template, mark, body) = (quoted_name(TEMPLATE), sql_literal(&rights_mark()), rights_sql(role));
    let there: String =
        databases.iter().map(|database| format!("\\connect {}\n:rights\n", quoted_name(database))).collect();
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
        center = quoted_name(center),
    )
}

/// See [`crate::Engine::preparation_script`].
pub(in crate::postgres) async fn preparation_script(engine: &PostgresEngine, on: &DatabaseServer) -> Result<String> {
    let site = engine.state_of_server(on)?;
    let mut center = site.maintenance_connection().await?;
    let sql = format!("select datname from pg_database where {TENANTS} order by oid limit {SCRIPT_DATABASES_MAX}");
    let answers = center.fetch_answers(sql).await?;
    let databases = answers.iter().flatten().map(|row| text_column(row, 0)).collect::<Result<Vec<_>>>()?;
    site.return_connection(center);
    let dsn = site.server.server_dsn();
    Ok(superuser_script(&dsn.user_name(), &dsn.database_name(), &databases))
}
