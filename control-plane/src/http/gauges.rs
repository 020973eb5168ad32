//! The gauges of `/metrics` about the fleet, read from the catalog's indexes when a collector asks.
//!
//! Called by `health.rs`. No credential is needed there, so the catalog is read at most once in [`READ_PAUSE`], no
//! matter who calls. If it does not answer, the last numbers stay, and the time of the last reading shows their age.

use std::time::{Duration, Instant};

use catalog::operations::{self, OperationState};
use catalog::{TenantState, backups, servers, tenants};
use serde::Serialize;
use tokio::sync::Mutex;

use crate::app::App;
use crate::disks;
use crate::error::Result;
use crate::metrics::{
    BACKUP_AGE, DISK_FREE, DISK_SIZE, DISKS_LOW, FLEET_READ_AT, OPERATIONS, RESERVES_MISSING, TENANTS,
};

/// Minimum time between two readings. Collectors ask every 15 s or less often.
const READ_PAUSE: Duration = Duration::from_secs(5);
/// Maximum time of a reading. A collector gives up after some seconds, and this process's own counters must not wait
/// for the catalog.
const READ_MAX: Duration = Duration::from_secs(2);

/// Every state of a tenant.
const TENANT_STATES: [TenantState; 6] = [
    TenantState::Provisioning,
    TenantState::Active,
    TenantState::Suspended,
    TenantState::Archived,
    TenantState::Deleted,
    TenantState::Purged,
];

/// Every state of an operation.
const OPERATION_STATES: [OperationState; 7] = [
    OperationState::Pending,
    OperationState::Running,
    OperationState::Paused,
    OperationState::Succeeded,
    OperationState::Partial,
    OperationState::Failed,
    OperationState::Cancelled,
];

/// The time of the last reading of the fleet.
#[derive(Debug, Default)]
pub(crate) struct FleetGauges {
    last: Mutex<Option<Instant>>,
}

impl FleetGauges {
    /// Reads the fleet into the gauges, unless that was done recently.
    pub(crate) async fn refresh_gauges(&self, app: &App) {
        let mut last = self.last.lock().await;
        if last.is_some_and(|at| at.elapsed() < READ_PAUSE) {
            return;
        }
        *last = Some(Instant::now());
        read_disk(app);
        match tokio::time::timeout(READ_MAX, read_catalog(app)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(code = %error.code(), %error, "the metrics of the fleet were not read"),
            Err(_) => tracing::warn!("the metrics of the fleet were not read: the catalog does not answer"),
        }
    }
}

async fn read_catalog(app: &App) -> Result<()> {
    let mut tx = app.catalog.read().await?;
    let tenants = tenants::count_by_state(&mut tx).await?;
    let operations = operations::count_by_state(&mut tx).await?;
    set_disks(app, &servers::server_directories(&mut tx).await?);
    let newest = backups::list_backups(&mut tx, None, None, 1).await?;
    let now = tx.now();
    set_counts(TENANTS, &TENANT_STATES, &tenants);
    set_counts(OPERATIONS, &OPERATION_STATES, &operations);
    let age = newest.first().map_or(f64::INFINITY, |backup| ms_to_seconds(now - backup.taken_at).max(0.0));
    metrics::gauge!(BACKUP_AGE).set(age);
    metrics::gauge!(FLEET_READ_AT).set(ms_to_seconds(now));
    Ok(())
}

/// Sets a gauge for each state, including states that have become empty.
fn set_counts<S: Serialize + PartialEq>(name: &'static str, states: &[S], counts: &[(S, i64)]) {
    for state in states {
        let count = counts.iter().find(|(counted, _)| counted == state).map_or(0, |(_, count)| *count);
        let label = serde_json::to_value(state).ok().and_then(|json| json.as_str().map(str::to_owned));
        metrics::gauge!(name, "state" => label.unwrap_or_default()).set(count as f64);
    }
}

fn set_disks(app: &App, bases: &[disks::BaseDirectory]) {
    let data_dir = disks::of_data_dir(&app.config.data_dir, &app.catalog);
    let all: Vec<_> = std::iter::once(data_dir).chain(disks::of_bases(bases)).collect();
    let low = all.iter().filter(|disk| disk.space.is_some_and(|space| space.is_low())).count();
    let missing = all.iter().filter(|disk| disk.lacks_reserve()).count();
    metrics::gauge!(DISKS_LOW).set(low as f64);
    metrics::gauge!(RESERVES_MISSING).set(missing as f64);
}

fn read_disk(app: &App) {
    if let Ok(disk) = rustix::fs::statvfs(&app.config.data_dir) {
        metrics::gauge!(DISK_FREE).set((disk.f_bavail * disk.f_frsize) as f64);
        metrics::gauge!(DISK_SIZE).set((disk.f_blocks * disk.f_frsize) as f64);
    }
}

fn ms_to_seconds(ms: i64) -> f64 {
    ms as f64 / 1_000.0
}
