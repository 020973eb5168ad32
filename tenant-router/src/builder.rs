//! What a [`Router`] is built from.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64};
use std::time::Duration;

use catalog::{Catalog, changes};
use moka::future::Cache;
use tenant_engine::{AnswerBudget, Engine, EngineKind, Limits};
use tokio::sync::{Mutex, Notify};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::feed::{self, Caches};
use crate::fence::HOLD_DEFAULT;
use crate::gate::SchemaRange;
use crate::key::Naming;
use crate::membership::{self, Memberships, Roles};
use crate::memo::Epoch;
use crate::metrics::Meters;
use crate::pools::{Pools, Sizes};
use crate::principal::{self, Authenticate, Principals};
use crate::resolve::Directory;
use crate::router::{Inner, Router};

/// How many pools stay open when nobody uses them, unless set otherwise: each idle one costs about 120 KB and three
/// file descriptors per connection, of which a process often has only 20,000.
const POOLS_MAX: u64 = 2_000;

/// Some sixteen answers of the largest size that [`Limits`] allows by default.
const ANSWERS_BYTES_MAX: usize = 256 << 20;

/// Wishes to wake remembered; one more costs one write to the catalog.
const WOKEN_MAX: u64 = 10_000;
/// A wish that was noted is not noted again for so long.
const WOKEN_AGE_MAX: Duration = Duration::from_secs(10);

/// How many requests' ways are remembered: 20,000 take about 4 MB.
const REMEMBERED_MAX: u64 = 20_000;

/// How long a way is remembered. Short, because it adds to the age of what it was made of.
const REMEMBERED_AGE_MAX: Duration = Duration::from_secs(1);

/// Made by [`Router::builder`].
pub struct RouterBuilder {
    catalog: Catalog,
    engines: HashMap<EngineKind, Arc<dyn Engine>>,
    naming: Naming,
    authenticate: Option<Arc<dyn Authenticate>>,
    memberships: Option<Arc<dyn Memberships>>,
    schema: Option<SchemaRange>,
    limits: Limits,
    hold: Duration,
    pools_max: u64,
    answers: AnswerBudget,
}

impl RouterBuilder {
    pub(crate) fn new(catalog: Catalog) -> Self {
        Self {
            catalog,
            engines: HashMap::new(),
            naming: Naming::default(),
            authenticate: None,
            memberships: None,
            schema: None,
            limits: Limits::default(),
            hold: HOLD_DEFAULT,
            pools_max: POOLS_MAX,
            answers: AnswerBudget::new(ANSWERS_BYTES_MAX),
        }
    }

    /// Serves the databases of one kind; one per kind.
    #[must_use]
    pub fn engine(mut self, engine: Arc<dyn Engine>) -> Self {
        self.engines.insert(engine.kind(), engine);
        self
    }

    /// How requests name tenants.
    #[must_use]
    pub fn naming(self, naming: Naming) -> Self {
        Self { naming, ..self }
    }

    /// The application proves principals, not the catalog's tokens.
    #[must_use]
    pub fn authenticate(self, by: Arc<dyn Authenticate>) -> Self {
        Self { authenticate: Some(by), ..self }
    }

    /// The application knows the members, not the catalog.
    #[must_use]
    pub fn memberships(self, by: Arc<dyn Memberships>) -> Self {
        Self { memberships: Some(by), ..self }
    }

    /// The schema versions this program can serve; without it, every tenant is served.
    #[must_use]
    pub fn schema(self, range: SchemaRange) -> Self {
        Self { schema: Some(range), ..self }
    }

    /// Caps of every session.
    #[must_use]
    pub fn limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// How long a request may wait for an operation or a flip to pass; 2 s unless set.
    #[must_use]
    pub fn hold(self, hold: Duration) -> Self {
        Self { hold, ..self }
    }

    /// How many tenants' pools stay open when nobody uses them; 2,000 unless set.
    #[must_use]
    pub fn pools_max(self, pools_max: u64) -> Self {
        Self { pools_max, ..self }
    }

    /// Memory for the answers that are being read or sent at once; 256 MiB unless set. One tenant may use half of it.
    #[must_use]
    pub fn answers(self, answers: AnswerBudget) -> Self {
        Self { answers, ..self }
    }

    /// Reads where the change feed is and starts following it. Must run inside a Tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Misconfigured`] when there is no engine or a host in the naming is none;
    /// [`ErrorKind::CatalogUnavailable`].
    pub async fn build(self) -> Result<Router> {
        if self.engines.is_empty() {
            return Err(Error::new(ErrorKind::Misconfigured).with_source("the router has no engine"));
        }
        let misconfigured = |error| Error::new(ErrorKind::Misconfigured).with_source(error);
        let naming = self.naming.clone().normalised().map_err(misconfigured)?;
        let caches = Arc::new(self.caches().await?);
        let stop = CancellationToken::new();
        tokio::spawn(feed::follow(Arc::clone(&caches), self.catalog.clone(), stop.clone()));
        tokio::spawn(caches.pools.slices().keep(stop.clone()));
        let inner = Inner {
            catalog: self.catalog,
            naming,
            schema: self.schema,
            limits: self.limits,
            hold: self.hold,
            caches,
            remembered: Cache::builder().max_capacity(REMEMBERED_MAX).time_to_live(REMEMBERED_AGE_MAX).build(),
            woken: Cache::builder().max_capacity(WOKEN_MAX).time_to_live(WOKEN_AGE_MAX).build(),
            closed: AtomicBool::new(false),
            _stop: stop.drop_guard(),
        };
        Ok(Router { inner: Arc::new(inner) })
    }

    async fn caches(&self) -> Result<Caches> {
        let catalog = &self.catalog;
        // Before anything is remembered: what changes from here on is heard of.
        let own = changes::own(catalog);
        let seq = changes::head(&mut catalog.read().await?).await?;
        let epoch = Epoch::default();
        let meters = Arc::new(Meters::new());
        let principals = match &self.authenticate {
            Some(application) => principal::Source::Application(Arc::clone(application)),
            None => principal::Source::Tokens(catalog.clone()),
        };
        let roles = match &self.memberships {
            Some(application) => membership::Source::Application(Arc::clone(application)),
            None => membership::Source::Members(catalog.clone()),
        };
        Ok(Caches {
            principals: Principals::new(principals, &epoch),
            roles: Roles::new(roles, &epoch),
            directory: Directory::new(catalog.clone(), &epoch, Arc::clone(&meters)),
            pools: Pools::new(
                catalog.clone(),
                self.engines.clone(),
                Sizes { pools_max: self.pools_max, answers: self.answers.clone() },
                &epoch,
                Arc::clone(&meters),
            ),
            epoch,
            meters,
            news: Notify::new(),
            seq: AtomicI64::new(seq),
            taking_in: Mutex::new(()),
            own: AtomicU64::new(own),
            obeying: Mutex::new(()),
        })
    }
}
