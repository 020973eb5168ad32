//! Which tenants a request means, on the wire.

use std::collections::BTreeMap;

use serde::Deserialize;
use utoipa::ToSchema;

use crate::plan;

/// Tenants by name, label, server, or explicitly all; the fields narrow each other. Nothing given selects nothing.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Selection {
    /// Only these: slugs, aliases, hosts or ids.
    names: Vec<String>,
    /// Only those with all of these labels.
    labels: BTreeMap<String, String>,
    /// Only those whose labels meet all of these: `k=v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, `k`, `!k`, with commas.
    selectors: Vec<String>,
    /// Only those on this server.
    server: Option<String>,
    /// Explicitly every tenant.
    all: bool,
    /// Selecting nobody is not an error.
    allow_empty: bool,
}

impl From<Selection> for plan::Selection {
    fn from(wire: Selection) -> Self {
        let Selection { names, labels, selectors, server, all, allow_empty } = wire;
        Self { names, labels, selectors, server, all, allow_empty, automatic: false }
    }
}
