//! Implements [`crate::Engine::drop_database`]: drops the database even while sessions use it, then its two logins.

use crate::error::{ErrorKind, Result};
use crate::identity::ExpectedIdentity;
use crate::placement::Placement;
use crate::postgres::servers::database;
use crate::postgres::{PostgresEngine, identity};

/// See [`crate::Engine::drop_database`].
pub(in crate::postgres) async fn drop_database(
    engine: &PostgresEngine,
    at: &Placement,
    expected: Option<&ExpectedIdentity>,
) -> Result<()> {
    let (site, name) = engine.locate_placement(at)?;
    let _slot = site.take_slot().await?;
    if let Some(expected) = expected {
        match site.open_connection(name).await {
            Ok(mut work) => {
                identity::check_identity(work.driver_connection(), expected).await?;
                work.close().await;
            }
            // The database is already gone, but its logins may still exist.
            Err(error) if error.kind() == ErrorKind::Missing => {}
            Err(error) => return Err(error),
        }
    }
    database::remove_database(&site, name).await
}
