//! Migrations of the tenants: requests, plans and the state of the fleet.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::{MigrationVersion, StepConcurrency, TenantCount};
use crate::changes::is_false;
use crate::operations::{FailureDetail, OperationView};
use crate::releases::{ReleaseFile, ReleaseView};
use crate::selection::SelectionRequest;

/// A request to migrate tenants: exactly one of `release` and `files`.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrationRun {
    /// Id of the release to migrate to: `rel_…`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release: Option<String>,
    /// Files of a migration directory, instead of a stored release.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<Vec<ReleaseFile>>,
    /// Tenants to migrate. With `all`, new tenants also start from this release.
    pub selection: SelectionRequest,
    /// Version after which to stop. It must be a version of the release.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 0, maximum = 9_223_372_036_854_775_807_i64)]
    pub target: Option<MigrationVersion>,
    /// True: open every database. False: rely on the versions that the catalog has recorded.
    #[serde(default, skip_serializing_if = "is_false")]
    pub verify: bool,
    /// True: migrate pinned tenants, too. Pinned tenants that are named are always migrated.
    #[serde(default, skip_serializing_if = "is_false")]
    pub include_pinned: bool,
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

/// What a migration would do, grouped by version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MigrationPlan {
    /// Release that the tenants would be migrated to.
    pub release: ReleaseView,
    /// Number of tenants that lack versions of the release.
    pub pending: u64,
    /// Number of tenants that have all versions already.
    pub up_to_date: u64,
    /// Number of tenants that are newer than the release.
    pub ahead: u64,
    /// Number of tenants that lack versions and stay as they are, because they are pinned.
    pub pinned: u64,
    /// The pinned tenants, at most 100.
    pub pinned_tenants: Vec<PinnedTenant>,
    /// Number of tenants for each version that they have now.
    pub by_version: Vec<PlanAtVersion>,
}

/// The tenants at one version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PlanAtVersion {
    /// Version of their newest migration; null if they have none.
    pub version: Option<i64>,
    /// Number of tenants at this version.
    pub tenants: u64,
    /// Versions that these tenants lack.
    pub pending: Vec<i64>,
}

/// Filters of the tenants in the status.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MigrationFilters {
    /// Only tenants with all these labels: `k=v,k2=v2`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub labels: Option<String>,
    /// Only tenants on the server with this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Only the tenant with this name or id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// True: read the ledger of every database. False: read ledgers in small fleets, and where the catalog does not
    /// know a tenant's release.
    #[serde(default, skip_serializing_if = "is_false")]
    pub verify: bool,
}

/// Migration status of the fleet.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MigrationStatus {
    /// The current release; null before the first release.
    pub head: Option<ReleaseView>,
    /// Number of tenants that serve.
    pub total: u64,
    /// Number of tenants at the newest version of the current release.
    pub up_to_date: u64,
    /// Number of tenants that lack versions of the current release.
    pub pending: u64,
    /// Number of tenants that are newer than the current release.
    pub ahead: u64,
    /// Number of tenants that lack versions and are pinned. They stay as they are until a migration names them.
    pub pinned: u64,
    /// The pinned tenants, at most 100.
    pub pinned_tenants: Vec<PinnedTenant>,
    /// Number of tenants that applied other texts than the release has, or versions that the release lacks.
    pub differ: u64,
    /// Number of tenants with unknown versions, because their databases cannot be read.
    pub unreadable: u64,
    /// Number of tenants whose ledgers were read for this answer. For all others the catalog's record is used.
    pub read: u64,
    /// Versions of which tenants have applied different texts.
    pub splits: Vec<String>,
    /// Number of tenants that are still being created.
    pub unknown: u64,
    /// Number of tenants at each version.
    pub versions: Vec<VersionCount>,
    /// Tenants that failed in the last migration, at most 100.
    pub failed: Vec<FailedTenant>,
    /// The last migration; null if there was none.
    pub last_operation: Option<OperationView>,
}

/// The number of tenants at one version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct VersionCount {
    /// Version of their newest migration; null if they have none.
    pub version: Option<i64>,
    /// Number of tenants at this version.
    pub tenants: u64,
}

/// A tenant that failed in a migration.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct FailedTenant {
    /// Name of the tenant.
    pub tenant: String,
    /// Error of the failed step; null if none was recorded.
    pub error: Option<FailureDetail>,
}

/// The pin of a tenant: it stays at its version until a migration names it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TenantPin {
    /// Version at which the tenant stays; null if it has no migration.
    pub version: Option<i64>,
    /// Newest version of the current release; null before the first release.
    pub head_version: Option<i64>,
    /// Time at which the tenant was pinned, RFC 3339.
    pub since_at: String,
    /// Id of the operation that took the tenant back to this version.
    pub operation_id: String,
}

/// A tenant that is pinned to its version.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PinnedTenant {
    /// Name of the tenant.
    pub tenant: String,
    /// Version, time and operation of the pin.
    #[serde(flatten)]
    pub pin: TenantPin,
}
