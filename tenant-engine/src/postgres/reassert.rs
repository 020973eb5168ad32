//! The password and the settings of a database's two logins, given again.
//!
//! A login may change both of itself: a function of the application may run `alter role current_user`, and tenants' SQL
//! may call that function. Settings do not matter to requests, which give their own at each connect. A password does:
//! the pools could not come in, and somebody could, past `sandbox.rs`. Run by every stamp and every migration, and when
//! the server refuses a login's password.

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};

use super::error::{from_connect, from_ours};
use super::logins::login;
use super::server::PostgresServer;
use super::sql::{literal, quoted};
use crate::error::Result;
use crate::pool::Access;

/// What [`statements`] needs before `begin`, in a block of PL/pgSQL.
pub(super) const DECLARATIONS: &str = "changed record;";

/// What one session of a tenant may hold in temporary files: a sort must not fill the disk of all. A setting of the login,
/// because only a superuser, or a role with the right to this parameter, may set it.
const TEMP_FILES: &str = "temp_file_limit=4GB";

/// For the body of a block: bounds the temporary files of a login where the maintenance role may do that.
pub(super) fn bound_temp_files(login: &str) -> String {
    let (name, text) = (quoted(login), literal(login));
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

/// For the body of a block. A database that has no logins yet, or a template, has nothing to give again.
pub(super) fn statements(server: &PostgresServer, database: &str) -> String {
    let password = |access| {
        let login = login(database, access);
        let (name, text, verifier) = (quoted(&login), literal(&login), literal(&server.verifier(&login)));
        format!(
            "if exists (select from pg_roles where rolname = {text}) then
               alter role {name} password {verifier};
             end if;"
        )
    };
    let limits = [Access::Read, Access::Write].map(|access| bound_temp_files(&login(database, access))).concat();
    let [read, write] = [Access::Read, Access::Write].map(|access| literal(&login(database, access)));
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
        password(Access::Read),
        password(Access::Write),
    )
}

/// The same as one statement.
pub(super) fn block(server: &PostgresServer, database: &str) -> String {
    format!("do $fleet$ declare {DECLARATIONS} begin {} end $fleet$;", statements(server, database))
}

/// Gives them again over a connection of its own.
///
/// # Errors
/// The server's.
pub(super) async fn now(server: &PostgresServer, database: &str) -> Result<()> {
    let options = server.maintenance(&server.dsn().database()).disable_statement_logging();
    let mut center = options.connect().await.map_err(from_connect)?;
    let done = sqlx::raw_sql(AssertSqlSafe(block(server, database))).execute(&mut center).await;
    let _ = center.close().await;
    done.map(drop).map_err(from_ours)
}
