//! The verb `drop_database`: the database with everybody in it, then its two logins.

use super::{PostgresEngine, database, identity};
use crate::error::{ErrorKind, Result};
use crate::identity::Expected;
use crate::placement::Placement;

/// See [`crate::Engine::drop_database`].
pub(super) async fn drop_database(engine: &PostgresEngine, at: &Placement, expected: Option<&Expected>) -> Result<()> {
    let (site, name) = engine.site(at)?;
    let _slot = site.slot().await?;
    if let Some(expected) = expected {
        match site.enter(name).await {
            Ok(mut work) => {
                identity::check(work.connection(), expected).await?;
                work.close().await;
            }
            // Already gone; its logins may not be.
            Err(error) if error.kind() == ErrorKind::Missing => {}
            Err(error) => return Err(error),
        }
    }
    database::remove(&site, name).await
}
