//! Databases on a server: creates a closed database, opens it to its own two logins, inspects a placement, and removes
//! a database with its logins.
//!
//! The order keeps other tenants out. A new database accepts no connection until the transaction that revokes the
//! rights of PUBLIC has committed. So no other tenant's login can connect early and stay.

use std::time::Duration;

use super::admin_connection::AdminConnection;
use super::locale::DatabaseLocale;
use super::logins::{login_name, migrator_login};
use super::prepare::{OWNER, READ, WRITE};
use super::server_state::PostgresServerState;
use super::{reassert, rights, sessions};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::postgres::error::AdminConnectionError;
use crate::postgres::identity;
use crate::postgres::sql::{quoted_name, sql_literal, text_column};
use crate::statement::AccessMode;

/// Pause between attempts to drop a database while another session connects to it or copies it.
const DROP_PAUSE: Duration = Duration::from_millis(200);
const DROP_ATTEMPTS: u32 = 10;

/// Whether a call created the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::postgres) enum DatabaseCreation {
    Now,
    Before,
}

/// Creates a copy of a template; the copy accepts no connections yet.
pub(in crate::postgres) async fn create_copy(
    center: &mut AdminConnection,
    database: &str,
    template: &str,
) -> Result<DatabaseCreation, AdminConnectionError> {
    create_with(center, database, template, "").await
}

/// Creates an empty database with the text order of another one; it accepts no connections yet.
///
/// # Errors
/// [`ErrorKind::NotRestorable`] when this server does not have that locale.
pub(in crate::postgres) async fn create_like(
    center: &mut AdminConnection,
    database: &str,
    locale: &DatabaseLocale,
) -> Result<DatabaseCreation> {
    let base = rights::base_template(center).await?;
    let made = match create_with(center, database, base.name, locale.create_options()).await {
        // PostgreSQL allows another locale only for copies of its own template.
        Err(why) if base.mark.is_some() && why.sqlstate_code() == "22023" => {
            create_with(center, database, "template0", locale.create_options()).await
        }
        made => made,
    };
    made.map_err(|why| {
        // invalid_parameter_value, wrong_object_type, feature_not_supported, undefined_object
        let of_locale = !locale.create_options().is_empty()
            && matches!(why.sqlstate_code().as_str(), "22023" | "42809" | "0A000" | "42704");
        let error = why.into_ours();
        match of_locale {
            true => {
                let options = locale.create_options();
                let message = format!(
                    "the server cannot make a database with{options}: {}; install that locale on it",
                    error.message()
                );
                Error::new(ErrorKind::NotRestorable, message).with_source(error)
            }
            false => error,
        }
    })
}

async fn create_with(
    center: &mut AdminConnection,
    database: &str,
    template: &str,
    options: &str,
) -> Result<DatabaseCreation, AdminConnectionError> {
    let (name, template) = (quoted_name(database), quoted_name(template));
    let sql = format!("create database {name} template {template} encoding 'UTF8'{options} allow_connections false");
    match center.try_answers(sql).await {
        Ok(_) => Ok(DatabaseCreation::Now),
        // 23505: the server was still creating it, perhaps for a process that died meanwhile.
        Err(why) if matches!(why.sqlstate_code().as_str(), "42P04" | "23505") => Ok(DatabaseCreation::Before),
        Err(why) => Err(why),
    }
}

/// Creates the logins, grants and revokes every right on the database, and allows connections, all in one transaction.
/// The transaction needs no flush of its own: the identity is committed after it, and without an identity the database
/// counts as unfinished.
pub(in crate::postgres) async fn open_to_logins(
    site: &PostgresServerState,
    center: &mut AdminConnection,
    database: &str,
) -> Result<()> {
    let name = quoted_name(database);
    let [read, write] = [AccessMode::Read, AccessMode::Write].map(|access| login_name(database, access));
    let [read_verifier, write_verifier] = [&read, &write].map(|login| sql_literal(&site.server.login_verifier(login)));
    let limits = [&read, &write].map(|login| reassert::bound_temp_files(login)).concat();
    let (read, write) = (quoted_name(&read), quoted_name(&write));
    center
        .run_sql(format!(
            "begin;
             set local synchronous_commit = off;
             revoke all on database {name} from public;
             drop role if exists {read}, {write};
             create role {read} login inherit password {read_verifier} in role {READ};
             create role {write} login inherit password {write_verifier} in role {WRITE};
             alter role {read} set default_transaction_read_only = on;
             do $fleet$ begin {limits} end $fleet$;
             grant connect on database {name} to {read}, {write};
             grant create, temporary on database {name} to {OWNER};
             alter database {name} with allow_connections true;
             commit;"
        ))
        .await
}

/// The state of a placement.
pub(in crate::postgres) enum PlacementContents {
    Nothing,
    /// Left by a process that died before it wrote the identity; holds no tenant's data.
    Unfinished,
    /// A finished database, with the connection that inspected it.
    Finished(Identity, AdminConnection),
}

/// Inspects a placement.
///
/// # Errors
/// [`ErrorKind::Busy`] when a finished database was closed to connections by someone else; its identity cannot be read
/// then.
pub(in crate::postgres) async fn inspect_placement(
    site: &PostgresServerState,
    database: &str,
) -> Result<PlacementContents> {
    let mut center = site.maintenance_connection().await?;
    let sql = format!(
        "select datallowconn::text, (datacl is null)::text from pg_database where datname = {}",
        sql_literal(database)
    );
    let answers = center.fetch_answers(sql).await?;
    site.return_connection(center);
    let Some(row) = answers.first().and_then(|rows| rows.first()) else { return Ok(PlacementContents::Nothing) };
    match (text_column(row, 0)?.as_str(), text_column(row, 1)?.as_str()) {
        // Rights and permission to connect are set in one transaction, so this database was never opened.
        ("false", "true") => Ok(PlacementContents::Unfinished),
        ("false", _) => Err(Error::new(ErrorKind::Busy, "the database was closed to connections")),
        _ => enter_database(site, database).await,
    }
}

async fn enter_database(site: &PostgresServerState, database: &str) -> Result<PlacementContents> {
    let mut work = match site.open_connection(database).await {
        Err(error) if error.kind() == ErrorKind::Missing => return Ok(PlacementContents::Nothing),
        work => work?,
    };
    match identity::read_identity(work.driver_connection()).await {
        Ok(found) => Ok(PlacementContents::Finished(found, work)),
        Err(error) if error.kind() == ErrorKind::Missing => {
            work.close().await;
            Ok(PlacementContents::Unfinished)
        }
        Err(error) => Err(error),
    }
}

/// Removes the database, even while sessions use it, and then its logins. Missing ones are a success.
pub(in crate::postgres) async fn remove_database(site: &PostgresServerState, database: &str) -> Result<()> {
    let mut center = site.maintenance_connection().await?;
    let drop = format!("drop database if exists {} with (force)", quoted_name(database));
    let mut attempt = 1;
    while let Err(why) = center.try_answers(drop.clone()).await {
        // Only members of a login may end its sessions. A dump or a copy may also use the database for a moment.
        if !matches!(why.sqlstate_code().as_str(), "42501" | "55006") || attempt == DROP_ATTEMPTS {
            return Err(why.into_ours());
        }
        attempt += 1;
        sessions::lock_out(&mut center, database).await?;
        tokio::time::sleep(DROP_PAUSE).await;
    }
    let [read, write] = [AccessMode::Read, AccessMode::Write].map(|access| quoted_name(&login_name(database, access)));
    let migrator = quoted_name(&migrator_login(database));
    center.run_sql(format!("drop role if exists {read}, {write}, {migrator}")).await?;
    site.return_connection(center);
    Ok(())
}
