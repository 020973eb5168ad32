//! The tenant that a request names, opened for the authenticated caller with the access that its statements need.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use tenant_engine::{ErrorKind as DatabaseError, Rows, SqlStatement};
use tenant_router::{AuditPage, ErrorKind as RouterError, Manage, Read, Role, Tenant, Write};

use super::sql::{StatementKind, statement_kind};
use crate::config::DataPath;
use crate::error::ErrorKind;
use crate::http::ApiState;
use crate::http::error::{Problem, Result};
use crate::http::middleware::RequestContext;

/// A tenant, opened for reading. It is opened again for writing when a statement needs that.
pub(crate) struct OpenedTenant(Tenant<Read>);

impl FromRequestParts<ApiState> for OpenedTenant {
    type Rejection = Problem;

    /// Runs before the body is read, so that nothing is parsed for a caller without access.
    async fn from_request_parts(parts: &mut Parts, api: &ApiState) -> Result<Self> {
        let request = tenant_router::axum::request_view(parts).map_err(tenant_router::Error::from)?;
        let opened = api.app.router.open::<Read>(&request).await;
        let context = parts.extensions.get::<RequestContext>();
        if let Some(context) = context {
            context.set_rate(opened.as_ref().map_or_else(tenant_router::Error::rate_state, Tenant::rate_state));
        }
        let tenant = opened.map_err(|error| with_path_advice(error, &api.app.config.data_path))?;
        if let Some(context) = context {
            context.set_tenant(tenant.id());
            context.set_principal(tenant.principal().name());
        }
        Ok(Self(tenant))
    }
}

impl OpenedTenant {
    /// Runs the statements in one transaction, all or nothing. The transaction is read-only if they seem only to read,
    /// or if the caller may only read. Some statements look like reading and still write (`with … insert`). They are
    /// run again in a writing transaction; the read-only one has done nothing by then.
    pub(crate) async fn run_statements(&self, statements: Vec<SqlStatement>) -> Result<Vec<Rows>> {
        let only_reads = statements.iter().all(|statement| statement_kind(&statement.sql) == StatementKind::MayRead);
        let reader = self.0.role() == Role::Reader;
        if !only_reads && !reader {
            return self.run_writing(statements).await;
        }
        match self.0.query_batch(statements.clone()).await {
            Err(error) if error.kind() == RouterError::Database(DatabaseError::ReadOnlyTransaction) => match reader {
                true => Err(read_only()),
                false => self.run_writing(statements).await,
            },
            answer => Ok(answer?),
        }
    }

    /// The tenant's audit log, for a manager.
    pub(crate) async fn audit_log(&self, before: Option<i64>, entries_max: u32) -> Result<AuditPage> {
        Ok(self.0.at::<Manage>().await?.audit_log(before, entries_max).await?)
    }

    async fn run_writing(&self, statements: Vec<SqlStatement>) -> Result<Vec<Rows>> {
        let tenant = self.0.at::<Write>().await?;
        Ok(tenant.batch(statements).await?)
    }
}

/// Names the path at which this listener serves tenants. The router's own advice cannot know it.
fn with_path_advice(error: tenant_router::Error, path: &DataPath) -> Problem {
    match error.kind() {
        RouterError::TenantUnnamed => Problem::new(ErrorKind::Router(error.kind()), error.detail())
            .try_next(format!("name the tenant in the path: {path}/query or {path}/batch")),
        _ => error.into(),
    }
}

fn read_only() -> Problem {
    Problem::new(ErrorKind::ReadOnly, "this credential may read in the tenant, not write")
        .try_next("use a credential with the role writer")
}
