//! The selection of tenants in a request.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::plan;

/// A selection of tenants by name, label or server, or of all tenants. A tenant must match all given fields. An empty
/// selection selects no tenant.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[schema(as = Selection)]
pub(crate) struct SelectionRequest {
    /// Only tenants with these slugs, aliases, hosts or ids.
    names: Vec<String>,
    /// Only tenants with all of these labels.
    labels: BTreeMap<String, String>,
    /// Only tenants whose labels match all of these selectors: `k=v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, `k`, `!k`,
    /// with commas.
    selectors: Vec<String>,
    /// Only tenants on this server.
    server: Option<String>,
    /// True: select every tenant.
    all: bool,
    /// True: a selection without tenants is not an error.
    allow_empty: bool,
}

impl From<SelectionRequest> for plan::TenantSelection {
    fn from(wire: SelectionRequest) -> Self {
        let SelectionRequest { names, labels, selectors, server, all, allow_empty } = wire;
        Self { names, labels, selectors, server, all, allow_empty, automatic: false }
    }
}
