//! Requests and answers of `/v1/tenants`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::{PageLimit, StepConcurrency, TenantCount};
use crate::changes::is_false;
use crate::events::EventView;
use crate::migrations::TenantPin;
use crate::operations::{FailureDetail, OperationView};
use crate::plans::present;
use crate::secret_text::SecretText;
use crate::selection::SelectionRequest;

/// A PostgreSQL database to copy, and the tenant to create from it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Adoption)]
pub struct AdoptionRequest {
    /// Slug of the new tenant: 1 to 63 of a-z, 0-9 and '-'.
    pub name: String,
    /// Database to copy: `postgres://user:password@host:port/database` of a role that may read everything in it.
    #[schema(value_type = String)]
    pub dsn: SecretText,
    /// Labels of the tenant: keys and values, chosen freely.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Name of the server for the copy. Default: the PostgreSQL server with the fewest tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A tenant to create.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewTenant)]
pub struct NewTenantRequest {
    /// Slug of the tenant: 1 to 63 of a-z, 0-9 and '-'.
    pub name: String,
    /// Labels of the tenant: keys and values, chosen freely.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Name of the server. Default: the server with the fewest tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Name of the plan that limits the tenant. Default: no plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A tenant that is being created, and the operation that creates it.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TenantCreated {
    /// The tenant; its state is provisioning until the operation has ended.
    pub tenant: TenantView,
    /// The operation that creates the tenant.
    pub operation: OperationView,
}

/// A list of tenants to create.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenants {
    /// Tenants to create, at most 50,000.
    pub tenants: Vec<NewTenantOfMany>,
    /// Name of the server. Default: the server with the fewest tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Name of the plan that limits the tenants. Default: no plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plan: Option<String>,
    /// Treatment of a name that is already in use.
    #[serde(default)]
    pub if_exists: ExistingNameChoice,
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
    /// Expected number of tenants to create. The request is refused if the plan has another number.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>, minimum = 0, maximum = 9_007_199_254_740_991_u64)]
    pub expect_count: Option<TenantCount>,
}

/// One tenant of a list to create.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTenantOfMany {
    /// Slug of the tenant: 1 to 63 of a-z, 0-9 and '-'.
    pub name: String,
    /// Labels of the tenant: keys and values, chosen freely.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// The treatment of a name that is already in use.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = IfExists)]
pub enum ExistingNameChoice {
    /// Refuse the whole request.
    #[default]
    Error,
    /// Leave the existing tenant as it is.
    Skip,
}

/// Options of a deletion.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteWish {
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// True: take no final backup, for instance because a full disk has no room for it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub no_backup: bool,
}

/// A tenant, with details about its database, backups and operations.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TenantDescription {
    /// Fields of the tenant.
    #[serde(flatten)]
    pub tenant: TenantView,
    /// Event of the change that led to the present status. Null if the audit log does not have it any more.
    pub status_since: Option<EventView>,
    /// Former names that still lead to the tenant.
    pub aliases: Vec<String>,
    /// Custom domains of the tenant.
    pub hosts: Vec<String>,
    /// Number of members.
    pub members: i64,
    /// State of the server; only an active server takes new tenants.
    pub server_state: Option<String>,
    /// Place of the database: the file, or host, port and database name, without secrets. Null if the tenant has no
    /// database.
    pub database: Option<String>,
    /// Release whose newest version the tenant has reached. Null if the tenant is behind or ahead of every known
    /// release.
    pub release: Option<String>,
    /// Newest version of the current release; null before the first release.
    pub head_version: Option<i64>,
    /// The newest backup; null if there is none.
    pub last_backup: Option<LastBackup>,
    /// The last operation that succeeded on the tenant; null if there is none.
    pub last_success: Option<TenantOperation>,
    /// The last operation that failed on the tenant; null if there is none.
    pub last_failure: Option<TenantOperation>,
    /// Operations with unfinished work on the tenant, at most 20.
    pub open_operations: Vec<TenantOperation>,
    /// Id of the operation that blocks the tenant's writes now; null if there is none.
    pub fenced_by: Option<String>,
    /// Replaced databases that are kept for a while, the last replaced first.
    pub kept_databases: Vec<KeptDatabase>,
}

/// The newest backup of a tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct LastBackup {
    /// Id of the backup: `bkp_…`.
    pub id: String,
    /// Time at which the snapshot began, RFC 3339.
    pub taken_at: String,
    /// Size of the database in bytes.
    pub size_bytes: i64,
    /// Size of the object in the backup store, in bytes.
    pub stored_bytes: i64,
    /// Version of the newest migration in the backup; null if it has none.
    pub schema_version: Option<i64>,
    /// Time at which the backup was read back and checked, RFC 3339; null if it never was.
    pub verified_at: Option<String>,
    /// Error that the check found; null if it found none.
    pub verify_error: Option<String>,
}

/// An operation's work on one tenant.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TenantOperation {
    /// Id of the operation: `op_…`.
    pub id: String,
    /// Kind of the operation: create, migrate, backup …
    pub kind: String,
    /// State of the work on this tenant: pending, running, succeeded, failed or cancelled.
    pub state: String,
    /// Next phase of the work.
    pub phase: String,
    /// Actor that requested the operation.
    pub requested_by: String,
    /// Time of the request, RFC 3339.
    pub created_at: String,
    /// Time at which the work on this tenant ended, RFC 3339; null before that.
    pub finished_at: Option<String>,
    /// Error of the last attempt; null if there is none.
    pub error: Option<FailureDetail>,
}

/// A replaced database that is kept until a date.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct KeptDatabase {
    /// Reason of the replacement: restore or move; damaged for a database that was not as the catalog expected.
    pub reason: String,
    /// Place of the database: the file, or host, port and database name.
    pub database: String,
    /// Id of the operation that replaced the database.
    pub operation_id: String,
    /// Version of the database's newest migration; null if it has none.
    pub schema_version: Option<i64>,
    /// Time of the replacement, RFC 3339.
    pub replaced_at: String,
    /// Time after which the database is removed, RFC 3339.
    pub keep_until_at: String,
}

/// A request to change the state of tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LifecycleChange {
    /// Tenants to change.
    pub selection: SelectionRequest,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, stored in the audit log and shown with the tenant: one line of at most 1,000 bytes.
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

/// A request to repair tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LifecycleSettle {
    /// Tenants to repair.
    pub selection: SelectionRequest,
    /// True: if the new database is not available, the retired old database may serve again. Data written since the
    /// replacement is not in it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub back: bool,
    /// True: search all servers for the tenant's database that served last, by the identity in each database. For a
    /// catalog that was restored from an older copy.
    #[serde(default, skip_serializing_if = "is_false")]
    pub newest: bool,
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

/// A request to block or allow writes.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LifecycleReadOnly {
    /// Tenants whose writes are blocked or allowed.
    pub selection: SelectionRequest,
    /// True: block writes. False: allow writes again.
    pub on: bool,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, stored in the audit log and shown with the tenant: one line of at most 1,000 bytes.
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

/// A request to move tenants to another server.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LifecycleMove {
    /// Tenants to move.
    pub selection: SelectionRequest,
    /// Name of the target server, which must have the same engine. Absent: any server that takes tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
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

/// A request to clone a tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LifecycleClone {
    /// Name (slug, alias or host) or id of the tenant.
    pub tenant: String,
    /// Name of the new tenant.
    #[serde(rename = "as")]
    pub as_name: String,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A tenant of the fleet.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Tenant)]
pub struct TenantView {
    /// Id of the tenant: `tnt_…`. It never changes.
    pub id: String,
    /// Current slug of the tenant.
    pub name: String,
    /// State of the tenant: provisioning, active, suspended, archived, deleted or purged.
    pub state: String,
    /// Status for the tenant's users: the state, or `read-only` while an operator blocks writes.
    pub status: String,
    /// Reason why the tenant is suspended or its writes are blocked; null if none was given.
    pub state_reason: Option<String>,
    /// Engine of the database: sqlite or postgres.
    pub engine: String,
    /// Name of the tenant's server.
    pub server: String,
    /// Version of the newest migration that the catalog has recorded; null if there is none. The database may be newer.
    pub schema_version: Option<i64>,
    /// The pin of the tenant. Null if it is not pinned. A pinned tenant stays at its version: migrations of many
    /// tenants leave it out.
    pub pin: Option<TenantPin>,
    /// Number that rises with every change of state or placement. It is the tenant's ETag.
    pub generation: i64,
    /// Source of a write block: operation or operator. Null if writes are not blocked.
    pub block_writes: Option<String>,
    /// True if the tenant is protected: requests to delete it are refused.
    pub protected: bool,
    /// Name of the tenant's plan, which limits it; null if it has none.
    pub plan: Option<String>,
    /// Labels of the tenant: keys and values, chosen freely.
    pub labels: BTreeMap<String, String>,
    /// Size of the database in bytes, as last recorded; null if it is not known.
    pub size_bytes: Option<i64>,
    /// Id of the operation that works on the tenant now; null if there is none.
    pub operation_id: Option<String>,
    /// Time of creation, RFC 3339.
    pub created_at: String,
    /// Time of the last change, RFC 3339.
    pub updated_at: String,
    /// Time of the deletion, RFC 3339; null without a deletion.
    pub deleted_at: Option<String>,
    /// Time after which the data of a deleted tenant may be removed, RFC 3339.
    pub purge_after_at: Option<String>,
    /// All present and former names. Only in answers about one tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub names: Option<Vec<String>>,
}

/// Filters of a list of tenants. A tenant must match all of them.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TenantFilters {
    /// Only tenants with all these labels: `k=v,k2=v2`.
    pub labels: Option<String>,
    /// Only tenants on the server with this name.
    pub server: Option<String>,
    /// Only tenants in these states, separated by commas. Default: all states except purged. `active` includes
    /// read-only tenants; `read-only` selects only those.
    pub state: Option<String>,
    /// Only the tenant with this name (slug, alias or host) or id.
    pub name: Option<String>,
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    pub cursor: Option<String>,
}

/// A change of a tenant. Absent fields keep their values.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TenantPatch {
    /// New slug. The old slug still leads to this tenant, and is never given to another tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Labels to set. A null value removes the label.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Option<String>>,
    /// True: protect the tenant from deletion. False: allow deletion again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protected: Option<bool>,
    /// Name of the plan that limits the tenant. Null: no plan. Absent: the plan stays.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub plan: Option<Option<String>>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
