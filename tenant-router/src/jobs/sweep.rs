//! Repairs the catalog's index of due jobs after a process died before it wrote its marks: looks once into the database of
//! every tenant that serves, a few at a time.

use std::sync::Arc;

use catalog::members::Role;
use catalog::tenants::{self, TenantCriteria};
use catalog::{TenantId, TenantState, job_queues};
use futures_util::StreamExt as _;
use tenant_engine::SqlValue;

use super::runner::RunnerShared;
use super::statements::{self, first_row, own_statement};
use crate::error::Result;
use crate::principal::Principal;
use crate::tenant::{Read, Tenant};

/// Databases that are read at the same time.
const READS_MAX: usize = 4;
/// Tenants in one page of the catalog.
const PAGE: u32 = 500;
/// How long a sweep is held without progress. Then another process begins it again, which does no harm.
const SWEEP_MS: i64 = 120_000;

/// Sweeps for each process that has died; logs why it could not.
pub(super) async fn sweep_for_dead(shared: Arc<RunnerShared>) {
    loop {
        match sweep_once(&shared).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::warn!(%error, "the jobs of a process that died are looked for later");
                return;
            }
        }
    }
}

/// Sweeps for one dead process; `false` when there is none.
async fn sweep_once(shared: &RunnerShared) -> Result<bool> {
    let catalog = &shared.router.inner.catalog;
    let Some(process) = job_queues::expired_enqueuer(&mut catalog.read().await?).await? else { return Ok(false) };
    let mut tx = catalog.write().await?;
    let until = tx.now() + SWEEP_MS;
    let taken = job_queues::take_sweep(&mut tx, &process, until).await?;
    tx.commit().await?;
    if taken {
        tracing::info!(process, "a process died that may have enqueued jobs; looking into every tenant's database");
        sweep_tenants(shared, &process, until).await?;
    }
    Ok(true)
}

/// Marks the tenants with jobs, page after page. Each page extends the sweep.
async fn sweep_tenants(shared: &RunnerShared, process: &str, mut until: i64) -> Result<()> {
    let mut after = None;
    loop {
        let page = next_page(shared, after).await?;
        let mut tx = shared.router.inner.catalog.write().await?;
        let Some((last, _)) = page.last().copied() else {
            job_queues::end_sweep(&mut tx, process, until).await?;
            return Ok(tx.commit().await?);
        };
        let extended = tx.now() + SWEEP_MS;
        if !job_queues::extend_sweep(&mut tx, process, until, extended).await? {
            // The process lives, or another one has begun the sweep again.
            return Ok(());
        }
        tx.commit().await?;
        (until, after) = (extended, Some(last));
        let looks = futures_util::stream::iter(page).map(|tenant| look_into(shared, tenant));
        let found: Vec<_> = looks.buffer_unordered(READS_MAX).filter_map(std::future::ready).collect().await;
        let mut tx = shared.router.inner.catalog.write().await?;
        job_queues::mark_due(&mut tx, &found).await?;
        tx.commit().await?;
    }
}

async fn next_page(shared: &RunnerShared, after: Option<TenantId>) -> Result<Vec<(TenantId, TenantState)>> {
    let states = vec![TenantState::Active, TenantState::Suspended, TenantState::Archived];
    let criteria = TenantCriteria { states, ..TenantCriteria::default() };
    let mut tx = shared.router.inner.catalog.read().await?;
    let page = tenants::list_tenants(&mut tx, &criteria, after, PAGE).await?;
    Ok(page.into_iter().map(|record| (record.id, record.state)).collect())
}

/// When the tenant's first job is due, if it has one. A tenant that does not serve now may have one: its queue counts as due,
/// and is looked into when the tenant serves again. It is not opened, because that would wake an archived tenant.
async fn look_into(shared: &RunnerShared, (tenant, state): (TenantId, TenantState)) -> Option<(TenantId, i64)> {
    if state != TenantState::Active {
        return Some((tenant, shared.now()));
    }
    let principal = Arc::new(Principal::of_tenant("jobs", tenant, Role::Reader));
    let read = async {
        let tenant: Tenant<Read> = shared.router.open_id(principal, tenant).await?;
        let values = vec![SqlValue::Text(tenant.id().to_string()), SqlValue::Integer(0)];
        let rows = tenant.read_own(own_statement(statements::NEXT_DUE, values)).await?;
        first_row(&rows).map_or(Ok(None), |row| row.nullable_int(0))
    };
    match read.await {
        Ok(due_at) => due_at.map(|at| (tenant, at)),
        Err(_) => Some((tenant, shared.now())),
    }
}
