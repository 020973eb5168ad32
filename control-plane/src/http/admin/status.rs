//! `/v1/status`: the fleet on one page.

use std::collections::BTreeMap;

use axum::extract::State;
use catalog::operations::{self as catalog_operations, OperationState};
use catalog::{ReadTx, backups, changes, fleet, servers, tenants};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::migrations::VersionCount;
use super::servers::Server;
use crate::http::admission::Caller;
use crate::http::error::Result;
use crate::http::extract::Json;
use crate::http::{Api, time};

/// What counts as recent.
const RECENT_MS: i64 = 24 * 3_600_000;
/// OperationsStatus looked at to find the recently failed: more in a day is an outage, not a count.
const LOOKED_AT_MAX: u32 = 100;

pub(crate) fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(status))
}

/// The fleet on one page.
#[derive(Debug, Serialize, ToSchema)]
struct FleetStatus {
    /// `flt_…`
    fleet_id: String,
    /// Of this program.
    version: &'static str,
    /// How many are in each state.
    tenants: BTreeMap<String, i64>,
    /// By their newest migration, of those not deleted.
    schema_versions: Vec<VersionCount>,
    /// What new tenants start from; null: an empty database.
    current_release: Option<String>,
    /// The places databases live.
    servers: Vec<Server>,
    /// Fleet work.
    operations: OperationsStatus,
    /// RFC 3339: the newest backup of any tenant.
    last_backup_at: Option<String>,
    /// RFC 3339: the oldest backup there is.
    oldest_backup_at: Option<String>,
    /// The catalog itself.
    catalog: CatalogStatus,
}

/// Fleet work.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OperationsStatus {
    /// Pending or running.
    running: usize,
    /// Failed or partial, within a day; at most 100.
    pub(crate) failed_recent: usize,
}

/// The catalog.
#[derive(Debug, Serialize, ToSchema)]
struct CatalogStatus {
    /// Where its change feed is.
    change_seq: i64,
    /// Of its file; null when it is elsewhere.
    size_bytes: Option<u64>,
}

/// Shows the fleet on one page.
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = 200, description = "The fleet", body = FleetStatus)))]
async fn status(State(api): State<Api>, _caller: Caller) -> Result<Json<FleetStatus>> {
    let known = servers::list(&mut api.app.catalog.read().await?).await?;
    let servers = super::servers::surveyed(&api, known).await;
    let mut tx = api.app.catalog.read().await?;
    let by_state = tenants::count_by_state(&mut tx).await?;
    let by_version = tenants::count_by_version(&mut tx).await?;
    let version = |(version, tenants): (Option<i64>, i64)| VersionCount { version, tenants: tenants.unsigned_abs() };
    let (oldest, newest) = backups::span(&mut tx).await?;
    let file = api.app.config.catalog_url.is_none().then(|| api.app.config.data_dir.join("catalog.db"));
    let size_bytes = file.and_then(|file| std::fs::metadata(file).ok()).map(|file| file.len());
    Ok(Json(FleetStatus {
        fleet_id: api.app.catalog.fleet_id().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        tenants: by_state.into_iter().map(|(state, count)| (word(&state), count)).collect(),
        schema_versions: by_version.into_iter().map(version).collect(),
        current_release: fleet::current_release(&mut tx).await?.map(|id| id.to_string()),
        servers,
        operations: operations(&mut tx).await?,
        last_backup_at: time::maybe(newest),
        oldest_backup_at: time::maybe(oldest),
        catalog: CatalogStatus { change_seq: changes::head(&mut tx).await?, size_bytes },
    }))
}

/// Counts fleet work.
pub(crate) async fn operations(tx: &mut ReadTx) -> Result<OperationsStatus> {
    let states = [OperationState::Failed, OperationState::Partial];
    let failed = catalog_operations::page(tx, &states, None, None, None, LOOKED_AT_MAX).await?;
    let since = tx.now() - RECENT_MS;
    let failed_recent = failed.iter().filter(|op| op.finished_at.is_some_and(|at| at >= since)).count();
    Ok(OperationsStatus { running: catalog_operations::open(tx).await?.len(), failed_recent })
}

/// A state as the API writes it.
fn word(state: &impl Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|json| json.as_str().map(str::to_owned)).unwrap_or_default()
}
