//! The leaks, one file each. Each one is a mistake that a developer can make in a hurry, and answers correctly to one organisation
//! alone.

use crate::leak::Leak;

#[cfg(feature = "admin-open")]
mod admin_open;
#[cfg(feature = "body-names-tenant")]
mod body_names_tenant;
#[cfg(feature = "bulk-tenant")]
mod bulk_tenant;
#[cfg(feature = "cache-key")]
mod cache_key;
#[cfg(feature = "captured-tenant")]
mod captured_tenant;
#[cfg(feature = "current-tenant")]
mod current_tenant;
#[cfg(feature = "cursor")]
mod cursor;
#[cfg(feature = "deleted-served")]
mod deleted_served;
#[cfg(feature = "error-text")]
mod error_text;
#[cfg(feature = "etag")]
mod etag;
#[cfg(feature = "export-ids")]
mod export_ids;
#[cfg(feature = "files-by-name")]
mod files_by_name;
#[cfg(feature = "fleet-count")]
mod fleet_count;
#[cfg(feature = "foreign-answer")]
mod foreign_answer;
#[cfg(feature = "header-beats-path")]
mod header_beats_path;
#[cfg(feature = "idempotency-key")]
mod idempotency_key;
#[cfg(feature = "job-without-tenant")]
mod job_without_tenant;
#[cfg(feature = "live-without-membership")]
mod live_without_membership;
#[cfg(feature = "location-header")]
mod location_header;
#[cfg(feature = "log-line")]
mod log_line;
#[cfg(feature = "metric-label")]
mod metric_label;
#[cfg(feature = "missing-scope")]
mod missing_scope;
#[cfg(feature = "name-prefix")]
mod name_prefix;
#[cfg(feature = "pool-by-name")]
mod pool_by_name;
#[cfg(feature = "public-caching")]
mod public_caching;
#[cfg(feature = "response-cache")]
mod response_cache;
#[cfg(feature = "shared-temp-table")]
mod shared_temp_table;
#[cfg(feature = "signed-link")]
mod signed_link;
#[cfg(feature = "staff-header")]
mod staff_header;
#[cfg(feature = "stale-after-restore")]
mod stale_after_restore;
#[cfg(feature = "taken-handle")]
mod taken_handle;
#[cfg(feature = "token-cache")]
mod token_cache;
#[cfg(feature = "topic-without-tenant")]
mod topic_without_tenant;
#[cfg(feature = "webhook-from-payload")]
mod webhook_from_payload;

/// Every leak that is compiled in, by name.
pub const LEAKS: &[&Leak] = &[
    #[cfg(feature = "admin-open")]
    &admin_open::LEAK,
    #[cfg(feature = "body-names-tenant")]
    &body_names_tenant::LEAK,
    #[cfg(feature = "bulk-tenant")]
    &bulk_tenant::LEAK,
    #[cfg(feature = "cache-key")]
    &cache_key::LEAK,
    #[cfg(feature = "captured-tenant")]
    &captured_tenant::LEAK,
    #[cfg(feature = "current-tenant")]
    &current_tenant::LEAK,
    #[cfg(feature = "cursor")]
    &cursor::LEAK,
    #[cfg(feature = "deleted-served")]
    &deleted_served::LEAK,
    #[cfg(feature = "error-text")]
    &error_text::LEAK,
    #[cfg(feature = "etag")]
    &etag::LEAK,
    #[cfg(feature = "export-ids")]
    &export_ids::LEAK,
    #[cfg(feature = "files-by-name")]
    &files_by_name::LEAK,
    #[cfg(feature = "fleet-count")]
    &fleet_count::LEAK,
    #[cfg(feature = "foreign-answer")]
    &foreign_answer::LEAK,
    #[cfg(feature = "header-beats-path")]
    &header_beats_path::LEAK,
    #[cfg(feature = "idempotency-key")]
    &idempotency_key::LEAK,
    #[cfg(feature = "job-without-tenant")]
    &job_without_tenant::LEAK,
    #[cfg(feature = "live-without-membership")]
    &live_without_membership::LEAK,
    #[cfg(feature = "location-header")]
    &location_header::LEAK,
    #[cfg(feature = "log-line")]
    &log_line::LEAK,
    #[cfg(feature = "metric-label")]
    &metric_label::LEAK,
    #[cfg(feature = "missing-scope")]
    &missing_scope::LEAK,
    #[cfg(feature = "name-prefix")]
    &name_prefix::LEAK,
    #[cfg(feature = "pool-by-name")]
    &pool_by_name::LEAK,
    #[cfg(feature = "public-caching")]
    &public_caching::LEAK,
    #[cfg(feature = "response-cache")]
    &response_cache::LEAK,
    #[cfg(feature = "shared-temp-table")]
    &shared_temp_table::LEAK,
    #[cfg(feature = "signed-link")]
    &signed_link::LEAK,
    #[cfg(feature = "staff-header")]
    &staff_header::LEAK,
    #[cfg(feature = "stale-after-restore")]
    &stale_after_restore::LEAK,
    #[cfg(feature = "taken-handle")]
    &taken_handle::LEAK,
    #[cfg(feature = "token-cache")]
    &token_cache::LEAK,
    #[cfg(feature = "topic-without-tenant")]
    &topic_without_tenant::LEAK,
    #[cfg(feature = "webhook-from-payload")]
    &webhook_from_payload::LEAK,
];
