//! Makes the fleet's own tables (`crate::own_tables`) in a tenant's database.
//!
//! They belong to the maintenance role, as the identity does, so no migration can drop or change them. The group roles of
//! requests have the rights that the fleet's code needs; the sandbox refuses tenant SQL that names them.

use std::sync::Arc;
use std::time::Duration;

use super::admin_connection::{AdminConnection, WaitLimits};
use super::prepare::{OWNER, READ, SERVER_LOCK, WRITE};
use super::server::PostgresServer;
use crate::error::Result;
use crate::identity::ExpectedIdentity;
use crate::own_tables::{own_table_names, postgres_definition};
use crate::postgres::identity;

/// A lock of its own, different from the locks of the roles, of the templates and of the rights.
const TABLES_LOCK: i64 = SERVER_LOCK + 3;
/// A request waits for the tables, once in the life of a database.
const WAIT_MAX: WaitLimits = WaitLimits { lock: Duration::from_secs(2), statement: Duration::from_secs(5) };

/// SQL that makes the missing tables, with the rights on them. May run again. Run it inside a transaction.
pub(in crate::postgres) fn own_tables_sql() -> String {
    let make_missing = own_table_names().map(|name| {
        let definition = postgres_definition(name);
        format!(
            "if to_regclass('public.{name}') is null then
               {definition}
               grant select on public.{name} to {READ};
               grant select, insert on public.{name} to {OWNER};
               grant select, insert, update, delete on public.{name} to {WRITE};
             end if;"
        )
    });
    let make_missing: String = make_missing.collect();
    format!("select pg_advisory_xact_lock({TABLES_LOCK}); do $fleet$ begin {make_missing} end $fleet$;")
}

/// Makes the missing tables in a tenant's database, if it is the expected one. May run again, also in several processes at
/// once.
///
/// # Errors
/// Those of a connection; those of [`ExpectedIdentity::check_identity`].
pub(in crate::postgres) async fn make_own_tables(
    server: &Arc<PostgresServer>,
    database: &str,
    expected: &ExpectedIdentity,
) -> Result<()> {
    let mut work = AdminConnection::as_maintenance(server, WAIT_MAX, database).await?;
    identity::check_identity(work.driver_connection(), expected).await?;
    work.run_sql(format!("begin; {} commit;", own_tables_sql())).await?;
    work.close().await;
    Ok(())
}
