//! [`Router::open`]: from a request to a tenant's database, if the caller has access to it.
//!
//! Each step's output is the only key to the next: principal → names → record → [`Grant`] → pool → [`Tenant`].

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use catalog::members::Role;
use catalog::{Catalog, Generation, TenantId, TenantName, TenantRecord};
use moka::future::Cache;
use tenant_engine::SessionLimits;
use tokio_util::sync::DropGuard;

use crate::authorize::{Access, Grant, OperatorAccess, authorize, authorize_operator, role_in};
use crate::builder::RouterBuilder;
use crate::cache::TenantValues;
use crate::error::{ErrorKind, Result};
use crate::feed::RouterCaches;
use crate::gate::SchemaRange;
use crate::jobs::JobMarks;
use crate::key::{Naming, RequestView, TenantNameParts};
use crate::limits::{Admission, ProcessCount, RequestPass};
use crate::pools::OpenPool;
use crate::principal::{Principal, PrincipalKind};
use crate::realtime::SubscriptionHub;
use crate::retry::{RetryBudget, final_error, is_temporary};
use crate::single_flight_cache::TenantMark;
use crate::tenant::{AccessLevel, Read, Tenant};

/// Routes requests to their tenants' databases. All clones share one state.
#[derive(Clone)]
pub struct Router {
    pub(crate) inner: Arc<RouterInner>,
}

/// The state that all clones share.
pub(crate) struct RouterInner {
    pub(crate) catalog: Catalog,
    pub(crate) naming: Naming,
    pub(crate) schema: Option<SchemaRange>,
    pub(crate) limits: SessionLimits,
    pub(crate) hold: Duration,
    /// Admits requests within the limits of their tenants' plans.
    pub(crate) admission: Admission,
    /// The processes that share the limits.
    pub(crate) processes: Arc<ProcessCount>,
    pub(crate) caches: Arc<RouterCaches>,
    /// The application's own cached values.
    pub(crate) tenant_values: TenantValues,
    /// The open subscriptions of topics.
    pub(crate) subscriptions: Arc<SubscriptionHub>,
    pub(crate) remembered: Cache<RequestFingerprint, Arc<ResolvedCaller>>,
    pub(crate) job_marks: Arc<JobMarks>,
    /// Archived tenants that this process recently asked to wake, with the catalog's record at that time. A tenant that
    /// is archived again gets a new wake request.
    pub(crate) woken: Cache<(TenantId, i64), ()>,
    pub(crate) closed: AtomicBool,
    /// Ends the task that follows the change feed.
    pub(crate) _stop: DropGuard,
    /// Dropped last.
    pub(crate) _kept: Vec<Box<dyn Any + Send + Sync>>,
}

/// SHA-256 of everything in a request that names the caller and the tenant.
pub(crate) type RequestFingerprint = [u8; 32];

/// The caller, the tenant and the caller's role in it: everything that [`authorize`] needs besides the wanted access.
#[derive(Debug, Clone)]
pub(crate) struct ResolvedCaller {
    principal: Arc<Principal>,
    record: Arc<TenantRecord>,
    membership: Option<Role>,
    /// The mark of the tenant; `None` when anything changed during the look-up.
    mark: Option<TenantMark>,
}

/// Whether opening a tenant counts as a request of its plan.
enum RequestCount {
    /// It is a request of its own.
    Counted,
    /// It is a part of this request, or of the application's own work.
    PartOf(Option<Arc<RequestPass>>),
}

impl ResolvedCaller {
    /// True when the principal has any role in the tenant.
    fn has_role(&self) -> bool {
        role_in(&self.principal, self.record.id, self.membership).is_some()
    }
}

impl Router {
    /// Starts with the defaults: API tokens and members of the catalog, tenant names in the path, no engine yet.
    #[must_use]
    pub fn builder(catalog: Catalog) -> RouterBuilder {
        RouterBuilder::new(catalog)
    }

    /// Opens the tenant that a request names, for the caller that its credential proves.
    ///
    /// # Errors
    /// See [`ErrorKind`]. A caller without a role in the tenant gets `NotFound`, exactly as if the tenant did not
    /// exist.
    pub async fn open<A: AccessLevel>(&self, request: &RequestView<'_>) -> Result<Tenant<A>> {
        self.require_ready().await?;
        let parts = self.inner.naming.name_parts(request);
        let fingerprint = request_fingerprint(request.credential, &parts);
        if let Some(standing) = self.remembered_caller(&fingerprint).await {
            self.inner.caches.meters.warm.increment(1);
            return self.open_tenant(standing, RequestCount::Counted).await;
        }
        self.inner.caches.meters.cold.increment(1);
        // Read before the first look-up: a change during the look-ups then makes the result outdated.
        let count_before = self.inner.caches.change_counter.change_count();
        let principal = self.prove_caller(request.credential).await?;
        let standing = Arc::new(in_equal_time(self.resolve_request(principal, &parts, count_before)).await?);
        if standing.mark.is_some() {
            self.inner.remembered.insert(fingerprint, Arc::clone(&standing)).await;
        }
        self.open_tenant(standing, RequestCount::Counted).await
    }

    /// Opens the tenant that a request names, for a caller that the application has already proved. The request's
    /// credential is ignored.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn open_as<A: AccessLevel>(
        &self,
        principal: Arc<Principal>,
        request: &RequestView<'_>,
    ) -> Result<Tenant<A>> {
        self.require_ready().await?;
        let count_before = self.inner.caches.change_counter.change_count();
        let standing =
            in_equal_time(self.resolve_request(principal, &self.inner.naming.name_parts(request), count_before))
                .await?;
        self.open_tenant(Arc::new(standing), RequestCount::Counted).await
    }

    /// Opens a tenant by its id for a known caller, for instance in a background job. It does not count as a request of
    /// the tenant's plan.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn open_id<A: AccessLevel>(&self, principal: Arc<Principal>, tenant: TenantId) -> Result<Tenant<A>> {
        self.open_again(principal, tenant, None).await
    }

    /// Opens a tenant by its id, as a part of the request with this pass.
    pub(crate) async fn open_again<A: AccessLevel>(
        &self,
        principal: Arc<Principal>,
        tenant: TenantId,
        pass: Option<Arc<RequestPass>>,
    ) -> Result<Tenant<A>> {
        self.require_ready().await?;
        let count_before = self.inner.caches.change_counter.change_count();
        let standing = in_equal_time(async {
            let record = self.inner.caches.directory.by_id(tenant).await?;
            self.resolve_caller(principal, record, count_before).await
        });
        self.open_tenant(Arc::new(standing.await?), RequestCount::PartOf(pass)).await
    }

    /// Opens the tenant that a request names by path and host, for the caller that `prove` finds for this tenant and
    /// generation. Its refusal takes the same time as that of an unknown tenant.
    pub(crate) async fn open_proven<A: AccessLevel, T>(
        &self,
        request: &RequestView<'_>,
        prove: impl FnOnce(TenantId, Generation) -> Result<(Arc<Principal>, T)> + Send,
    ) -> Result<(Tenant<A>, T)>
    where
        T: Send,
    {
        self.require_ready().await?;
        let parts = self.inner.naming.name_parts(&RequestView { tenant_header: None, credential: None, ..*request });
        let count_before = self.inner.caches.change_counter.change_count();
        let mut proof = None;
        let standing = in_equal_time(async {
            let names = self.inner.naming.tenant_names(&parts)?;
            if names.is_empty() {
                return Err(ErrorKind::TenantUnnamed.into());
            }
            let record = self.inner.caches.directory.by_names(&names).await?.ok_or(ErrorKind::NotFound)?;
            let (principal, found) = prove(record.id, record.generation)?;
            proof = Some(found);
            self.resolve_caller(principal, Some(record), count_before).await
        });
        let tenant = self.open_tenant(Arc::new(standing.await?), RequestCount::Counted).await?;
        Ok((tenant, proof.ok_or(ErrorKind::NotFound)?))
    }

    /// The tenant that a request names by path and host.
    pub(crate) async fn named_tenant(&self, request: &RequestView<'_>) -> Result<Option<TenantId>> {
        let parts = self.inner.naming.name_parts(&RequestView { tenant_header: None, credential: None, ..*request });
        let names = self.inner.naming.tenant_names(&parts)?;
        if names.is_empty() {
            return Err(ErrorKind::TenantUnnamed.into());
        }
        Ok(self.inner.caches.directory.by_names(&names).await?.map(|record| record.id))
    }

    /// Opens a tenant by its id for an operator's query across the fleet, read-only. The caller has recorded the
    /// access.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn open_for_operator(&self, operator: &OperatorAccess, tenant: TenantId) -> Result<Tenant<Read>> {
        self.require_ready().await?;
        let record = self.inner.caches.directory.by_id(tenant).await?;
        let grant = authorize_operator(operator, record.as_ref())?;
        tracing::debug!(tenant = %tenant, actor = operator.actor(), reason = operator.reason(), "operator reads a tenant");
        let (grant, pool) = self.reach_pool(grant).await?;
        Ok(Tenant::new(self.clone(), grant, pool, None))
    }

    /// The principal that a credential proves, for an application that needs it before it names a tenant.
    ///
    /// # Errors
    /// `Unauthenticated` when the credential proves no principal.
    pub async fn principal(&self, credential: Option<&str>) -> Result<Arc<Principal>> {
        self.require_ready().await?;
        self.prove_caller(credential).await
    }

    /// Applies every change that the catalog has committed now, instead of within a second.
    ///
    /// # Errors
    /// `CatalogUnavailable` when the catalog cannot be read.
    pub async fn catch_up(&self) -> Result<()> {
        self.inner.caches.catch_up(&self.inner.catalog).await?;
        self.inner.processes.count_again().await
    }

    /// Refuses new requests, and ends all subscriptions. Returns when every pool is closed; a pool closes when its last user
    /// releases it.
    pub async fn shutdown(&self) {
        self.inner.closed.store(true, Ordering::Release);
        self.end_subscriptions().await;
        self.inner.caches.pools.close_all().await;
        // After the last transaction, which may have enqueued a job.
        if let Err(error) = self.inner.job_marks.write_last(&self.inner.catalog).await {
            tracing::warn!(%error, "the catalog does not know all new jobs; another process will look for them");
        }
        self.inner.caches.pools.connection_shares().release_all().await;
        self.inner.processes.release_lease().await;
    }

    /// Opens the granted tenant's database. Retries with a new record of the catalog for as long as the request may
    /// wait.
    pub(crate) async fn reach_pool(&self, grant: Grant) -> Result<(Grant, Arc<OpenPool>)> {
        match self.inner.caches.pools.pool_for(&grant).await {
            Ok(pool) => Ok((grant, pool)),
            Err(error) if is_temporary(&error) => self.retry_grant(&grant, &mut self.retry_budget()).await,
            Err(error) => Err(error),
        }
    }

    /// As [`Router::reach_pool`], for a grant whose database turned out not to be the expected one.
    pub(crate) async fn retry_grant(
        &self,
        grant: &Grant,
        patience: &mut RetryBudget,
    ) -> Result<(Grant, Arc<OpenPool>)> {
        self.retry_until_ready(grant.principal(), grant.record().id, grant.access(), patience).await
    }

    /// Reads the catalog again until the request can proceed or its time is over.
    async fn retry_until_ready(
        &self,
        who: &Arc<Principal>,
        id: TenantId,
        access: Access,
        patience: &mut RetryBudget,
    ) -> Result<(Grant, Arc<OpenPool>)> {
        loop {
            let refusal = match self.attempt_access(who, id, access).await {
                Ok(reached) => return Ok(reached),
                Err(refusal) => refusal,
            };
            if !is_temporary(&refusal) || !patience.wait_before_retry(&self.inner.caches.news).await {
                return Err(final_error(refusal));
            }
        }
    }

    pub(crate) fn retry_budget(&self) -> RetryBudget {
        RetryBudget::new(self.inner.hold)
    }

    async fn prove_caller(&self, credential: Option<&str>) -> Result<Arc<Principal>> {
        self.inner.caches.prove_caller(credential, self.inner.catalog.now()).await
    }

    /// Opens the resolved tenant. Waits while an operation blocks writes.
    async fn open_tenant<A: AccessLevel>(
        &self,
        standing: Arc<ResolvedCaller>,
        count: RequestCount,
    ) -> Result<Tenant<A>> {
        let granted = self.make_grant(&standing.principal, Some(&standing.record), standing.membership, A::ACCESS);
        let pass = match (count, &granted) {
            (RequestCount::Counted, Ok(_) | Err(ErrorKind::WritesBlocked)) => {
                self.inner.admission.admit_request(&standing.record).await?
            }
            (RequestCount::PartOf(pass), _) => pass,
            (RequestCount::Counted, Err(_)) => None,
        };
        let (grant, pool) = match granted {
            Ok(grant) => self.reach_pool(grant).await?,
            Err(ErrorKind::WritesBlocked) => {
                self.retry_until_ready(&standing.principal, standing.record.id, A::ACCESS, &mut self.retry_budget())
                    .await?
            }
            Err(kind) => {
                if kind == ErrorKind::Archived {
                    self.ask_to_wake(&standing.record).await;
                }
                return Err(kind.into());
            }
        };
        Ok(Tenant::new(self.clone(), grant, pool, pass))
    }

    /// Records in the catalog that a caller wants an archived tenant; the control plane wakes it. If this fails, a
    /// later request for the tenant tries again.
    async fn ask_to_wake(&self, record: &TenantRecord) {
        let (id, wish) = (record.id, (record.id, record.updated_at));
        if self.inner.woken.contains_key(&wish) {
            return;
        }
        self.inner.woken.insert(wish, ()).await;
        let noted = async {
            let mut tx = self.inner.catalog.write().await?;
            if catalog::tenants::request_wake(&mut tx, id).await? {
                tx.commit().await?;
            }
            Ok::<_, catalog::Error>(())
        };
        if let Err(error) = noted.await {
            tracing::warn!(tenant = %id, %error, "the request to wake an archived tenant could not be recorded");
        }
    }

    /// One attempt with the catalog's current record.
    async fn attempt_access(
        &self,
        who: &Arc<Principal>,
        id: TenantId,
        access: Access,
    ) -> Result<(Grant, Arc<OpenPool>)> {
        let record = self.inner.caches.directory.by_id_now(id).await?;
        let membership = self.inner.caches.caller_membership(who, record.as_ref()).await?;
        let grant = self.make_grant(who, record.as_ref(), membership, access)?;
        let pool = self.inner.caches.pools.pool_for(&grant).await?;
        Ok((grant, pool))
    }

    fn make_grant(
        &self,
        who: &Arc<Principal>,
        record: Option<&Arc<TenantRecord>>,
        membership: Option<Role>,
        access: Access,
    ) -> Result<Grant, ErrorKind> {
        let grant = authorize(who, record, membership, access)?;
        if let Some(range) = &self.inner.schema {
            let record = grant.record();
            range.check_version(record.schema_version).map_err(|kind| kind.of_pinned(record.pin.is_some()))?;
        }
        Ok(grant)
    }

    /// The tenant that a request's names lead to, or the only tenant of the credential when the request names none.
    /// Only callers with a role in the tenant get it. For several names, all other callers get the same answer. They
    /// must not learn whether two names lead to one tenant, or to none.
    async fn resolve_request(
        &self,
        principal: Arc<Principal>,
        parts: &TenantNameParts<'_>,
        count_before: u64,
    ) -> Result<ResolvedCaller> {
        if parts.header.is_some() && !matches!(principal.kind(), PrincipalKind::Service { .. }) {
            return Err(ErrorKind::TenantHeaderRefused.into());
        }
        let mut names = self.inner.naming.tenant_names(parts)?;
        if let Some(name) = principal.named_tenant() {
            let name = TenantName::parse_slug(name).map_err(|_| ErrorKind::TenantNameInvalid)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let directory = &self.inner.caches.directory;
        let record = if names.is_empty() {
            directory.by_id(principal.claimed_tenant().ok_or(ErrorKind::TenantUnnamed)?).await?
        } else {
            directory.by_names(&names).await?
        };
        match self.resolve_caller(principal, record, count_before).await {
            Err(error) if names.len() > 1 && error.kind() == ErrorKind::NotFound => {
                Err(ErrorKind::TenantAmbiguous.into())
            }
            standing => standing,
        }
    }

    /// # Errors
    /// `NotFound` for an unknown tenant, and for callers that have no role in it.
    async fn resolve_caller(
        &self,
        principal: Arc<Principal>,
        record: Option<Arc<TenantRecord>>,
        count_before: u64,
    ) -> Result<ResolvedCaller> {
        if !principal.is_valid_at(self.inner.catalog.now()) {
            return Err(ErrorKind::Unauthenticated.into());
        }
        let membership = self.inner.caches.caller_membership(&principal, record.as_ref()).await?;
        let record = record.ok_or(ErrorKind::NotFound)?;
        let mark = self.inner.caches.change_counter.tenant_mark_since(record.id, count_before);
        let standing = ResolvedCaller { principal, record, membership, mark };
        if standing.has_role() { Ok(standing) } else { Err(ErrorKind::NotFound.into()) }
    }

    /// The cached result of the same request, unless its tenant changed since.
    async fn remembered_caller(&self, fingerprint: &RequestFingerprint) -> Option<Arc<ResolvedCaller>> {
        let standing = self.inner.remembered.get(fingerprint).await?;
        let mark = self.inner.caches.change_counter.tenant_mark(standing.record.id);
        let is_current = standing.mark == Some(mark) && standing.principal.is_valid_at(self.inner.catalog.now());
        is_current.then_some(standing)
    }

    pub(crate) async fn require_ready(&self) -> Result<()> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(ErrorKind::ShuttingDown.into());
        }
        self.inner.caches.catch_up_locally(&self.inner.catalog).await;
        Ok(())
    }
}

/// Denials are sent at full multiples of this time, which is far longer than a look-up takes. So the response time does
/// not reveal cache hits, catalog queries or other users of a tenant.
const DENIAL_STEP: Duration = Duration::from_millis(10);

/// Runs a look-up. A refusal takes the same time for a tenant that exists and for one that does not.
async fn in_equal_time(look_up: impl Future<Output = Result<ResolvedCaller>>) -> Result<ResolvedCaller> {
    let begun = Instant::now();
    let error = match look_up.await {
        Ok(standing) => return Ok(standing),
        Err(error) => error,
    };
    if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::TenantAmbiguous) {
        let steps = begun.elapsed().as_millis() / DENIAL_STEP.as_millis() + 1;
        let until = begun + DENIAL_STEP * u32::try_from(steps).unwrap_or(u32::MAX);
        tokio::time::sleep_until(until.into()).await;
    }
    Err(error)
}

/// Hashes each part with its length, so that no two requests have the same input.
fn request_fingerprint(credential: Option<&str>, parts: &TenantNameParts<'_>) -> RequestFingerprint {
    let mut context = Context::new(&SHA256);
    for part in [credential, parts.segment, parts.host, parts.header] {
        // A length that no request can have stands for "absent".
        let length = part.map_or(u64::MAX, |text| text.len() as u64);
        context.update(&length.to_le_bytes());
        context.update(part.unwrap_or_default().as_bytes());
    }
    let mut fingerprint = RequestFingerprint::default();
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("fleet", &self.inner.catalog.fleet_id()).finish_non_exhaustive()
    }
}
