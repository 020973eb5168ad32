//! The selection of tenants in a request.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::changes::is_false;

/// A selection of tenants by name, label or server, or of all tenants. A tenant must match all given fields. An empty
/// selection selects no tenant.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Selection)]
pub struct SelectionRequest {
    /// Only tenants with these slugs, aliases, hosts or ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Only tenants with all of these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Only tenants whose labels match all of these selectors: `k=v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, `k`, `!k`,
    /// with commas.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<String>,
    /// Only tenants on this server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// True: select every tenant.
    #[serde(skip_serializing_if = "is_false")]
    pub all: bool,
    /// True: a selection without tenants is not an error.
    #[serde(skip_serializing_if = "is_false")]
    pub allow_empty: bool,
}
