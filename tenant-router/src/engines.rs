//! The engines that this program was built with: one for each of the crate's features `sqlite` and `postgres`.

use std::path::Path;

use crate::builder::RouterBuilder;
use crate::error::Result;

#[cfg(not(any(feature = "sqlite", feature = "postgres")))]
compile_error!("tenant-router needs an engine: enable the feature `sqlite`, `postgres`, or both");

/// Adds each engine with its default settings and this directory for temporary files.
pub(crate) fn add_engines(builder: RouterBuilder, scratch: &Path) -> Result<RouterBuilder> {
    #[cfg(feature = "sqlite")]
    let builder = add_sqlite(builder, scratch)?;
    #[cfg(feature = "postgres")]
    let builder = add_postgres(builder, scratch);
    Ok(builder)
}

#[cfg(feature = "sqlite")]
fn add_sqlite(builder: RouterBuilder, scratch: &Path) -> Result<RouterBuilder> {
    use crate::error::{Error, ErrorKind};
    use tenant_engine::sqlite::{SqliteEngine, SqliteOptions};

    let engine = SqliteEngine::new(SqliteOptions::new(scratch));
    let engine = engine.map_err(|error| Error::new(ErrorKind::Misconfigured).with_source(error))?;
    Ok(builder.engine(std::sync::Arc::new(engine)))
}

#[cfg(feature = "postgres")]
fn add_postgres(builder: RouterBuilder, scratch: &Path) -> RouterBuilder {
    use tenant_engine::postgres::{PostgresEngine, PostgresOptions};

    builder.engine(std::sync::Arc::new(PostgresEngine::new(PostgresOptions::new(scratch))))
}
