//! The engines that this program was built with: one for each of the crate's features `sqlite` and `postgres`.

use std::path::Path;
use std::sync::Arc;

use crate::builder::RouterBuilder;
use crate::error::{Error, ErrorKind, Result};

/// Adds each engine with its default settings and this directory for temporary files.
pub(crate) fn add_engines(mut builder: RouterBuilder, scratch: &Path) -> Result<RouterBuilder> {
    #[cfg(feature = "sqlite")]
    {
        let options = tenant_engine::sqlite::SqliteOptions::new(scratch);
        let engine = tenant_engine::sqlite::SqliteEngine::new(options)
            .map_err(|error| Error::new(ErrorKind::Misconfigured).with_source(error))?;
        builder = builder.engine(Arc::new(engine));
    }
    #[cfg(feature = "postgres")]
    {
        let options = tenant_engine::postgres::PostgresOptions::new(scratch);
        builder = builder.engine(Arc::new(tenant_engine::postgres::PostgresEngine::new(options)));
    }
    Ok(builder)
}
