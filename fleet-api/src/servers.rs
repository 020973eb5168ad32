//! Servers that hold tenants.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::{PageLimit, StepConcurrency, TenantCapacity};
use crate::changes::is_false;
use crate::operations::FailureDetail;
use crate::secret_text::SecretText;

/// A server to add.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerToAdd {
    /// Name of the server: 1 to 63 of a-z, 0-9 and '-'.
    pub name: String,
    /// Engine of the server: sqlite or postgres.
    pub engine: String,
    /// For sqlite: absolute path of an existing directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// For postgres: `postgres://user:password@host:port/database` of a role that may create databases and roles.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub dsn: Option<SecretText>,
    /// Maximum number of databases on the server: 1 to 1,000,000. Absent: no maximum.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<i64>, minimum = 1, maximum = 1_000_000)]
    pub tenants_max: Option<TenantCapacity>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A change of a server's address, password or path.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Entry)]
pub struct ConnectionChange {
    /// For postgres: the new connection string, `postgres://user:password@host:port/database`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub dsn: Option<SecretText>,
    /// For sqlite: absolute path of the directory to which the databases were moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A request to drain a server.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerDrain {
    /// Name of the server that takes the tenants. Absent: all servers that take tenants share them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Maximum number of tenants that are moved at the same time: 1 to 128. Default: 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 128)]
    pub max_parallel: Option<StepConcurrency>,
    /// True: only describe the change and do nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// Reason of the change, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A server, with its state and its present load.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Server)]
pub struct ServerView {
    /// Id of the server: `srv_…`.
    pub id: String,
    /// Name of the server, given by operators.
    pub name: String,
    /// Engine of the server: sqlite or postgres.
    pub engine: String,
    /// Place of the databases: the directory, or the address of the PostgreSQL server.
    pub base: String,
    /// State of the server: active, cordoned, draining or removed.
    pub state: String,
    /// Number of databases on the server.
    pub tenants: i64,
    /// Maximum number of databases. At this number the server takes no new ones. Null: no maximum.
    pub tenants_max: Option<i64>,
    /// True if the server answers and its role has all required rights.
    pub healthy: bool,
    /// Reason why the server does not answer, or the rights that its role lacks. Null if the server is healthy.
    pub problem: Option<FailureDetail>,
    /// Version that the server reports; null if the server does not answer.
    pub version: Option<String>,
    /// Rights to run the functions of PostgreSQL that reveal other tenants: granted (to everybody), revoked_in_new,
    /// outdated or revoked. Null for a directory.
    pub function_rights: Option<String>,
    /// Number of open sessions of all users; null for a directory.
    pub connections_used: Option<u64>,
    /// Number of sessions that the server allows to roles like that of the fleet; null for a directory.
    pub connections_max: Option<u64>,
    /// Number of these sessions that all processes of the fleet together may hold for requests; null for a directory.
    pub connections_budget: Option<u64>,
    /// Size of all databases in bytes; null if the server cannot tell it quickly.
    pub databases_bytes: Option<u64>,
    /// Free space of the server's disk in bytes; null if it is not known.
    pub disk_free_bytes: Option<u64>,
    /// Size of the server's disk in bytes; null if it is not known.
    pub disk_total_bytes: Option<u64>,
}

/// Page of a list of servers.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ServerListQuery {
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}

/// The script that an administrator runs once on a server.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Preparation)]
pub struct ServerPreparation {
    /// Script for psql; null if there is nothing to run.
    pub script: Option<String>,
}
