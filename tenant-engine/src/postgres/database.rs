//! Databases as the server counts them: making one that nobody can enter, opening it to its own two logins, seeing what
//! is at a placement, removing it with its logins.
//!
//! The order is the fence: until the transaction that takes the rights from PUBLIC has committed, a new database
//! accepts no connection at all, so no other tenant's login can slip in and stay.

use std::time::Duration;

use super::locale::Locale;
use super::logins::{login, migrator};
use super::prepare::{OWNER, READ, WRITE};
use super::site::Site;
use super::sql::{literal, quoted, text};
use super::work::{Why, Work};
use super::{identity, reassert, rights, sessions};
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::pool::Access;

/// Between attempts to drop a database that somebody is just entering or copying.
const DROP_PAUSE: Duration = Duration::from_millis(200);
const DROP_ATTEMPTS: u32 = 10;

/// Whether a database was made now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Now,
    Before,
}

/// Makes a copy of a template that accepts no connections yet.
pub(super) async fn create(center: &mut Work, database: &str, template: &str) -> Result<Made, Why> {
    create_with(center, database, template, "").await
}

/// Makes an empty database with the text order of another one, which accepts no connections yet.
///
/// # Errors
/// [`ErrorKind::NotRestorable`] when this server does not have that locale.
pub(super) async fn create_like(center: &mut Work, database: &str, locale: &Locale) -> Result<Made> {
    let base = rights::base(center).await?;
    let made = match create_with(center, database, base.name, locale.options()).await {
        // Only the server's own template may be copied with another locale.
        Err(why) if base.mark.is_some() && why.code() == "22023" => {
            create_with(center, database, "template0", locale.options()).await
        }
        made => made,
    };
    made.map_err(|why| {
        // invalid_parameter_value, wrong_object_type, feature_not_supported, undefined_object
        let of_locale =
            !locale.options().is_empty() && matches!(why.code().as_str(), "22023" | "42809" | "0A000" | "42704");
        let error = why.into_ours();
        match of_locale {
            true => {
                let options = locale.options();
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

async fn create_with(center: &mut Work, database: &str, template: &str, options: &str) -> Result<Made, Why> {
    let (name, template) = (quoted(database), quoted(template));
    let sql = format!("create database {name} template {template} encoding 'UTF8'{options} allow_connections false");
    match center.try_answers(sql).await {
        Ok(_) => Ok(Made::Now),
        // The second: the server was still making it, for a process that died meanwhile perhaps.
        Err(why) if matches!(why.code().as_str(), "42P04" | "23505") => Ok(Made::Before),
        Err(why) => Err(why),
    }
}

/// Makes the logins, gives and takes every right on the database, and lets connections in: one transaction. It needs
/// no flush of its own, because the identity, without which the database is nothing, is committed after it.
pub(super) async fn open(site: &Site, center: &mut Work, database: &str) -> Result<()> {
    let name = quoted(database);
    let [read, write] = [Access::Read, Access::Write].map(|access| login(database, access));
    let [read_verifier, write_verifier] = [&read, &write].map(|login| literal(&site.server.verifier(login)));
    let limits = [&read, &write].map(|login| reassert::bound_temp_files(login)).concat();
    let (read, write) = (quoted(&read), quoted(&write));
    center
        .run(format!(
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

/// What is at a placement.
pub(super) enum Found {
    Nothing,
    /// What a process left that died before the identity was in it; nobody's data.
    Unfinished,
    /// A finished database, with the connection that looked.
    Finished(Identity, Work),
}

/// Looks.
///
/// # Errors
/// [`ErrorKind::Busy`] when somebody closed a finished database to connections: it is not ours to judge then.
pub(super) async fn look(site: &Site, database: &str) -> Result<Found> {
    let mut center = site.center().await?;
    let sql = format!(
        "select datallowconn::text, (datacl is null)::text from pg_database where datname = {}",
        literal(database)
    );
    let answers = center.answers(sql).await?;
    site.leave(center);
    let Some(row) = answers.first().and_then(|rows| rows.first()) else { return Ok(Found::Nothing) };
    match (text(row, 0)?.as_str(), text(row, 1)?.as_str()) {
        // The rights and the permission to enter come in one transaction: this one never had it.
        ("false", "true") => Ok(Found::Unfinished),
        ("false", _) => Err(Error::new(ErrorKind::Busy, "somebody closed the database to connections")),
        _ => enter(site, database).await,
    }
}

async fn enter(site: &Site, database: &str) -> Result<Found> {
    let mut work = match site.enter(database).await {
        Err(error) if error.kind() == ErrorKind::Missing => return Ok(Found::Nothing),
        work => work?,
    };
    match identity::read(work.connection()).await {
        Ok(found) => Ok(Found::Finished(found, work)),
        Err(error) if error.kind() == ErrorKind::Missing => {
            work.close().await;
            Ok(Found::Unfinished)
        }
        Err(error) => Err(error),
    }
}

/// Removes the database, whoever is in it, and then its logins; what is missing is fine.
pub(super) async fn remove(site: &Site, database: &str) -> Result<()> {
    let mut center = site.center().await?;
    let drop = format!("drop database if exists {} with (force)", quoted(database));
    let mut attempt = 1;
    while let Err(why) = center.try_answers(drop.clone()).await {
        // Logins' sessions may be ended only by their members; and a dump or a copy may be in it for a moment.
        if !matches!(why.code().as_str(), "42501" | "55006") || attempt == DROP_ATTEMPTS {
            return Err(why.into_ours());
        }
        attempt += 1;
        sessions::lock_out(&mut center, database).await?;
        tokio::time::sleep(DROP_PAUSE).await;
    }
    let [read, write] = [Access::Read, Access::Write].map(|access| quoted(&login(database, access)));
    let migrator = quoted(&migrator(database));
    center.run(format!("drop role if exists {read}, {write}, {migrator}")).await?;
    site.leave(center);
    Ok(())
}
