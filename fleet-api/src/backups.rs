//! Requests and answers of `/v1/backups`.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::{PageLimit, StepConcurrency, TenantCount};
use crate::changes::is_false;
use crate::selection::SelectionRequest;

/// A backup of one tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Backup)]
pub struct BackupView {
    /// Id of the backup: `bkp_…`.
    pub id: String,
    /// Current name of the tenant.
    pub tenant: String,
    /// Id of the tenant: `tnt_…`.
    pub tenant_id: String,
    /// Time of the snapshot, RFC 3339. The backup has the tenant's data as of this time.
    pub taken_at: String,
    /// Size of the snapshot in bytes: the pages of a SQLite database, or the dump of a PostgreSQL database.
    pub size_bytes: i64,
    /// Size of the backup in the backup store, in bytes.
    pub stored_bytes: i64,
    /// Version of the newest migration in the backup; null if it has none.
    pub schema_version: Option<i64>,
    /// Engine of the database: sqlite or postgres.
    pub engine: String,
    /// Reason of the backup: manual, scheduled, pre_restore or pre_delete.
    pub reason: String,
    /// Hash of the content. Backups with equal content have equal hashes.
    pub content_hash: String,
    /// Time of the last successful verification, RFC 3339; null if there was none.
    pub verified_at: Option<String>,
    /// Error that the last verification found; null if it found none.
    pub verify_error: Option<String>,
    /// Backup store that holds the backup: `s3://bucket/prefix` and its endpoint, `file:///directory`, or `file:folder`
    /// inside the data directory. Null for a backup of an older program version.
    pub store: Option<String>,
    /// Key of the manifest in the backup store.
    pub object_key: String,
    /// The manifest as it is in the backup store. Only in answers about one backup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manifest: Option<serde_json::Value>,
}

/// Filters of a list of backups.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct BackupFilters {
    /// Only the items of the tenant with this name or id.
    pub tenant: Option<String>,
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    pub cursor: Option<String>,
}

/// A request to back up tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRun {
    /// Tenants to back up.
    pub selection: SelectionRequest,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Maximum number of steps that run at the same time: 1 to 128. Default: 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    pub concurrency: Option<StepConcurrency>,
    /// Expected number of tenants. The request is refused if the plan has another number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub expect_count: Option<TenantCount>,
}

/// A request to verify backups: the newest backup of each selected tenant, or the listed backups.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupVerify {
    /// Tenants whose newest backups are verified.
    #[serde(default)]
    pub selection: SelectionRequest,
    /// Ids of the backups to verify, instead of a selection. At most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backups: Vec<String>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Maximum number of steps that run at the same time: 1 to 128. Default: 128.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    pub concurrency: Option<StepConcurrency>,
    /// Expected number of tenants. The request is refused if the plan has another number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub expect_count: Option<TenantCount>,
}
