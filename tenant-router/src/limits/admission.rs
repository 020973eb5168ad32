//! Admits requests of tenants that have a plan: their rate, and how many are open at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use catalog::plans::PlanLimits;
use catalog::{TenantId, TenantRecord};
use moka::future::Cache;

use super::ProcessCount;
use super::connection_gate::{ConnectionGate, ConnectionHold};
use super::rate_state::RateState;
use super::storage::KnownSize;
use super::token_bucket::{BucketRate, TokenBucket};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::RouterMetrics;

/// How many tenants are counted. A forgotten tenant begins with a full bucket. Each takes about 200 bytes.
const METERS_MAX: u64 = 100_000;

/// Admits requests, and counts those of each tenant.
pub(crate) struct Admission {
    meters: Cache<TenantId, Arc<TenantMeter>>,
    processes: Arc<ProcessCount>,
    began: Instant,
    metrics: Arc<RouterMetrics>,
}

/// The counts of one tenant. A new record of the tenant or its plan does not reset them.
#[derive(Debug, Default)]
struct TenantMeter {
    bucket: Mutex<TokenBucket>,
    open: AtomicU64,
    connections: Arc<ConnectionGate>,
    size: Arc<KnownSize>,
}

/// An admitted request. It counts as open until this is dropped.
#[derive(Debug)]
pub(crate) struct RequestPass {
    rate: Option<RateState>,
    _slot: Option<OpenSlot>,
}

impl RequestPass {
    /// What the caller is told of the rate.
    pub(crate) fn rate_state(&self) -> Option<RateState> {
        self.rate
    }
}

/// One open request of a tenant.
#[derive(Debug)]
struct OpenSlot(Arc<TenantMeter>);

impl Drop for OpenSlot {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Admission {
    pub(crate) fn new(processes: Arc<ProcessCount>, metrics: Arc<RouterMetrics>) -> Self {
        let meters = Cache::builder().max_capacity(METERS_MAX).build();
        Self { meters, processes, began: Instant::now(), metrics }
    }

    /// Admits a request for this tenant. `None` for a tenant whose requests are not limited.
    ///
    /// # Errors
    /// `RequestsMax` and `RateLimited`; the request must not reach the database.
    pub(crate) async fn admit_request(&self, record: &TenantRecord) -> Result<Option<Arc<RequestPass>>> {
        let Some(plan) = &record.plan else { return Ok(None) };
        let limits = &plan.limits;
        if limits.requests_per_second.is_none() && limits.concurrency.is_none() {
            return Ok(None);
        }
        let meter = self.meter_of(record.id).await;
        // The open requests first: a request that is refused for them does not use up the rate.
        let slot = self.open_slot(&meter, limits)?;
        let rate = self.take_token(&meter, limits)?;
        Ok(Some(Arc::new(RequestPass { rate, _slot: slot })))
    }

    /// Waits until the tenant uses fewer connections than its plan allows. `None` for a tenant without this limit.
    ///
    /// # Errors
    /// `ConnectionsMax` of the database when none became free in this time.
    pub(crate) async fn hold_connection(
        &self,
        record: &TenantRecord,
        wait_max: Duration,
    ) -> Result<Option<ConnectionHold>> {
        let Some(limit) = record.plan.as_ref().and_then(|plan| plan.limits.connections_max) else { return Ok(None) };
        let gate = Arc::clone(&self.meter_of(record.id).await.connections);
        match gate.take_connection(limit, wait_max).await {
            Some(hold) => Ok(Some(hold)),
            None => {
                self.metrics.limited_connections.increment(1);
                Err(ErrorKind::Database(tenant_engine::ErrorKind::ConnectionsMax).into())
            }
        }
    }

    /// What is known of the size of a tenant's database.
    pub(crate) async fn size_of(&self, tenant: TenantId) -> Arc<KnownSize> {
        Arc::clone(&self.meter_of(tenant).await.size)
    }

    async fn meter_of(&self, tenant: TenantId) -> Arc<TenantMeter> {
        self.meters.get_with(tenant, async { Arc::default() }).await
    }

    fn open_slot(&self, meter: &Arc<TenantMeter>, limits: &PlanLimits) -> Result<Option<OpenSlot>> {
        let Some(limit) = limits.concurrency else { return Ok(None) };
        let most = (limit / self.processes.live_processes()).max(1);
        let one_more = |open: u64| (open < most).then_some(open + 1);
        if meter.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_err() {
            self.metrics.limited_concurrency.increment(1);
            return Err(ErrorKind::RequestsMax.into());
        }
        Ok(Some(OpenSlot(Arc::clone(meter))))
    }

    fn take_token(&self, meter: &TenantMeter, limits: &PlanLimits) -> Result<Option<RateState>> {
        let Some(per_second) = limits.requests_per_second else { return Ok(None) };
        let burst = limits.burst.unwrap_or(per_second).max(1);
        let rate = BucketRate::new(per_second, burst, self.processes.live_processes());
        let now = u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let answer = meter.bucket.lock().unwrap_or_else(PoisonError::into_inner).take_token(now, rate);
        let state = RateState {
            burst,
            window_seconds: rate.window_seconds(),
            remaining: answer.remaining,
            reset_seconds: answer.seconds,
        };
        if !answer.is_taken {
            self.metrics.limited_rate.increment(1);
            return Err(Error::new(ErrorKind::RateLimited).with_rate(state));
        }
        Ok(Some(state))
    }
}
