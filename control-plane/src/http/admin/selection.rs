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
    /// Only those on this server.
    server: Option<String>,
    /// Explicitly every tenant.
    all: bool,
}

impl From<Selection> for plan::Selection {
    fn from(wire: Selection) -> Self {
        Self { names: wire.names, labels: wire.labels, server: wire.server, all: wire.all }
    }
}
