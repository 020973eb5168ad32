//! `/v1/status`: an overview of the fleet.

use axum::extract::State;
use catalog::{backups, changes, fleet, servers, tenants};
use fleet_api::migrations::VersionCount;
use fleet_api::status::{CatalogStatus, FleetStatus, OperationsStatus};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::health::operations::count_operations;
use crate::http::ApiState;
use crate::http::admin::words::word_of;
use crate::http::admission::AdmittedCaller;
use crate::http::error::Result;
use crate::http::extract::JsonBody;
use crate::time_text;

pub(crate) fn routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::new().routes(routes!(fleet_status))
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
        version: env!("CARGO_PKG_VERSION").to_owned(),
        tenants: by_state.into_iter().map(|(state, count)| (word_of(&state), count)).collect(),
        schema_versions: by_version.into_iter().map(version).collect(),
        current_release: fleet::current_release(&mut tx).await?.map(|id| id.to_string()),
        servers,
        operations: OperationsStatus { running: operations.running, failed_recent: operations.failed_recent },
        last_backup_at: time_text::format_optional(newest),
        oldest_backup_at: time_text::format_optional(oldest),
        catalog: CatalogStatus { change_seq: changes::feed_head(&mut tx).await?, size_bytes },
    }))
}
