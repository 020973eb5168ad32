//! The verb `provision`: a copy of the template, its two logins, and the identity last.
//!
//! Two round trips on a connection to the maintenance database that is kept, one connection to the new database.
//! Without its identity a database is nobody's: what an earlier call left without one is dropped and made again.

use super::database::{self, Found, Made};
use super::host::Host;
use super::work::Why;
use super::{PostgresEngine, identity, prepare, template};
use crate::engine::Template;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Identity;
use crate::placement::Placement;

/// See [`crate::Engine::provision`].
pub(super) async fn provision(
    engine: &PostgresEngine,
    at: &Placement,
    template: &Template,
    identity: &Identity,
) -> Result<()> {
    let (host, database) = engine.host(at)?;
    let _slot = host.slot().await?;
    prepare::ensure(&host).await?;
    if copy(&host, database, &template.digest).await? == Made::Before {
        match database::look(&host, database).await? {
            Found::Finished(found, work) => {
                work.close().await;
                return is_the_same(at, &found, identity);
            }
            Found::Unfinished | Found::Nothing => database::remove(&host, database).await?,
        }
        copy(&host, database, &template.digest).await?;
    }
    stamp(&host, database, identity).await
}

/// A copy that is open to its logins, unless a database of this name is there.
async fn copy(host: &Host, database: &str, digest: &str) -> Result<Made> {
    let name = template::name(digest);
    let mut center = host.center().await?;
    let made = match database::create(&mut center, database, &name).await {
        Err(why) => {
            cure(host, why, digest).await?;
            database::create(&mut center, database, &name).await.map_err(Why::into_ours)?
        }
        Ok(made) => made,
    };
    if made == Made::Now {
        database::open(host, &mut center, database).await?;
    }
    host.leave(center);
    Ok(made)
}

/// Makes a second attempt worth it: somebody dropped the template, or is in it.
async fn cure(host: &Host, why: Why, digest: &str) -> Result<()> {
    match why.code().as_str() {
        "3D000" => template::make_again(host, digest).await,
        "55006" => {
            let mut center = host.center().await?;
            template::seal(&mut center, &template::name(digest)).await?;
            host.leave(center);
            Ok(())
        }
        _ => Err(why.into_ours()),
    }
}

/// Writes the identity; with it the database is finished, and durable with everything before.
pub(super) async fn stamp(host: &Host, database: &str, identity: &Identity) -> Result<()> {
    let mut work = host.enter(database).await?;
    work.run(identity::write(identity)).await?;
    work.close().await;
    Ok(())
}

/// A repeated call finds its own database.
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
