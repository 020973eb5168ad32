//! `/v1/status`: an overview of the fleet.

use std::collections::BTreeMap;

use axum::extract::State;
use catalog::{backups, changes, fleet, servers, tenants};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::migrations::VersionCount;
use super::servers::ServerView;
use crate::health::operations::count_operations;
use crate::http::ApiState;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::JsonBody;
use crate::time_text;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(fleet_status))
}

/// A summary of the fleet.
#[derive(Debug, Serialize, ToSchema)]
struct FleetStatus {
    /// Id of the fleet: `flt_…`.
    fleet_id: String,
    /// Version of this program.
    version: &'static str,
    /// Number of tenants in each state.
    tenants: BTreeMap<String, i64>,
    /// Number of tenants at each version of the newest migration, without deleted tenants.
    schema_versions: Vec<VersionCount>,
    /// Release from which new tenants start. Null: new tenants start with an empty database.
    current_release: Option<String>,
    /// Servers of the fleet.
    servers: Vec<ServerView>,
    /// Numbers of operations.
    operations: OperationsStatus,
    /// Time of the newest backup of any tenant, RFC 3339; null if there is none.
    last_backup_at: Option<String>,
    /// Time of the oldest backup, RFC 3339; null if there is none.
    oldest_backup_at: Option<String>,
    /// State of the catalog.
    catalog: CatalogStatus,
}

/// Numbers of operations.
#[derive(Debug, Serialize, ToSchema)]
struct OperationsStatus {
    /// Number of operations that are pending or running.
    running: usize,
    /// Number of operations that failed, wholly or in part, within the last day. Counts at most 100.
    pub(crate) failed_recent: usize,
}

/// The state of the catalog.
#[derive(Debug, Serialize, ToSchema)]
struct CatalogStatus {
    /// Number of the newest change in the catalog's change feed.
    change_seq: i64,
    /// Size of the catalog's file in bytes; null if the catalog is not a file of this data directory.
    size_bytes: Option<u64>,
}

/// Get a summary of the fleet.
#[utoipa::path(get, path = "/v1/status", tag = "status", responses((status = 200, description = "Summary of the fleet", body = FleetStatus)))]
async fn fleet_status(State(api): State<ApiState>, _caller: AdmittedCaller) -> Result<JsonBody<FleetStatus>> {
    let known = servers::list_servers(&mut api.app.catalog.read().await?).await?;
    let servers = super::servers::survey_servers(&api, known).await;
    let mut tx = api.app.catalog.read().await?;
    let by_state = tenants::count_by_state(&mut tx).await?;
    let by_version = tenants::count_by_version(&mut tx).await?;
    let version = |(version, tenants): (Option<i64>, i64)| VersionCount { version, tenants: tenants.unsigned_abs() };
    let (oldest, newest) = backups::backup_span(&mut tx).await?;
    let file = api.app.config.catalog_url.is_none().then(|| api.app.config.data_dir.join("catalog.db"));
    let size_bytes = file.and_then(|file| std::fs::metadata(file).ok()).map(|file| file.len());
    let operations = count_operations(&mut tx).await?;
    Ok(JsonBody(FleetStatus {
        fleet_id: api.app.catalog.fleet_id().to_string(),
        version: env!("CARGO_PKG_VERSION"),
        tenants: by_state.into_iter().map(|(state, count)| (state_word(&state), count)).collect(),
        schema_versions: by_version.into_iter().map(version).collect(),
        current_release: fleet::current_release(&mut tx).await?.map(|id| id.to_string()),
        servers,
        operations: OperationsStatus { running: operations.running, failed_recent: operations.failed_recent },
        last_backup_at: time_text::format_optional(newest),
        oldest_backup_at: time_text::format_optional(oldest),
        catalog: CatalogStatus { change_seq: changes::feed_head(&mut tx).await?, size_bytes },
    }))
}

/// A state as the API writes it.
fn state_word(state: &impl Serialize) -> String {
    serde_json::to_value(state).ok().and_then(|json| json.as_str().map(str::to_owned)).unwrap_or_default()
}
