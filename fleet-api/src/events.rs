//! The audit log.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::bounded_number::{PageLimit, TenantCount};

/// An entry of the audit log: a change, or an operator's access to data.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[schema(as = Event)]
pub struct EventView {
    /// Number of the event. Later events have larger numbers.
    pub seq: i64,
    /// Time of the event, RFC 3339.
    pub at: String,
    /// Kind of the event: noun.verb, for instance `tenant.suspended`.
    pub kind: String,
    /// Actor that caused the event, for instance `token:tok_…`.
    pub actor: String,
    /// Label of the token that acted. Null for an actor that is not a token, and for a token without a label.
    pub actor_name: Option<String>,
    /// Id of the tenant; null if the event concerns no single tenant.
    pub tenant_id: Option<String>,
    /// Current name of the tenant; the last name if the tenant was purged.
    pub tenant: Option<String>,
    /// Id of the operation; null outside an operation.
    pub operation_id: Option<String>,
    /// Id of the request; null if no request caused the event.
    pub request_id: Option<String>,
    /// Further facts; the fields depend on the kind.
    pub data: serde_json::Value,
}

/// Which events; the fields narrow each other.
#[derive(Debug, Clone, Default, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EventFilters {
    /// Only events about the tenant with this name or id.
    pub tenant: Option<String>,
    /// Only events of the operation with this id: `op_…`.
    pub op: Option<String>,
    /// Only events of this actor: the actor as an event shows it, the id of a token, or the label of a token.
    pub actor: Option<String>,
    /// Only events of this kind, for instance `tenant.suspended`.
    pub kind: Option<String>,
    /// Only events at this time or later, RFC 3339.
    pub since: Option<String>,
    /// Only events before this time, RFC 3339.
    pub until: Option<String>,
    /// Order of the events: `oldest` or `newest` first. Default: `oldest`.
    pub order: Option<String>,
    /// Only events with a larger `seq`. Needs the order `oldest`.
    #[param(value_type = Option<i64>, minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    pub after: Option<TenantCount>,
    /// Maximum number of items per page: 1 to 1000. Default: 100.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    pub limit: Option<PageLimit>,
    /// The `next_cursor` of the previous page. Absent: the first page.
    pub cursor: Option<String>,
}
