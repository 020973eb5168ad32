//! The tenant a request names, opened for the caller it proves, at the level its statements need.

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use tenant_engine::{ErrorKind as DatabaseError, Rows, Statement};
use tenant_router::{ErrorKind, Read, Role, Tenant, Write};

use super::sql::{Kind, kind};
use crate::http::Api;
use crate::http::error::{Problem, Result};
use crate::http::middleware::RequestContext;

/// A tenant, opened for reading; it opens again for writing when a statement asks for it.
pub(crate) struct Opened(Tenant<Read>);

impl FromRequestParts<Api> for Opened {
    type Rejection = Problem;

    /// Runs before the body is read: who may not enter sends nothing to parse.
    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self> {
        let request = tenant_router::axum::view(parts).map_err(tenant_router::Error::from)?;
        let tenant = api.app.router.open::<Read>(&request).await?;
        if let Some(context) = parts.extensions.get::<RequestContext>() {
            context.set_tenant(tenant.id());
            context.set_principal(tenant.principal().name());
        }
        Ok(Self(tenant))
    }
}

impl Opened {
    /// Runs the statements in one transaction, all or nothing: read-only when they only read or the caller may only
    /// read, else a writing one. What looks like reading and writes after all (`with … insert`) is run again for writing;
    /// the read-only transaction has done nothing by then.
    pub(crate) async fn run(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        let only_reads = statements.iter().all(|statement| kind(&statement.sql) == Kind::MayRead);
        let reader = self.0.role() == Role::Reader;
        if !only_reads && !reader {
            return self.write(statements).await;
        }
        match self.0.query_batch(statements.clone()).await {
            Err(error) if error.kind() == ErrorKind::Database(DatabaseError::ReadOnlyTransaction) => match reader {
                true => Err(read_only()),
                false => self.write(statements).await,
            },
            answer => Ok(answer?),
        }
    }

    async fn write(&self, statements: Vec<Statement>) -> Result<Vec<Rows>> {
        let tenant = self.0.at::<Write>().await?;
        Ok(tenant.batch(statements).await?)
    }
}

fn read_only() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "read_only", "this credential may read in the tenant, not write")
        .try_next("use a credential with the role writer")
}
