//! Sets the password and the settings of a database's two logins again.
//!
//! A login may change both for itself: a function of the application may run `alter role current_user`, and tenants'
//! SQL may call that function. Settings do not affect requests, which set their own at each connect. A changed password
//! does: the pools could not connect, and an attacker could connect without the checks of `requests/sandbox.rs`. Called
//! by every stamp and every migration, and when the server refuses a login's password.

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::logins::login_name;
use super::server::PostgresServer;
use crate::error::Result;
use crate::postgres::error::{from_connect, from_ours};
use crate::postgres::sql::{quoted_name, sql_literal};
use crate::statement::AccessMode;

/// Variables that [`reassert_sql`] needs before `begin`, in a block of PL/pgSQL.
pub(super) const DECLARATIONS: &str = "changed record;";

/// The temporary files that one session of a tenant may hold: a sort must not fill the shared disk. It is a setting of
/// the login, because only a superuser, or a role with the right to this parameter, may set it.
const TEMP_FILES: &str = "temp_file_limit=4GB";

/// SQL for the body of a block: limits the temporary files of a login, where the maintenance role may do that.
pub(super) fn bound_temp_files(login: &str) -> String {
    let (name, text) = (quoted_name(login), sql_literal(login));
    let (parameter, value) = TEMP_FILES.split_once('=').expect("it has a value");
    format!(
        "if has_parameter_privilege('{parameter}', 'set')
             and exists (select from pg_roles where rolname = {text})
             and not exists (select from pg_db_role_setting s join pg_roles r on r.oid = s.setrole
               where r.rolname = {text} and s.setdatabase = 0 and s.setconfig @> array['{TEMP_FILES}']) then
           alter role {name} set {parameter} = '{value}';
         end if;
         "
    )
}

/// SQL for the body of a block. It changes nothing for a database without logins, or for a template.
pub(super) fn reassert_sql(server: &PostgresServer, database: &str) -> String {
    let password = |access| {
        let login = login_name(database, access);
        let (name, text, verifier) =
            (quoted_name(&login), sql_literal(&login), sql_literal(&server.login_verifier(&login)));
        format!(
            "if exists (select from pg_roles where rolname = {text}) then
               alter role {name} password {verifier};
             end if;"
        )
    };
    let limits =
        [AccessMode::Read, AccessMode::Write].map(|access| bound_temp_files(&login_name(database, access))).concat();
    let [read, write] = [AccessMode::Read, AccessMode::Write].map(|access| sql_literal(&login_name(database, access)));
    format!(
        "{}{}
         for changed in
           select r.rolname, d.datname from pg_db_role_setting s join pg_roles r on r.oid = s.setrole
           left join pg_database d on d.oid = s.setdatabase
           where r.rolname in ({read}, {write}) and (s.setdatabase <> 0
             or r.rolname = {write} and s.setconfig <> array['{TEMP_FILES}']
             or r.rolname = {read} and s.setconfig <> array['default_transaction_read_only=on']
               and s.setconfig <> array['default_transaction_read_only=on', '{TEMP_FILES}'])
         loop
           if changed.datname is not null then
             execute format('alter role %I in database %I reset all', changed.rolname, changed.datname);
           else
             execute format('alter role %I reset all', changed.rolname);
             if changed.rolname = {read} then
               execute format('alter role %I set default_transaction_read_only = on', changed.rolname);
             end if;
           end if;
         end loop;
         {limits}",
        password(AccessMode::Read),
        password(AccessMode::Write),
    )
}

/// The SQL of [`reassert_sql`] as one statement.
pub(in crate::postgres) fn reassert_block(server: &PostgresServer, database: &str) -> String {
    format!("do $fleet$ declare {DECLARATIONS} begin {} end $fleet$;", reassert_sql(server, database))
}

/// Sets them again over a separate connection.
///
/// # Errors
/// The errors of the server.
pub(in crate::postgres) async fn reassert_now(server: &PostgresServer, database: &str) -> Result<()> {
    let options = server.maintenance_options(&server.server_dsn().database_name()).disable_statement_logging();
    let mut center = options.connect().await.map_err(from_connect)?;
    let done = sqlx::raw_sql(AssertSqlSafe(reassert_block(server, database))).execute(&mut center).await;
    let _ = center.close().await;
    done.map(drop).map_err(from_ours)
}
