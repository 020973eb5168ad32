//! Settings of a [`Router`], and its construction.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::Duration;

use catalog::{Catalog, changes};
use moka::future::Cache;
use tenant_engine::{AnswerBudget, Engine, EngineKind, SessionLimits};
use tokio::sync::{Mutex, Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::cache::TenantValues;
use crate::error::{Error, ErrorKind, Result};
use crate::feed::{self, RouterCaches};
use crate::gate::SchemaRange;
use crate::jobs::JobMarks;
use crate::key::Naming;
use crate::limits::{Admission, ProcessCount};
use crate::membership::{self, Memberships, RoleCache};
use crate::metrics::RouterMetrics;
use crate::pools::{PoolCache, PoolLimits};
use crate::principal::{self, Authenticate, PrincipalCache};
use crate::realtime::{OUTBOX_MAX, RealtimeLimits, SubscriptionHub, serve_topics};
use crate::resolve::TenantDirectory;
use crate::retry::HOLD_DEFAULT;
use crate::router::{Router, RouterInner};
use crate::single_flight_cache::ChangeCounter;

/// Default number of unused pools that stay open. Each costs about 120 KB and three file descriptors per connection. A
/// process often has only 20,000 descriptors.
const POOLS_MAX: u64 = 2_000;

/// How many of the application's own values are cached.
const CACHED_VALUES_MAX: u64 = 10_000;

/// About sixteen answers of the largest size that [`SessionLimits`] allows by default.
const ANSWERS_BYTES_MAX: usize = 256 << 20;

/// How many wake requests are remembered. Each forgotten one may cost one more write to the catalog.
const WOKEN_MAX: u64 = 10_000;
/// A recorded wake request is not recorded again for this long.
const WOKEN_AGE_MAX: Duration = Duration::from_secs(10);

/// How many resolved requests are cached: 20,000 take about 4 MB.
const REMEMBERED_MAX: u64 = 20_000;

/// How long a resolved request is cached. Short, because it adds to the age of the cached parts that it was made of.
const REMEMBERED_AGE_MAX: Duration = Duration::from_secs(1);

/// Collects the settings of a [`Router`]. Made by [`Router::builder`].
pub struct RouterBuilder {
    catalog: Catalog,
    engines: HashMap<EngineKind, Arc<dyn Engine>>,
    naming: Naming,
    authenticate: Option<Arc<dyn Authenticate>>,
    jwt: Option<Arc<dyn Authenticate>>,
    memberships: Option<Arc<dyn Memberships>>,
    schema: Option<SchemaRange>,
    limits: SessionLimits,
    hold: Duration,
    pools_max: u64,
    cached_values_max: u64,
    answers: AnswerBudget,
    realtime: RealtimeLimits,
    /// What must stay as long as the router.
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl RouterBuilder {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            engines: HashMap::new(),
            naming: Naming::default(),
            authenticate: None,
            jwt: None,
            memberships: None,
            schema: None,
            limits: SessionLimits::default(),
            hold: HOLD_DEFAULT,
            pools_max: POOLS_MAX,
            cached_values_max: CACHED_VALUES_MAX,
            answers: AnswerBudget::new(ANSWERS_BYTES_MAX),
            realtime: RealtimeLimits::default(),
            kept: Vec::new(),
        }
    }

    /// Adds an engine, which serves the databases of one kind. One engine per kind.
    #[must_use]
    pub fn engine(mut self, engine: Arc<dyn Engine>) -> Self {
        self.engines.insert(engine.kind(), engine);
        self
    }

    /// Sets how requests name tenants. The default is [`Naming::default`].
    #[must_use]
    pub fn naming(self, naming: Naming) -> Self {
        Self { naming, ..self }
    }

    /// Lets the application prove principals, instead of the catalog's tokens.
    #[must_use]
    pub fn authenticate(self, by: Arc<dyn Authenticate>) -> Self {
        Self { authenticate: Some(by), ..self }
    }

    /// Accepts JSON Web Tokens of these issuers, beside the other credentials.
    #[cfg(feature = "jwt")]
    #[must_use]
    pub fn jwt(self, verifier: Arc<crate::jwt::JwtVerifier>) -> Self {
        Self { jwt: Some(verifier), ..self }
    }

    /// Lets the application decide memberships, instead of the catalog's members.
    #[must_use]
    pub fn memberships(self, by: Arc<dyn Memberships>) -> Self {
        Self { memberships: Some(by), ..self }
    }

    /// Sets the schema versions that this program can serve. Without it, every tenant is served.
    #[must_use]
    pub fn schema_range(self, range: SchemaRange) -> Self {
        Self { schema: Some(range), ..self }
    }

    /// Sets the limits of every session.
    #[must_use]
    pub fn limits(self, limits: SessionLimits) -> Self {
        Self { limits, ..self }
    }

    /// Sets how long a request may wait while its database is replaced. The default is 2 s.
    #[must_use]
    pub fn replacement_wait_max(self, hold: Duration) -> Self {
        Self { hold, ..self }
    }

    /// Sets how many tenants' pools stay open when unused. The default is 2,000.
    #[must_use]
    pub fn pools_max(self, pools_max: u64) -> Self {
        Self { pools_max, ..self }
    }

    /// Sets how many of the application's own values are cached, of all tenants together. The default is 10,000.
    #[must_use]
    pub fn cached_values_max(self, values_max: u64) -> Self {
        Self { cached_values_max: values_max, ..self }
    }

    /// Sets the memory for answers that are being read or sent at the same time. The default is 256 MiB. One tenant may
    /// use half of it.
    #[must_use]
    pub fn answer_budget(self, answers: AnswerBudget) -> Self {
        Self { answers, ..self }
    }

    /// Sets the limits of topics and subscriptions.
    #[must_use]
    pub fn realtime_limits(self, limits: RealtimeLimits) -> Self {
        Self { realtime: limits, ..self }
    }

    /// Keeps a value until the router and all its tenants are dropped.
    pub(crate) fn keep_until_closed(mut self, value: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(value));
        self
    }

    /// Reads the position of the change feed and starts following it. Must run inside a Tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] when there is no engine, or when a host in the naming is not valid;
    /// [`ErrorKind::CatalogUnavailable`] when the catalog cannot be read.
    pub async fn build(self) -> Result<Router> {
        if self.engines.is_empty() {
            return Err(Error::new(ErrorKind::Misconfigured).with_source("the router has no engine"));
        }
        let misconfigured = |error| Error::new(ErrorKind::Misconfigured).with_source(error);
        let naming = self.naming.clone().with_normal_hosts().map_err(misconfigured)?;
        let caches = Arc::new(self.build_caches().await?);
        let stop = CancellationToken::new();
        tokio::spawn(feed::follow_feed(Arc::clone(&caches), self.catalog.clone(), stop.clone()));
        tokio::spawn(caches.pools.connection_shares().keep_shares(stop.clone()));
        let processes = self.count_processes(&stop).await;
        let job_marks = Arc::new(JobMarks::new());
        let (marks, catalog, until) = (Arc::clone(&job_marks), self.catalog.clone(), stop.clone());
        tokio::spawn(async move { marks.keep_writing(catalog, until).await });
        let (outbox, inbox) = mpsc::channel(OUTBOX_MAX);
        let subscriptions = Arc::new(SubscriptionHub::new(self.realtime, outbox, Arc::clone(&caches.meters)));
        let (hub, topic_caches) = (Arc::clone(&subscriptions), Arc::clone(&caches));
        tokio::spawn(serve_topics(hub, inbox, topic_caches, self.catalog.clone(), stop.clone()));
        let inner = RouterInner {
            job_marks,
            catalog: self.catalog,
            naming,
            schema: self.schema,
            limits: self.limits,
            hold: self.hold,
            admission: Admission::new(Arc::clone(&processes), Arc::clone(&caches.meters)),
            processes,
            caches,
            tenant_values: TenantValues::new(self.cached_values_max),
            subscriptions,
            remembered: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED_AGE_MAX).build(),
            woken: Cache::builder().max_capacity(WOKEN_MAX).time_to_live(WOKEN_AGE_MAX).build(),
            closed: AtomicBool::new(false),
            _stop: stop.drop_guard(),
            _kept: self.kept,
        };
        Ok(Router { inner: Arc::new(inner) })
    }

    /// Counts this process among those that share the limits of tenants, and keeps counting.
    async fn count_processes(&self, stop: &CancellationToken) -> Arc<ProcessCount> {
        let processes = Arc::new(ProcessCount::new(self.catalog.clone()));
        // Counted before the first request, so that a new process takes no more than its part.
        if let Err(error) = processes.renew_lease().await {
            tracing::warn!(%error, "the number of processes that share the limits is not known yet");
        }
        tokio::spawn(Arc::clone(&processes).keep_counting(stop.clone()));
        processes
    }

    async fn build_caches(&self) -> Result<RouterCaches> {
        let catalog = &self.catalog;
        // Read before anything is cached, so that every later change is seen.
        let own = changes::local_commit_count(catalog);
        let seq = changes::feed_head(&mut catalog.read().await?).await?;
        let change_counter = ChangeCounter::default();
        let meters = Arc::new(RouterMetrics::new());
        let principals = match &self.authenticate {
            Some(application) => principal::PrincipalSource::Application(Arc::clone(application)),
            None => principal::PrincipalSource::Tokens(catalog.clone()),
        };
        let roles = match &self.memberships {
            Some(application) => membership::RoleSource::Application(Arc::clone(application)),
            None => membership::RoleSource::Members(catalog.clone()),
        };
        let jwt = self.jwt.clone().map(principal::PrincipalSource::Application);
        Ok(RouterCaches {
            principals: PrincipalCache::new(principals, &change_counter),
            token_principals: jwt.map(|jwt| PrincipalCache::new(jwt, &change_counter)),
            roles: RoleCache::new(roles, &change_counter),
            directory: TenantDirectory::new(catalog.clone(), &change_counter, Arc::clone(&meters)),
            pools: PoolCache::new(
                catalog.clone(),
                self.engines.clone(),
                PoolLimits { pools_max: self.pools_max, answers: self.answers.clone() },
                &change_counter,
                Arc::clone(&meters),
            ),
            change_counter,
            meters,
            news: Notify::new(),
            seq: AtomicI64::new(seq),
            feed_turn: Mutex::new(()),
            own: AtomicU64::new(own),
            own_turn: Mutex::new(()),
        })
    }
}
