//! The verb `provision`: a copy of the template, its two logins, and the identity last.
//!
//! Two round trips on a connection to the maintenance database that is kept, one connection to the new database.
//! Without its identity a database is nobody's: what an earlier call left without one is dropped and made again.

use super::database::{self, Found, Made};
use super::site::Site;
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
    let (site, database) = engine.site(at)?;
    let _slot = site.slot().await?;
    prepare::ensure(&site).await?;
    if copy(&site, database, &template.digest).await? == Made::Before {
        match database::look(&site, database).await? {
            Found::Finished(found, work) => {
                work.close().await;
                return is_the_same(at, &found, identity);
            }
            Found::Unfinished | Found::Nothing => database::remove(&site, database).await?,
        }
        copy(&site, database, &template.digest).await?;
    }
    stamp(&site, database, identity).await
}

/// A copy that is open to its logins, unless a database of this name is there.
async fn copy(site: &Site, database: &str, digest: &str) -> Result<Made> {
    let name = template::name(digest);
    let mut center = site.center().await?;
    let made = match database::create(&mut center, database, &name).await {
        Err(why) => {
            cure(site, why, digest).await?;
            database::create(&mut center, database, &name).await.map_err(Why::into_ours)?
        }
        Ok(made) => made,
    };
    if made == Made::Now {
        database::open(site, &mut center, database).await?;
    }
    site.leave(center);
    Ok(made)
}

/// Makes a second attempt worth it: somebody dropped the template, or is in it.
async fn cure(site: &Site, why: Why, digest: &str) -> Result<()> {
    match why.code().as_str() {
        "3D000" => template::make_again(site, digest).await,
        "55006" => {
            let mut center = site.center().await?;
            template::seal(&mut center, &template::name(digest)).await?;
            site.leave(center);
            Ok(())
        }
        _ => Err(why.into_ours()),
    }
}

/// Writes the identity; with it the database is finished, and durable with everything before.
pub(super) async fn stamp(site: &Site, database: &str, identity: &Identity) -> Result<()> {
    let mut work = site.enter(database).await?;
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
