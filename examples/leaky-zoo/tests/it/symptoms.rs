//! What each leak shows: a few requests of two founders, and whether `a` learns or changes something of `b`.

mod caches;
mod elsewhere;
mod names;
mod reads;

use crate::stage::Stage;

/// Whether the leak with this name shows. The requests are the same with and without it.
pub(crate) async fn leak_shows(name: &str, stage: &Stage) -> bool {
    match name {
        "missing-scope" => reads::missing_scope(stage).await,
        "captured-tenant" | "shared-temp-table" => reads::search_of_both(stage).await,
        "pool-by-name" | "response-cache" => reads::lists_of_both(stage).await,
        "export-ids" => reads::export_ids(stage).await,
        "signed-link" => reads::signed_link(stage).await,
        "cursor" => reads::cursor(stage).await,
        "files-by-name" => reads::files_by_name(stage).await,
        "idempotency-key" => reads::idempotency_key(stage).await,
        "location-header" => reads::location_header(stage).await,
        "fleet-count" => reads::fleet_count(stage).await,
        "current-tenant" => reads::current_tenant(stage).await,
        "cache-key" => caches::cache_key(stage).await,
        "etag" => caches::etag(stage).await,
        "public-caching" => caches::public_caching(stage).await,
        "stale-after-restore" => caches::stale_after_restore(stage).await,
        "deleted-served" => caches::deleted_served(stage).await,
        "token-cache" => names::token_cache(stage).await,
        "live-without-membership" => names::live_without_membership(stage).await,
        "staff-header" => names::staff_header(stage).await,
        "header-beats-path" => names::header_beats_path(stage).await,
        "body-names-tenant" => names::body_names_tenant(stage).await,
        "bulk-tenant" => names::bulk_tenant(stage).await,
        "name-prefix" => names::name_prefix(stage).await,
        "foreign-answer" => names::foreign_answer(stage).await,
        "error-text" => names::error_text(stage).await,
        "taken-handle" => names::taken_handle(stage).await,
        "admin-open" => names::admin_open(stage).await,
        "job-without-tenant" => elsewhere::job_without_tenant(stage).await,
        "webhook-from-payload" => elsewhere::webhook_from_payload(stage).await,
        "topic-without-tenant" => elsewhere::topic_without_tenant(stage).await,
        "metric-label" => elsewhere::metric_label(stage).await,
        "log-line" => elsewhere::log_line(stage).await,
        other => panic!("the leak {other} has no test"),
    }
}
