//! Queries on many tenants.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::bounded_number::{AtOnce, RowsMax};
use crate::selection::SelectionRequest;

/// A query on many tenants.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetQuery {
    /// One SQL statement that only reads.
    pub sql: String,
    /// Parameters of the statement: null, booleans, numbers, strings, `{"$int":…}`, `{"$blob":…}`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<serde_json::Value>)]
    pub params: Vec<Box<RawValue>>,
    /// Tenants to query.
    pub selection: SelectionRequest,
    /// Maximum number of rows per tenant: 1 to 10,000. Default: 10,000. A tenant with more rows answers with an error.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 10_000)]
    pub rows_max: Option<RowsMax>,
    /// Maximum number of tenants that are queried at the same time: 1 to 64. Default: 8.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 64)]
    pub concurrency: Option<AtOnce>,
    /// Reason of the query, for the audit log: one line of at most 1,000 bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
