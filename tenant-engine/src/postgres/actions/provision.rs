//! Implements [`crate::Engine::provision_database`]: copies the template, creates its two logins, and writes the
//! identity last.
//!
//! It needs two round trips on a reused connection to the maintenance database, and one connection to the new database.
//! A database without an identity belongs to no tenant: one that an earlier call left behind is dropped and created
//! again.

use super::template;
use crate::engine::DatabaseTemplate;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::placement::Placement;
use crate::postgres::error::AdminConnectionError;
use crate::postgres::servers::database::{self, DatabaseCreation, PlacementContents};
use crate::postgres::servers::prepare;
use crate::postgres::servers::server_state::PostgresServerState;
use crate::postgres::{PostgresEngine, identity};

/// See [`crate::Engine::provision_database`].
pub(in crate::postgres) async fn provision_database(
    engine: &PostgresEngine,
    at: &Placement,
    template: &DatabaseTemplate,
    identity: &Identity,
) -> Result<()> {
    let (site, database) = engine.locate_placement(at)?;
    let _slot = site.take_slot().await?;
    prepare::ensure_roles(&site).await?;
    if copy_template(&site, database, &template.digest).await? == DatabaseCreation::Before {
        match database::inspect_placement(&site, database).await? {
            PlacementContents::Finished(found, work) => {
                work.close().await;
                return is_the_same(at, &found, identity);
            }
            PlacementContents::Unfinished | PlacementContents::Nothing => {
                database::remove_database(&site, database).await?
            }
        }
        copy_template(&site, database, &template.digest).await?;
    }
    stamp_new_database(&site, database, identity).await
}

/// Makes a copy that is open to its logins, unless a database of this name exists.
async fn copy_template(site: &PostgresServerState, database: &str, digest: &str) -> Result<DatabaseCreation> {
    let name = template::template_name(&site.server, digest);
    let mut center = site.maintenance_connection().await?;
    let made = match database::create_copy(&mut center, database, &name).await {
        Err(why) => {
            cure_failure(site, why, digest).await?;
            database::create_copy(&mut center, database, &name).await.map_err(AdminConnectionError::into_ours)?
        }
        Ok(made) => made,
    };
    if made == DatabaseCreation::Now {
        database::open_to_logins(site, &mut center, database).await?;
    }
    site.return_connection(center);
    Ok(made)
}

/// Removes the cause of a failure so that a second attempt can succeed: the template was dropped, or a session uses it.
async fn cure_failure(site: &PostgresServerState, why: AdminConnectionError, digest: &str) -> Result<()> {
    match why.sqlstate_code().as_str() {
        "3D000" => template::make_again(site, digest).await,
        "55006" => {
            let mut center = site.maintenance_connection().await?;
            template::seal_template(&mut center, &template::template_name(&site.server, digest)).await?;
            site.return_connection(center);
            Ok(())
        }
        _ => Err(why.into_ours()),
    }
}

/// Writes the identity. It finishes the database and makes it durable with everything before.
pub(super) async fn stamp_new_database(site: &PostgresServerState, database: &str, identity: &Identity) -> Result<()> {
    let mut work = site.open_connection(database).await?;
    work.run_sql(identity::write_identity(identity)).await?;
    work.close().await;
    Ok(())
}

/// Accepts the database that an earlier call of the same step made.
pub(super) fn is_the_same(at: &Placement, found: &Identity, wanted: &Identity) -> Result<()> {
    if found.same_as(wanted) {
        return Ok(());
    }
    let message = format!(
        "{at} is taken: a database of {} at generation {} and {} is there",
        found.tenant, found.generation, found.state
    );
    Err(Error::new(ErrorKind::AlreadyExists, message))
}
