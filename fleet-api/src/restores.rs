//! Requests and answers of `/v1/restores`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::backups::BackupView;
use crate::changes::is_false;
use crate::tenants::TenantView;

/// A request to restore a tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreRun {
    /// Name (slug, alias or host) or id of the tenant.
    pub tenant: String,
    /// Backup to restore: `latest` (the last backup), an RFC 3339 time (the last backup taken at or before it), or
    /// `bkp_…`.
    pub to: String,
    /// Name of a new tenant that gets the data. Absent: the tenant is restored in place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(rename = "as")]
    pub as_name: Option<String>,
    /// Schema of the tenant after the restore. Default: that of the backup.
    #[serde(default)]
    pub schema: RestoreSchema,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The schema of a restored tenant.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestoreSchema {
    /// The schema of the backup. A tenant that is then behind is pinned to that version until a migration names it.
    #[default]
    Backup,
    /// The tenant's current schema: the restored data is migrated to it.
    Current,
}

/// A request to undo the last restore of a tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreUndo {
    /// Name (slug, alias or host) or id of the tenant.
    pub tenant: String,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A restore to describe.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreAsk {
    /// Name (slug, alias or host) or id of the tenant.
    pub tenant: String,
    /// Backup to restore; the same values as in a restore.
    pub to: String,
    /// Schema after the restore; the same values as in a restore.
    #[serde(default)]
    pub schema: RestoreSchema,
}

/// The effect of a restore in place.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct RestorePreview {
    /// Backup that would be restored.
    pub backup: BackupView,
    /// The tenant as it is now.
    pub current: TenantView,
    /// Version of the tenant's newest migration after the restore; null if it would have none.
    pub schema_version: Option<i64>,
    /// True if the tenant would be pinned: migrations of many tenants leave it out until one names it.
    pub pinned: bool,
    /// Description of the restore.
    pub will: String,
    /// Time until which a restore made now could be undone, RFC 3339.
    pub undo_until_at: String,
}
