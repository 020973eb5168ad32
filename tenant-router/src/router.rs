//! [`Router::open`]: from a request to a tenant's database, if the caller may go there.

use std::sync::Arc;
use std::time::Duration;

use catalog::{Catalog, TenantId};
use tenant_engine::{Engine, Limits};

use crate::authorize::OperatorAccess;
use crate::error::Result;
use crate::gate::SchemaRange;
use crate::key::{Naming, RequestView};
use crate::membership::Memberships;
use crate::principal::{Authenticate, Principal};
use crate::tenant::{Level, Read, Tenant};

/// Takes requests to their tenants' databases. Clones are the same router.
#[derive(Clone)]
pub struct Router {}

/// What a [`Router`] is built from.
pub struct RouterBuilder {}

impl Router {
    /// Starts with the defaults: API tokens and members of the catalog, naming by path, no engine yet.
    #[must_use]
    pub fn builder(_catalog: Catalog) -> RouterBuilder {
        todo!()
    }

    /// The tenant a request names, opened for the caller it proves.
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind): who may not know of a tenant gets `NotFound`, exactly as if there was none.
    pub async fn open<A: Level>(&self, _request: &RequestView<'_>) -> Result<Tenant<A>> {
        todo!()
    }

    /// The same for a caller that the application has already proved; the request's credential is not looked at.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn open_as<A: Level>(&self, _principal: Arc<Principal>, _request: &RequestView<'_>) -> Result<Tenant<A>> {
        todo!()
    }

    /// The same for a caller and a tenant that are both known, for instance in a background job.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn open_id<A: Level>(&self, _principal: Arc<Principal>, _tenant: TenantId) -> Result<Tenant<A>> {
        todo!()
    }

    /// A tenant for an operator's query across the fleet: read-only, by id. The caller has recorded the access.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn open_for_operator(&self, _operator: &OperatorAccess, _tenant: TenantId) -> Result<Tenant<Read>> {
        todo!()
    }

    /// Who a credential proves, for an application that wants to know before it names a tenant.
    ///
    /// # Errors
    /// `Unauthenticated` when it proves nobody.
    pub async fn principal(&self, _credential: Option<&str>) -> Result<Arc<Principal>> {
        todo!()
    }

    /// Refuses new requests, closes every pool as its last user goes, and ends the background task.
    pub async fn shutdown(&self) {
        todo!()
    }
}

impl RouterBuilder {
    /// Serves the databases of one kind; one per kind.
    #[must_use]
    pub fn engine(self, _engine: Arc<dyn Engine>) -> Self {
        todo!()
    }
    /// How requests name tenants.
    #[must_use]
    pub fn naming(self, _naming: Naming) -> Self {
        todo!()
    }
    /// The application proves principals, not the catalog's tokens.
    #[must_use]
    pub fn authenticate(self, _by: Arc<dyn Authenticate>) -> Self {
        todo!()
    }
    /// The application knows the members, not the catalog.
    #[must_use]
    pub fn memberships(self, _by: Arc<dyn Memberships>) -> Self {
        todo!()
    }
    /// The schema versions this program can serve; without it, every tenant is served.
    #[must_use]
    pub fn schema(self, _range: SchemaRange) -> Self {
        todo!()
    }
    /// Caps of every session.
    #[must_use]
    pub fn limits(self, _limits: Limits) -> Self {
        todo!()
    }
    /// How long a request may wait for an operation or a flip to pass; 2 s unless set.
    #[must_use]
    pub fn hold(self, _hold: Duration) -> Self {
        todo!()
    }
    /// How many tenants' pools stay open when nobody uses them; 2,000 unless set.
    #[must_use]
    pub fn pools_max(self, _pools: u64) -> Self {
        todo!()
    }
    /// Reads where the change feed is and starts following it. Must run inside a Tokio runtime.
    ///
    /// # Errors
    /// When there is no engine, a host name in the naming is none, or the catalog cannot be read.
    pub async fn build(self) -> Result<Router> {
        todo!()
    }
}
