//! [`Router::open`]: from a request to a tenant's database, if the caller may go there.
//!
//! Each step's output is the only key to the next: principal → names → record → [`Grant`] → pool → [`Tenant`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use catalog::members::Role;
use catalog::{Catalog, TenantId, TenantRecord};
use moka::future::Cache;
use tenant_engine::Limits;
use tokio_util::sync::DropGuard;

use crate::authorize::{Access, Grant, OperatorAccess, authorize, authorize_operator, role_in};
use crate::builder::RouterBuilder;
use crate::error::{ErrorKind, Result};
use crate::feed::Caches;
use crate::fence::{Patience, give_up, passes};
use crate::gate::SchemaRange;
use crate::key::{Naming, Parts, RequestView};
use crate::memo::TenantMark;
use crate::pools::OpenPool;
use crate::principal::{Principal, PrincipalKind};
use crate::resolve::nobodys_tenant;
use crate::tenant::{Level, Read, Tenant};

/// Takes requests to their tenants' databases. Clones are the same router.
#[derive(Clone)]
pub struct Router {
    pub(crate) inner: Arc<Inner>,
}

/// What all clones share.
pub(crate) struct Inner {
    pub(crate) catalog: Catalog,
    pub(crate) naming: Naming,
    pub(crate) schema: Option<SchemaRange>,
    pub(crate) limits: Limits,
    pub(crate) hold: Duration,
    pub(crate) caches: Arc<Caches>,
    pub(crate) remembered: Cache<Fingerprint, Arc<Standing>>,
    /// Archived tenants that this process asked to be woken a moment ago, as they were then: who is archived once more is
    /// asked for once more.
    pub(crate) woken: Cache<(TenantId, i64), ()>,
    pub(crate) closed: AtomicBool,
    /// Ends the task that follows the change feed.
    pub(crate) _stop: DropGuard,
}

/// SHA-256 of everything in a request that says who asks for which tenant.
pub(crate) type Fingerprint = [u8; 32];

/// Who asks, for which tenant, as what: all that [`authorize`] needs besides the wish.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    principal: Arc<Principal>,
    record: Arc<TenantRecord>,
    membership: Option<Role>,
    /// Of its tenant; `None` when anything changed while it was looked up.
    mark: Option<TenantMark>,
}

impl Standing {
    /// True when the principal has any role in the tenant.
    fn is_insiders(&self) -> bool {
        role_in(&self.principal, self.record.id, self.membership).is_some()
    }
}

impl Router {
    /// Starts with the defaults: API tokens and members of the catalog, naming by path, no engine yet.
    #[must_use]
    pub fn builder(catalog: Catalog) -> RouterBuilder {
        RouterBuilder::new(catalog)
    }

    /// The tenant a request names, opened for the caller it proves.
    ///
    /// # Errors
    /// See [`ErrorKind`]: who may not know of a tenant gets `NotFound`, exactly as if there was none.
    pub async fn open<A: Level>(&self, request: &RequestView<'_>) -> Result<Tenant<A>> {
        self.ready().await?;
        let parts = self.inner.naming.parts(request);
        let fingerprint = fingerprint(request.credential, &parts);
        if let Some(standing) = self.remembered(&fingerprint).await {
            self.inner.caches.meters.warm.increment(1);
            return self.enter(standing).await;
        }
        self.inner.caches.meters.cold.increment(1);
        // Taken before anything is asked: what changes meanwhile makes the standing old from the start.
        let epoch = self.inner.caches.epoch.now();
        let principal = self.prove(request.credential).await?;
        let standing = Arc::new(in_equal_time(self.look_up(principal, &parts, epoch)).await?);
        if standing.mark.is_some() {
            self.inner.remembered.insert(fingerprint, Arc::clone(&standing)).await;
        }
        self.enter(standing).await
    }

    /// The same for a caller that the application has already proved; the request's credential is not looked at.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn open_as<A: Level>(&self, principal: Arc<Principal>, request: &RequestView<'_>) -> Result<Tenant<A>> {
        self.ready().await?;
        let epoch = self.inner.caches.epoch.now();
        let standing = in_equal_time(self.look_up(principal, &self.inner.naming.parts(request), epoch)).await?;
        self.enter(Arc::new(standing)).await
    }

    /// The same for a caller and a tenant that are both known, for instance in a background job.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn open_id<A: Level>(&self, principal: Arc<Principal>, tenant: TenantId) -> Result<Tenant<A>> {
        self.ready().await?;
        let epoch = self.inner.caches.epoch.now();
        let standing = in_equal_time(async {
            let record = self.inner.caches.directory.by_id(tenant).await?;
            self.standing(principal, record, epoch).await
        });
        self.enter(Arc::new(standing.await?)).await
    }

    /// A tenant for an operator's query across the fleet: read-only, by id. The caller has recorded the access.
    ///
    /// # Errors
    /// As [`Router::open`].
    pub async fn open_for_operator(&self, operator: &OperatorAccess, tenant: TenantId) -> Result<Tenant<Read>> {
        self.ready().await?;
        let record = self.inner.caches.directory.by_id(tenant).await?;
        let grant = authorize_operator(operator, record.as_ref())?;
        tracing::debug!(tenant = %tenant, actor = operator.actor(), reason = operator.reason(), "operator reads a tenant");
        let (grant, pool) = self.reach(grant).await?;
        Ok(Tenant::new(self.clone(), grant, pool))
    }

    /// Who a credential proves, for an application that wants to know before it names a tenant.
    ///
    /// # Errors
    /// `Unauthenticated` when it proves nobody.
    pub async fn principal(&self, credential: Option<&str>) -> Result<Arc<Principal>> {
        self.ready().await?;
        self.prove(credential).await
    }

    /// Takes in every change the catalog has committed, now rather than within a second.
    ///
    /// # Errors
    /// `CatalogUnavailable`.
    pub async fn catch_up(&self) -> Result<()> {
        self.inner.caches.catch_up(&self.inner.catalog).await
    }

    /// Refuses new requests and returns when every pool is closed, each as its last user goes.
    pub async fn shutdown(&self) {
        self.inner.closed.store(true, Ordering::Release);
        self.inner.caches.pools.close().await;
        self.inner.caches.pools.slices().part().await;
    }

    /// Opens the granted tenant's database, asking the catalog again for as long as the request may wait.
    pub(crate) async fn reach(&self, grant: Grant) -> Result<(Grant, Arc<OpenPool>)> {
        match self.inner.caches.pools.of(&grant).await {
            Ok(pool) => Ok((grant, pool)),
            Err(error) if passes(&error) => self.settle_grant(&grant, &mut self.patience()).await,
            Err(error) => Err(error),
        }
    }

    /// The same for a grant whose database turned out not to be the expected one.
    pub(crate) async fn settle_grant(&self, grant: &Grant, patience: &mut Patience) -> Result<(Grant, Arc<OpenPool>)> {
        self.settle(grant.principal(), grant.record().id, grant.access(), patience).await
    }

    /// Looks again, with the catalog's word of the moment, until the way is free or the time is over.
    async fn settle(
        &self,
        who: &Arc<Principal>,
        id: TenantId,
        access: Access,
        patience: &mut Patience,
    ) -> Result<(Grant, Arc<OpenPool>)> {
        loop {
            let refusal = match self.attempt(who, id, access).await {
                Ok(reached) => return Ok(reached),
                Err(refusal) => refusal,
            };
            if !passes(&refusal) || !patience.pause(&self.inner.caches.news).await {
                return Err(give_up(refusal));
            }
        }
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience::new(self.inner.hold)
    }

    async fn prove(&self, credential: Option<&str>) -> Result<Arc<Principal>> {
        self.inner.caches.principals.of(credential, self.inner.catalog.now()).await
    }

    /// From a standing to a tenant; waits where an operation holds writes back.
    async fn enter<A: Level>(&self, standing: Arc<Standing>) -> Result<Tenant<A>> {
        let granted = self.grant(&standing.principal, Some(&standing.record), standing.membership, A::ACCESS);
        let (grant, pool) = match granted {
            Ok(grant) => self.reach(grant).await?,
            Err(ErrorKind::WritesBlocked) => {
                self.settle(&standing.principal, standing.record.id, A::ACCESS, &mut self.patience()).await?
            }
            Err(kind) => {
                if kind == ErrorKind::Archived {
                    self.ask_to_wake(&standing.record).await;
                }
                return Err(kind.into());
            }
        };
        Ok(Tenant::new(self.clone(), grant, pool))
    }

    /// Notes in the catalog that somebody wants an archived tenant; the control plane does the rest. What is noted
    /// already, or could not be, the request's next attempt finds.
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
            tracing::warn!(tenant = %id, %error, "a wish to wake an archived tenant was not noted");
        }
    }

    /// One try with the catalog's word of this moment.
    async fn attempt(&self, who: &Arc<Principal>, id: TenantId, access: Access) -> Result<(Grant, Arc<OpenPool>)> {
        let record = self.inner.caches.directory.by_id_now(id).await?;
        let membership = self.membership(who, record.as_ref()).await?;
        let grant = self.grant(who, record.as_ref(), membership, access)?;
        let pool = self.inner.caches.pools.of(&grant).await?;
        Ok((grant, pool))
    }

    fn grant(
        &self,
        who: &Arc<Principal>,
        record: Option<&Arc<TenantRecord>>,
        membership: Option<Role>,
        access: Access,
    ) -> Result<Grant, ErrorKind> {
        let grant = authorize(who, record, membership, access)?;
        if let Some(range) = &self.inner.schema {
            let record = grant.record();
            range.check(record.schema_version).map_err(|kind| kind.of_pinned(record.pin.is_some()))?;
        }
        Ok(grant)
    }

    /// The tenant that a request's names lead to, or the credential's only one when it names none; only for those who
    /// have a role there. Of several names, all others hear the same: whether two names lead to one tenant, or nowhere,
    /// is not theirs to know.
    async fn look_up(&self, principal: Arc<Principal>, parts: &Parts<'_>, epoch: u64) -> Result<Standing> {
        if parts.header.is_some() && !matches!(principal.kind(), PrincipalKind::Service { .. }) {
            return Err(ErrorKind::TenantHeaderRefused.into());
        }
        let names = self.inner.naming.names(parts)?;
        let directory = &self.inner.caches.directory;
        let record = if names.is_empty() {
            directory.by_id(principal.claimed_tenant().ok_or(ErrorKind::TenantUnnamed)?).await?
        } else {
            directory.by_names(&names).await?
        };
        match self.standing(principal, record, epoch).await {
            Err(error) if names.len() > 1 && error.kind() == ErrorKind::NotFound => {
                Err(ErrorKind::TenantAmbiguous.into())
            }
            standing => standing,
        }
    }

    /// # Errors
    /// `NotFound` for an unknown tenant, and for those who have no role in it.
    async fn standing(
        &self,
        principal: Arc<Principal>,
        record: Option<Arc<TenantRecord>>,
        epoch: u64,
    ) -> Result<Standing> {
        if !principal.is_valid_at(self.inner.catalog.now()) {
            return Err(ErrorKind::Unauthenticated.into());
        }
        let membership = self.membership(&principal, record.as_ref()).await?;
        let record = record.ok_or(ErrorKind::NotFound)?;
        let mark = self.inner.caches.epoch.mark_since(record.id, epoch);
        let standing = Standing { principal, record, membership, mark };
        if standing.is_insiders() { Ok(standing) } else { Err(ErrorKind::NotFound.into()) }
    }

    /// What the members of a tenant say of a principal. Asked for an unknown tenant too (of whom nobody is a member),
    /// so that the time an answer takes does not tell whether there is such a tenant.
    async fn membership(&self, who: &Principal, record: Option<&Arc<TenantRecord>>) -> Result<Option<Role>> {
        match who.kind() {
            PrincipalKind::Member => {
                let tenant = record.map_or_else(nobodys_tenant, |record| record.id);
                self.inner.caches.roles.of(tenant, who.name()).await
            }
            _ => Ok(None),
        }
    }

    /// What the same request led to a moment ago, unless its tenant changed since.
    async fn remembered(&self, fingerprint: &Fingerprint) -> Option<Arc<Standing>> {
        let standing = self.inner.remembered.get(fingerprint).await?;
        let mark = self.inner.caches.epoch.mark(standing.record.id);
        let is_current = standing.mark == Some(mark) && standing.principal.is_valid_at(self.inner.catalog.now());
        is_current.then_some(standing)
    }

    async fn ready(&self) -> Result<()> {
        if self.inner.closed.load(Ordering::Acquire) {
            return Err(ErrorKind::ShuttingDown.into());
        }
        self.inner.caches.catch_up_with_ourselves(&self.inner.catalog).await;
        Ok(())
    }
}

/// Denials leave at full multiples of this. Far longer than a look-up takes: what was remembered, what the catalog was
/// asked, and who else uses a tenant must not show in the time.
const DENIAL_STEP: Duration = Duration::from_millis(10);

/// Runs a look-up, whose refusals take as long for a tenant that exists as for one that does not.
async fn in_equal_time(look_up: impl Future<Output = Result<Standing>>) -> Result<Standing> {
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

/// Each part goes in with its length, so that no two requests look alike.
fn fingerprint(credential: Option<&str>, parts: &Parts<'_>) -> Fingerprint {
    let mut context = Context::new(&SHA256);
    for part in [credential, parts.segment, parts.host, parts.header] {
        // A length nobody can send stands for "not there".
        let length = part.map_or(u64::MAX, |text| text.len() as u64);
        context.update(&length.to_le_bytes());
        context.update(part.unwrap_or_default().as_bytes());
    }
    let mut fingerprint = Fingerprint::default();
    fingerprint.copy_from_slice(context.finish().as_ref());
    fingerprint
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Router").field("fleet", &self.inner.catalog.fleet_id()).finish_non_exhaustive()
    }
}
